"""The process of W&B's SDK beside a training: one that is killed, and one that uses W&B itself."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.backends import wandb_files
from tests.backends.wandb_service import KEY, WandbService


@pytest.fixture(autouse=True)
def own_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture
def service():
    with WandbService() as service:
        yield service


TRAINING = """
import os, signal, sys
from tracelet import Experiment
from tracelet.backends.wandb_backend import WandbBackend
backend = WandbBackend()
experiment = Experiment("digits")
experiment.register_plugin(backend, {"base_url": sys.argv[1], "api_key": sys.argv[2]})
experiment.start()
experiment.log_metric("loss", 0.5, 0)
experiment.flush()
print(backend._process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_training_had_delivered_reaches_the_service_and_the_run_stays_open(service):
    command = [sys.executable, "-c", TRAINING, service.url, KEY]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
    assert -signal.SIGKILL == done.returncode, done.stderr
    wait_for_end(int(done.stdout))
    (run,) = service.runs.values()
    assert ([0.5], []) == ([row["loss"] for row in run.rows if "loss" in row], run.exits)


def wait_for_end(pid: int) -> None:
    """Of a process that is nobody's child here; pytest's timeout is the limit."""
    try:
        watched = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    with os.fdopen(watched):
        select.select([watched], [], [])


BESIDE = """
import os, sys, wandb
from tracelet import Experiment
from tracelet.backends.wandb_backend import WandbBackend
before, hook = dict(os.environ), sys.excepthook
with Experiment("first", backend=WandbBackend()) as experiment:
    experiment.log_metric("loss", 0.5, 0)
    experiment.flush()
    assert (before, hook, wandb.run) == (dict(os.environ), sys.excepthook, None)
    os.environ["WANDB_PROJECT"] = "theirs"  # The SDK reads it at its first use in a process, and not again.
    run = wandb.init(mode="offline", settings=wandb.Settings(console="off", x_disable_stats=True))
    assert wandb.run is run
    wandb.log({"mine": 1})
assert wandb.run is run
wandb.log({"mine": 2})
print(run.settings.sync_file)
run.finish()
"""


def test_the_users_own_run_in_the_same_process_is_left_alone(tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", BESIDE], check=False, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    theirs = Path(done.stdout.strip())
    assert [1, 2] == [row["mine"] for row in wandb_files.read([theirs]).rows]
    assert "theirs" == wandb_files.read([theirs]).runs[0].project
    (ours,) = (file for file in wandb_files.files_of(tmp_path) if file != theirs)
    assert [0.5] == [row["loss"] for row in wandb_files.read([ours]).rows if "loss" in row]
