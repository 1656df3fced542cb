"""What the tests of outages share: trainings under way, and the comparison of a tracker with the journal."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run as RemoteRun

from tests.outages.training import DETAILS_STEP, SERIES, TAGS, TEXT, WEIGHTS, Costs, Plan, train
from tracelet import MetricType, load_run
from tracelet.delivery.cursor import REJECTED_FILE, Cursor
from tracelet.delivery.report import DeliveryReport
from tracelet.journal.directory import delivery_directory
from tracelet.journal.load import Run

ROOT = Path(__file__).parents[2]
WAIT_S = 120.0  # Of a busy machine.
BOTH = ("thread", "process")


def wait_for(condition: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline_s, "it has not come"
        time.sleep(0.02)


def variables(settings: Mapping[str, object]) -> dict[str, str]:
    """Settings as environment variables: those of Tracelet, and those of a backend, as `mlflow__timeout_s`."""
    return {
        f"TRACELET_{'PLUGINS__' if '__' in name else ''}{name.upper()}": str(value) for name, value in settings.items()
    }


class Training:
    """A training in a process of its own. `settings` are Tracelet's, and `mlflow__timeout_s` one of a backend's."""

    def __init__(self, folder: Path, run_id: str, backend: str, **settings: object) -> None:
        self.run_id, self.folder, self.backend = run_id, folder, backend
        self.run_dir = folder / "tracelet_runs" / "default" / run_id
        self.backend_dir = delivery_directory(self.run_dir, backend)
        self.environment = {
            "PYTHONPATH": str(ROOT),
            "HOME": str(folder / "home"),
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "TRACELET_BACKEND": backend,
            "TRACELET_DELIVERY": "thread",
        }
        self.environment |= variables(settings)
        self._orders, theirs = multiprocessing.Pipe()
        plan = Plan(folder, run_id, self.environment)
        self._process = multiprocessing.get_context("forkserver").Process(target=train, args=(plan, theirs))
        self._process.start()
        theirs.close()

    @property
    def delivered(self) -> int:
        """Records that the backend has taken."""
        return Cursor(self.backend_dir).delivered

    @property
    def report(self) -> DeliveryReport:
        """How the delivery stands."""
        return DeliveryReport.read(self.backend_dir)

    @property
    def said(self) -> str:
        """What the user has seen."""
        return (self.folder / f"{self.run_id}.log").read_text()

    def wait_for_more(self, records: int = 1) -> None:
        """Wait until the backend has taken some more records."""
        before = self.delivered
        wait_for(lambda: self.delivered >= before + records)

    def wait_for_trouble(self, before: int | None = None) -> None:
        """Wait until delivery has met one more error than `before`; None: than now."""
        met = self.report.errors if before is None else before
        wait_for(lambda: self.report.errors > met)

    def finish(self) -> Costs:
        """Let it end."""
        self._orders.send("stop")
        assert self._orders.poll(WAIT_S), f"the training does not end; it said:\n{self.said}"
        costs: Costs = self._orders.recv()
        self._process.join(WAIT_S)
        assert 0 == self._process.exitcode, self.said
        return costs

    def join(self, timeout_s: float) -> None:
        """Let it go on for a while."""
        self._process.join(timeout_s)

    def kill(self) -> None:
        """End it as the kernel does where memory is short."""
        self._process.kill()
        self._process.join()

    def end_delivery(self) -> None:
        """End a delivery process that goes on, where a test has failed."""
        pid = self.report.pid
        if pid is not None and b"sidecar_main" in _command(pid):
            os.kill(pid, signal.SIGKILL)

    def sync(self, *other_runs: str, **settings: object) -> list[dict[str, Any]]:
        """`tracelet sync`, as its user types it; gives what it prints of each run."""
        command = [Path(sys.executable).with_name("tracelet"), "sync", self.run_id, *other_runs, "--to", self.backend]
        environment = os.environ | self.environment | variables(settings)
        done = subprocess.run(
            [*command, "--json"], check=False, capture_output=True, text=True, cwd=self.folder, env=environment
        )
        assert 0 == done.returncode, done.stdout + done.stderr
        rows: list[dict[str, Any]] = json.loads(done.stdout)
        return rows


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # It is gone.
        return b""


def assert_undisturbed(costs: Costs) -> None:
    """No log call waited for anything.

    What a call itself does is the CPU time of its thread, in which nothing counts that else runs on the machine: 5 ms
    at most, garbage collection included. By the clock a busy machine makes any call late now and then, so that bound is
    for nearly all calls; but no call took nearly as long as the outages last.
    """
    calls = costs.steps * len(SERIES)
    assert 100 < calls
    assert costs.worst_cpu_ns < 5_000_000
    assert costs.late_calls <= 2 + calls / 1000
    assert costs.longest_ns < 2_000_000_000


class Remote:
    """The one run of MLflow's that belongs to a run of ours."""

    def __init__(self, uri: str, run_dir: Path) -> None:
        self._uri = uri
        self._client = MlflowClient(uri)
        self.local: Run = load_run(run_dir)
        (self.run,) = self._find()

    def _find(self) -> list[RemoteRun]:
        experiments = [experiment.experiment_id for experiment in self._client.search_experiments()]
        return list(self._client.search_runs(experiments, f"tags.`tracelet.run_uuid` = '{self.local.uuid}'"))

    def history(self, name: str) -> list[tuple[int, int, float]]:
        """Steps, times in ms and values."""
        points = self._client.get_metric_history(self.run.info.run_id, name)
        return [(point.step, point.timestamp, point.value) for point in points]

    def files(self, folder: str) -> list[str]:
        """The paths of the artifacts in a folder."""
        return [found.path for found in self._client.list_artifacts(self.run.info.run_id, folder)]

    def file(self, path: str) -> bytes:
        """An artifact."""
        place = f"{self._uri}/api/2.0/mlflow-artifacts/artifacts{self.run.info.artifact_uri.partition(':')[2]}/{path}"
        with urllib.request.urlopen(place, timeout=WAIT_S) as answer:
            data: bytes = answer.read()
        return data


def assert_complete(uri: str, run_dir: Path, status: str = "FINISHED", steps: int | None = None) -> Remote:
    """MLflow has one run, and in it all that was logged, each once and in order, and nothing else."""
    remote = Remote(uri, run_dir)
    local, run = remote.local, remote.run
    for name in local.names(MetricType.SCALAR, MetricType.SYSTEM):
        series = local.series(name)
        times_ms = [round(time_s * 1000) for time_s in series.times_s.tolist()]
        expected = list(zip(series.steps.tolist(), times_ms, series.values.tolist(), strict=True))
        found = remote.history(name)
        if name not in SERIES:  # The errors of backends: several processes may have noted them.
            expected, found = sorted(set(expected)), sorted(found)
        assert expected == found, name
    assert set(local.names(MetricType.SCALAR, MetricType.SYSTEM)) == set(run.data.metrics)
    assert {name: str(value) for name, value in local.params.items()} == run.data.params
    assert local.tags.items() <= run.data.tags.items()
    assert (status, True) == (run.info.status, run.info.end_time is not None)
    assert not (run_dir / "delivery" / "mlflow" / REJECTED_FILE).exists()
    if steps is not None:  # Else the training was killed, and the journal alone knows when.
        assert [list(range(steps))] * len(SERIES) == [local.series(name).steps.tolist() for name in SERIES]
        assert ({"lr": 0.001, "model/layers": 4, "model/name": "digits"}, TAGS) == (local.params, local.tags)
    if records := local.records(MetricType.TEXT):
        (text,), (artifact,) = records, local.records(MetricType.ARTIFACT)
        assert TEXT.encode() == remote.file(f"texts/sample/{DETAILS_STEP:08}_{round((text.timestamp or 0) * 1000)}.txt")
        assert WEIGHTS == remote.file(artifact.name)
    return remote
