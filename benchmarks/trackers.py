"""What the benchmarks of delivery share: settings, a worker that is timed, and what the trackers have got."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from pathlib import Path
from typing import Any

from tests.backends.mlflow_server import MlflowServer
from tests.backends.wandb_files import files_of, messages, values
from tracelet import BackendPlugin, TraceletSettings
from tracelet.core.orchestrator import facts_of
from tracelet.core.plugins import ManagedPlugin
from tracelet.delivery.worker import DeliveryWorker
from tracelet.journal.directory import RunDirectory

_LONGEST_S = 600.0


def quieten(directory: str) -> None:
    """Have the SDKs in this process, which ends with the measurement, print nothing and report to nobody."""
    os.environ.update(
        MLFLOW_DISABLE_TELEMETRY="true",
        DO_NOT_TRACK="true",
        MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT="true",
        WANDB_SILENT="true",
        WANDB_ERROR_REPORTING="false",
        WANDB_DATA_DIR=directory,
    )


def settings_for(directory: str, server_uri: str = "", **settings: Any) -> TraceletSettings:
    """Settings that deliver to an MLflow server and to W&B offline, and wait for both at the end of the run."""
    quieten(directory)
    plugins = {"mlflow": {"tracking_uri": server_uri}, "wandb": {"mode": "offline", "dir": directory}}
    return TraceletSettings(dir=directory, stop_timeout_s=_LONGEST_S, show_progress=False, plugins=plugins, **settings)


def delivery_s(backend: BackendPlugin, settings: TraceletSettings, run_dir: Path) -> float:
    """How long a worker takes to deliver a run, in seconds. The backend is connected before."""
    run = RunDirectory.open(run_dir)
    name = backend.get_metadata().name
    facts = facts_of(run, name)
    managed = ManagedPlugin(backend, settings.plugin_config(name))
    managed.initialize(facts)
    managed.start()
    worker = DeliveryWorker(
        managed, run, facts=facts, accepts=lambda _: True, emit=lambda _: None, on_error=_fail, is_live=False
    )
    began_s = time.perf_counter()
    worker.start()
    worker.request_stop(_LONGEST_S)
    worker.join(_LONGEST_S)
    return time.perf_counter() - began_s


def points_in_mlflow(server: MlflowServer, run_name: str) -> int:
    """The points that the server's database has of the runs of this name."""
    query = "SELECT count(*) FROM metrics JOIN runs USING (run_uuid) WHERE runs.name = ?"
    with contextlib.closing(sqlite3.connect(server.store_uri.removeprefix("sqlite:///"), timeout=60)) as database:
        found: int = database.execute(query, [run_name]).fetchone()[0]
        return found


def points_in_wandb(directory: str) -> int:
    """The points of `train/…` in the `.wandb` files under a directory."""
    records = (record for file in files_of(Path(directory)) for record in messages(file))
    return sum(key.startswith("train/") for record in records for key in values(record.history.item))


def check(found: int, expected: int) -> None:
    """Refuse the figures of a delivery that was not complete.

    Raises:
        RuntimeError: It was not.
    """
    if found != expected:
        raise RuntimeError(f"the tracker has {found} points in place of {expected}")


def _fail(name: str, error: BaseException) -> None:
    raise RuntimeError(f"{name} could not deliver") from error
