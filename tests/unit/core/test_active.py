from __future__ import annotations

import sys

import pytest

import tracelet
from tracelet import Experiment, get_active_experiment, start_logging, stop_logging
from tracelet.errors import UsageError


def test_there_is_no_active_experiment_before_one_is_started():
    experiment = Experiment("e")
    assert get_active_experiment() is None
    assert experiment.start() is get_active_experiment()


def test_start_logging_starts_and_stop_logging_stops():
    experiment = start_logging("e", config={"lr": 1}, tags=["t"], project="p", run_id="r")
    assert experiment is get_active_experiment()
    stop_logging("failed")
    run = tracelet.load_run(experiment.run_dir)
    assert ("failed", "e", "p", "r", {"lr": 1}, {"t": ""}) == (
        run.status.value, run.name, run.project, run.id, run.params, run.tags,
    )  # fmt: skip
    assert get_active_experiment() is None


def test_start_logging_resumes():
    start_logging("e", run_id="r")
    stop_logging()
    assert "r" == start_logging("e", run_id="r", resume="must").run_id


@pytest.mark.parametrize(
    ("arguments", "name"),
    [(["dir/train.py"], "train"), (["-c"], "experiment"), ([""], "experiment"), ([], "experiment")],
)
def test_without_a_name_the_scripts_own_is_taken(arguments: list[str], name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", arguments)
    assert name == start_logging().name


def test_stop_logging_without_an_experiment_does_nothing():
    stop_logging()


def test_stop_logging_with_a_wrong_status_leaves_the_run_alone():
    experiment = start_logging("e")
    with pytest.raises(UsageError, match="done"):
        stop_logging("done")
    assert experiment.is_running


def test_the_one_before_is_active_again_when_the_last_one_has_stopped():
    first, second, third = (start_logging(name) for name in "abc")
    second.stop()
    assert third is get_active_experiment()
    stop_logging()
    assert first is get_active_experiment()


def test_an_experiment_that_failed_to_start_is_not_active():
    with pytest.raises(UsageError):
        start_logging("e", run_id="r", resume="must")
    assert get_active_experiment() is None


def test_an_attached_experiment_is_active():
    experiment = start_logging("e")
    stop_logging()
    assert Experiment.attach(experiment.run_dir) is get_active_experiment()
