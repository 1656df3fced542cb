"""A training that is killed, fails, gets a Ctrl-C and is resumed each time is one run: here, and in MLflow."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

import tracelet
from tests.adapters.resume.interrupted import EVERY, FRAMEWORKS, STEPS
from tests.backends.mlflow_support import QUIET
from tracelet import RunStatus, TraceletSettings
from tracelet.core.records import REWIND_NAME
from tracelet.core.sync import sync_run

PROGRAM = Path(__file__).with_name("interrupted.py")
ROOT = PROGRAM.parents[3]
PLANS = ["interrupted,kill,7", "interrupted,exception,11", "interrupted,interrupt,15", "interrupted,nothing,0"]
MEASURED = ("_s", "runtime", "per_second", "mean_loss")  # Of an attempt, or of the machine.


@pytest.fixture(scope="module", params=FRAMEWORKS)
def home(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where each framework has trained, in `reference` and in `interrupted`."""
    home = tmp_path_factory.mktemp(request.param)
    for name in ("reference", "interrupted"):
        (home / name).mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TRACELET_")}
    own = {"PYTHONPATH": str(ROOT), "TRACELET_COLLECTORS": "", "TRACELET_DELIVERY": "thread", "KERAS_BACKEND": "jax"}
    command = [sys.executable, "-W", "ignore", PROGRAM, request.param, "reference,nothing,0", *PLANS]
    done = subprocess.run(command, check=False, cwd=home, env=kept | own, capture_output=True, text=True)
    assert ["nothing 0", "kill -9", "exception 1", "interrupt -2", "nothing 0"] == done.stdout.splitlines(), done.stderr
    return home


def only_run(directory: Path) -> tracelet.Run:
    (file,) = directory.glob("tracelet_runs/*/*/run.json")
    return tracelet.Run(file.parent)


@pytest.fixture(scope="module")
def reference(home: Path) -> tracelet.Run:
    return only_run(home / "reference")


@pytest.fixture(scope="module")
def run(home: Path) -> tracelet.Run:
    return only_run(home / "interrupted")


def test_each_resumed_training_is_an_attempt_of_the_same_run(run: tracelet.Run):
    told = [(attempt.status, attempt.rewound_to) for attempt in run.attempts]
    failed, finished = RunStatus.FAILED, RunStatus.FINISHED
    assert [(RunStatus.KILLED, None), (failed, EVERY), (failed, 2 * EVERY), (finished, 3 * EVERY)] == told


def test_the_live_line_has_every_step_once_with_the_values_of_an_unbroken_training(
    run: tracelet.Run, reference: tracelet.Run
):
    names = [name for name in reference.names(tracelet.MetricType.SCALAR) if not name.endswith(MEASURED)]
    assert "train/loss" in names
    for name in names:
        expected, live = reference.series(name), run.live(name)
        assert expected.steps.tolist() == live.steps.tolist(), name
        assert expected.values == pytest.approx(live.values), name
    assert list(range(1, STEPS + 1)) == run.live("train/loss").steps.tolist()


def test_what_was_superseded_is_kept_once_an_attempt(home: Path, run: tracelet.Run):
    parts = {number: series.steps.tolist() for number, series in run.by_attempt("train/loss").items()}
    if home.name.startswith("jax"):  # What the device still computes when the process is killed is not recorded.
        first = parts.pop(1)
        assert EVERY <= len(first)
        parts[1] = [*first, *range(len(first) + 1, 7)]
    assert {1: [1, 2, 3, 4, 5, 6], 2: [5, 6, 7, 8, 9, 10], 3: [9, 10, 11, 12, 13, 14], 4: [13, 14, 15, 16]} == parts


@QUIET
def test_mlflow_has_all_of_it_and_by_the_same_rule_the_same_live_line(
    home: Path, run: tracelet.Run, reference: tracelet.Run
):
    uri = f"sqlite:///{home / 'interrupted' / 'mlflow.db'}"
    settings = TraceletSettings(plugins={"mlflow": {"tracking_uri": uri}})
    assert 0 == sync_run(run.path, ["mlflow"], settings)["mlflow"].waiting  # Of torch, each attempt did it itself.
    client = MlflowClient(uri)
    (remote,) = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert ("FINISHED", "12") == (remote.info.status, remote.data.tags["tracelet.rewound_to"])
    history = client.get_metric_history(remote.info.run_id, "train/loss")
    assert len(run.series("train/loss")) == len(history)
    rewinds = client.get_metric_history(remote.info.run_id, REWIND_NAME)
    superseded = [
        any(point.step > mark.value and point.timestamp < mark.timestamp for mark in rewinds) for point in history
    ]
    live = sorted((p.step, p.value) for p, is_old in zip(history, superseded, strict=True) if not is_old)
    expected = reference.series("train/loss")
    assert expected.steps.tolist() == [step for step, _ in live]
    assert expected.values == pytest.approx([value for _, value in live])
