"""Trouble of one backend is that backend's alone: not the other's, the training's, nor the user's own with the SDKs."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.backends.mlflow_server import MlflowServer
from tests.backends.mlflow_support import QUIET
from tests.delivery.support import Plain
from tests.outages.proxy import Proxy, Trouble
from tests.outages.support import ROOT, WAIT_S, assert_complete, wait_for
from tests.outages.training import CONFIG, TAGS, Costs
from tracelet import Experiment, TraceletSettings
from tracelet.core.plugins import PluginBase
from tracelet.delivery import worker
from tracelet.testing import MemoryBackend

pytestmark = QUIET

STEPS = 400


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    wait_for(lambda: not [thread for thread in set(threading.enumerate()) - before if "tracelet" in thread.name])


def started(tracking_uri: str, *others: PluginBase) -> Experiment:
    settings = TraceletSettings(delivery="thread", stop_timeout_s=2, plugins={"mlflow": {"tracking_uri": tracking_uri}})
    return Experiment("digits", ["mlflow", *others], CONFIG, TAGS, settings=settings).start()


def waiting(experiment: Experiment, backend: str) -> int:
    count: int = experiment.status()["backends"][backend].waiting
    return count


@pytest.mark.parametrize("trouble", ["fails", "hangs"])
def test_backend_that_fails_or_hangs_delays_no_other_one(server: MlflowServer, trouble: str, caplog):
    bad, may_go_on = MemoryBackend("bad"), threading.Event()
    if trouble == "fails":
        bad.fail(ConnectionError("no route"))
    else:
        bad.stall(may_go_on)
    experiment, costs = started(server.uri, bad), Costs()
    for _ in range(STEPS):
        costs.log(experiment)
    wait_for(lambda: bad.count("handle"))
    wait_for(lambda: not waiting(experiment, "mlflow"))
    costs.stop(experiment)
    assert [] == bad.records
    assert costs.stop_s < 2 + 2
    assert f"send them with: tracelet sync {experiment.run_id} --to bad" in caplog.text
    assert_complete(server.uri, experiment.run_dir, steps=STEPS)
    may_go_on.set()


def test_server_that_always_answers_500_delays_no_other_backend(caplog):
    good = MemoryBackend("good")
    with Proxy(0) as proxy, proxy.trouble(Trouble("answer", 500), always=True):
        experiment, costs = started(proxy.uri, good), Costs()
        for _ in range(STEPS):
            costs.log(experiment)
        wait_for(lambda: proxy.troubled)
        wait_for(lambda: not waiting(experiment, "good"))
        assert STEPS * 5 <= waiting(experiment, "mlflow")
        costs.stop(experiment)
    assert costs.stop_s < 2 + 2
    assert [float(step) for step in range(STEPS)] == [r.value for r in good.records if r.name == "train/metric_0"]
    assert f"send them with: tracelet sync {experiment.run_id} --to mlflow" in caplog.text


class Slow(Plain):
    """Takes 0.1 s for each batch, and keeps nothing."""

    delay = threading.Event()
    max_batch = 100

    def handle_batch(self, metrics):
        self.delay.wait(0.1)


def anonymous_bytes() -> int:
    """The memory of this process that no file stands behind, as the mapped segments of the journal have one."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


def test_backend_that_is_slower_than_the_training_takes_no_memory_and_is_warned_of_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(worker, "LAG_WARNING_S", 0.3)
    backend = Slow()
    experiment = Experiment("digits", backend, settings=TraceletSettings(stop_timeout_s=0)).start()
    experiment.log_metric("loss", 0.0, 0)
    before = anonymous_bytes()
    for step in range(1, 200_000):
        experiment.log_metric("loss", float(step), step)
    wait_for(lambda: "more slowly than the run makes them" in caplog.text)
    assert anonymous_bytes() - before < 16 * 2**20  # As objects, the records would take 100 MB.
    stats = experiment.status()["backends"]["memory"]
    assert stats.waiting > 150_000
    assert stats.lag_s > 0.3
    wait_for(lambda: experiment.status()["backends"]["memory"].delivered > stats.delivered + 500)
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert 1 == len(warnings)
    assert "They wait on the disk, not in memory" in warnings[0]
    experiment.stop()


USER = """
import json, logging, os, signal, sys
import mlflow, wandb
from tracelet import Experiment

logging.getLogger("mine").addHandler(logging.StreamHandler())
signal.signal(signal.SIGTERM, lambda number, frame: None)
mlflow.set_tracking_uri("sqlite:///mine.db")
mlflow.set_experiment("mine")
mlflow.start_run()
wandb.init(mode="offline", project="mine")

def state():
    root = logging.getLogger()
    known = [root, *map(logging.getLogger, names)]
    return {
        "active run": mlflow.active_run().info.run_id,
        "tracking address": mlflow.get_tracking_uri(),
        "registry address": mlflow.get_registry_uri(),
        "wandb run": wandb.run.id,
        "wandb mode": wandb.run.settings.mode,
        "environment": dict(os.environ),
        "loggers": {one.name: [one.level, one.propagate, one.disabled, list(map(repr, one.handlers))] for one in known},
        "signals": {number: repr(signal.getsignal(number)) for number in signal.valid_signals()},
        "hooks": [repr(sys.excepthook), repr(sys.displayhook), repr(sys.stdout), repr(sys.stderr)],
        "directory": os.getcwd(),
    }

names = sorted(name for name, one in logging.root.manager.loggerDict.items() if isinstance(one, logging.Logger))
before = state()
with Experiment("ours", backend=["mlflow", "wandb"], run_id="r1") as experiment:
    for step in range(100):
        experiment.log_metric("loss", 1.0, step)
        mlflow.log_metric("mine", 2.0, step=step)
        wandb.log({"mine": 3.0})
    assert experiment.flush(100)
    during = state()
after = state()
mlflow.log_metric("mine", 2.0, step=100)
wandb.log({"mine": 3.0})
mine = mlflow.active_run().info.run_id
mlflow.end_run()
wandb.finish()
history = [point.step for point in mlflow.MlflowClient().get_metric_history(mine, "mine")]
print(json.dumps({"before": before, "during": during, "after": after, "history": history, "mine": before["wandb run"]}))
"""


def test_own_runs_and_the_process_of_the_user_are_left_as_they_are(server: MlflowServer, tmp_path: Path):
    from tests.backends import wandb_files

    ours = {
        "PYTHONPATH": str(ROOT),
        "HOME": str(tmp_path / "home"),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "TRACELET_DELIVERY": "thread",
        "TRACELET_PLUGINS__MLFLOW__TRACKING_URI": server.uri,
        "TRACELET_PLUGINS__WANDB__MODE": "offline",
    }
    done = subprocess.run(
        [sys.executable, "-c", USER], check=False, capture_output=True, text=True, env=os.environ | ours, timeout=WAIT_S
    )
    assert 0 == done.returncode, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert found["before"] == found["during"]
    assert found["before"] == found["after"]
    assert list(range(101)) == found["history"]
    stored = wandb_files.read(wandb_files.files_of(tmp_path, found["mine"]))
    assert [{"mine": 3.0}] * 101 == [{key: row[key] for key in row if key[0] != "_"} for row in stored.rows]
    run_dir = tmp_path / "tracelet_runs" / "default" / "r1"
    for backend in ("mlflow", "wandb"):
        assert "finished" == json.loads((run_dir / "delivery" / backend / "cursor.json").read_text())["closed"]
