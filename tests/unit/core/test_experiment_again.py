"""Runs and experiments that go on: resumed, copied, attached to, forked."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from pathlib import Path
from typing import Any

import pytest

import tracelet
from tracelet import Experiment, MetricType
from tracelet.core.records import STATUS_NAME
from tracelet.errors import (
    CorruptJournalError,
    RunExistsError,
    RunNotFoundError,
    UnsupportedVersionError,
)
from tracelet.journal.reader import first_line

FORK = multiprocessing.get_context("fork")


def logs_of(run_dir: Path) -> list[dict[str, Any]]:
    lines = [line for path in run_dir.glob("*.log") if (line := first_line(path))]
    return sorted(lines, key=lambda line: line["time_ns"])


# -- resuming ----------------------------------------------------------------------------------------------------------


def test_a_run_id_goes_on_with_its_run_as_the_next_attempt():
    for attempt in range(3):
        with Experiment(f"name {attempt}", run_id="r") as experiment:
            experiment.log_metric("a", float(attempt), attempt)
    run = tracelet.load_run("r")
    assert [0.0, 1.0, 2.0] == run.series("a").values.tolist()
    assert "name 0" == run.name
    assert [1, 2, 3] == [log["attempt"] for log in logs_of(experiment.run_dir)]


def test_attempts_are_counted_when_they_start():
    first, second = Experiment("e", run_id="r"), Experiment("e", run_id="r")
    first.start().stop()
    second.start().stop()
    assert [1, 2] == [log["attempt"] for log in logs_of(first.run_dir)]


def test_a_resumed_run_has_the_status_of_its_last_attempt():
    Experiment("e", run_id="r").start().stop("failed")
    with Experiment("e", run_id="r"):
        assert "running" == tracelet.load_run("r").status.value
    assert "finished" == tracelet.load_run("r").status.value


@pytest.mark.parametrize("resume", ["must", True])
def test_must_demands_the_run(resume: Any):
    with pytest.raises(RunNotFoundError, match="'r'"):
        Experiment("e", run_id="r", resume=resume).start()
    assert not Path("tracelet_runs").exists()
    Experiment("e", run_id="r").start().stop()
    assert Experiment("e", run_id="r", resume=resume).start().is_running


@pytest.mark.parametrize("resume", ["never", False])
def test_never_demands_that_there_is_none(resume: Any):
    first = Experiment("e", run_id="r", resume=resume).start()
    first.stop()
    with pytest.raises(RunExistsError, match="'r'"):
        Experiment("e", run_id="r", resume=resume).start()
    assert 1 == len(logs_of(first.run_dir))


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"\0" * 100, b'{"format": 1}', b"\xff\xfe"])
def test_a_broken_identity_raises_at_construction_and_is_left_alone(text: bytes):
    experiment = Experiment("e", run_id="r").start()
    experiment.stop()
    (experiment.run_dir / "run.json").write_bytes(text)
    with pytest.raises((CorruptJournalError, UnsupportedVersionError), match="run"):
        Experiment("e", run_id="r")
    assert text == (experiment.run_dir / "run.json").read_bytes()


def test_a_run_of_a_newer_version_raises_at_construction():
    experiment = Experiment("e", run_id="r").start()
    experiment.stop()
    path = experiment.run_dir / "run.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 99'))
    with pytest.raises(UnsupportedVersionError, match="99"):
        Experiment("e", run_id="r")


# -- copies ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clone", [copy.copy, copy.deepcopy, lambda experiment: pickle.loads(pickle.dumps(experiment))])
def test_a_copy_of_a_running_experiment_in_its_process_is_the_same_object(clone: Any):
    experiment = Experiment("e").start()
    assert experiment is clone(experiment)


def test_a_deep_copy_of_an_experiment_that_was_not_started_is_the_same_object():
    experiment = Experiment("e")
    assert experiment is copy.deepcopy([experiment])[0]


def test_a_copy_in_another_process_of_an_experiment_that_was_not_started_has_all_of_it():
    experiment = Experiment("e", config={"lr": 1}, tags=["t"], project="p", run_id="r", dir="d", rank=3)
    again = pickle.loads(pickle.dumps(experiment))
    assert (experiment.name, experiment.run_dir) == (again.name, again.run_dir)
    again.start().stop()
    run = tracelet.load_run(experiment.run_dir)
    assert ({"lr": 1}, {"t": ""}) == (run.params, run.tags)
    assert [3] == [log["rank"] for log in logs_of(experiment.run_dir)]


def test_attaching_in_the_same_process_gives_the_experiment_that_runs():
    experiment = Experiment("e").start()
    assert experiment is Experiment.attach(experiment.run_dir)


def test_an_attached_experiment_adds_to_the_run_and_leaves_its_status_alone():
    experiment = Experiment("e").start()
    experiment.stop("failed")
    attached = Experiment.attach(experiment.run_dir, rank=2)
    attached.log_metric("a", 1.0)
    assert attached is Experiment.attach(experiment.run_dir)
    attached.stop()
    attached.stop("failed")
    run = tracelet.load_run(experiment.run_dir)
    assert ("failed", ["a"]) == (run.status.value, run.names())
    assert [("main", None), ("attached", 2)] == [(log["role"], log["rank"]) for log in logs_of(experiment.run_dir)]


def test_attaching_again_and_again_does_not_pile_up_writers():
    experiment = Experiment("e").start()
    experiment.stop()
    for step in range(5):
        Experiment.attach(experiment.run_dir).log_metric("a", 1.0, step)
    assert 2 == len(logs_of(experiment.run_dir))


@pytest.mark.parametrize("path", ["nowhere", "."])
def test_attaching_to_no_run_raises(path: str):
    with pytest.raises(CorruptJournalError):
        Experiment.attach(path)


# -- forks -------------------------------------------------------------------------------------------------------------


def in_child(work: Any) -> int | None:
    process = FORK.Process(target=work)
    process.start()
    process.join()
    return process.exitcode


def test_stop_in_a_forked_child_ends_the_childs_part_only():
    experiment = Experiment("e").start()

    def work() -> None:
        experiment.log_metric("child", 1.0)
        assert experiment.flush()
        experiment.stop("failed", error="the child's")

    assert 0 == in_child(work)
    experiment.log_metric("parent", 1.0)
    assert "running" == tracelet.load_run(experiment.run_dir).status.value
    experiment.stop()
    run = tracelet.load_run(experiment.run_dir)
    assert (["child", "parent"], "finished", None) == (run.names(), run.status.value, run.error)
    assert ["finished"] == [r.value for r in run.records(MetricType.CUSTOM) if r.name == STATUS_NAME]


def test_an_experiment_can_be_started_in_a_forked_child():
    experiment = Experiment("e")

    def work() -> None:
        with experiment:
            experiment.log_metric("a", 1.0)

    assert 0 == in_child(work)
    run = tracelet.load_run(experiment.run_dir)
    assert (["a"], "finished") == (run.names(), run.status.value)
    assert ["main"] == [log["role"] for log in logs_of(experiment.run_dir)]
