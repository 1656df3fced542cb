"""A run goes on from a checkpoint: where it is found, and what the record says of the steps that are made again."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest

import tracelet
from tracelet import Experiment
from tracelet.errors import UsageError


def record(first: int, last: int, value: float, *, saved_at: int | None = None, **options: Any) -> dict[str, Any]:
    """An attempt at these steps; returns what a checkpoint of step `saved_at` holds."""
    with Experiment("test", collectors=(), **options) as experiment:
        for step in range(first, last + 1):
            experiment.log_metric("loss", value, step)
        return json.loads(json.dumps(experiment.resume_state(saved_at)))


def live(run_id: str) -> list[tuple[int, float]]:
    series = tracelet.load_run(run_id).live("loss")
    return list(zip(series.steps.tolist(), series.values.tolist(), strict=True))


def test_a_checkpoint_brings_the_run_back_and_supersedes_what_came_after_it():
    state = record(1, 5, 1.0, saved_at=3, project="p")
    assert (1, 3) == (state["attempt"], state["step"])
    state = record(4, 7, 2.0, saved_at=6, resume=state)
    record(7, 8, 3.0, resume=state)
    run = tracelet.load_run(state["run_id"])
    assert ("p", 11) == (run.project, len(run.series("loss")))
    assert [(1, 1.0), (2, 1.0), (3, 1.0), (4, 2.0), (5, 2.0), (6, 2.0), (7, 3.0), (8, 3.0)] == live(run.id)


def test_a_checkpoint_that_names_no_step_supersedes_nothing():
    state = record(1, 2, 1.0)
    record(2, 3, 2.0, resume=state)
    assert [(1, 1.0), (2, 1.0), (2, 2.0), (3, 2.0)] == live(state["run_id"])


def test_a_loop_that_goes_back_in_the_same_process_says_so():
    with Experiment("test", run_id="r", collectors=()) as experiment:
        for first, value in ((0, 1.0), (2, 2.0)):
            experiment.rewind(first - 1)
            for step in range(first, 4):
                experiment.log_metric("loss", value, step)
    assert [(0, 1.0), (1, 1.0), (2, 2.0), (3, 2.0)] == live("r")


def test_a_run_goes_on_where_it_was_also_if_runs_are_kept_elsewhere_now():
    state = record(1, 3, 1.0, saved_at=2)
    record(3, 3, 2.0, resume=state, dir="elsewhere")
    assert [(1, 1.0), (2, 1.0), (3, 2.0)] == live(state["run_id"])


@pytest.mark.parametrize("moved", [True, False])
def test_a_run_that_has_moved_is_found_where_runs_are_kept_now(moved: bool, caplog: pytest.LogCaptureFixture):
    state = record(1, 3, 1.0, saved_at=2)
    if moved:
        shutil.move("tracelet_runs", "elsewhere")
    else:
        shutil.rmtree("tracelet_runs")
    record(3, 3, 2.0, resume=state, dir="elsewhere")
    run = tracelet.load_run(state["run_id"], dir="elsewhere")
    assert ([1, 2] if moved else []) + [3] == run.live("loss").steps.tolist()
    assert moved is not any("its record begins anew" in message for message in caplog.messages)


def test_a_run_id_of_the_users_wins_over_that_of_the_checkpoint():
    state = record(1, 3, 1.0, saved_at=2)
    assert "mine" == Experiment("test", run_id="mine", resume=state).run_id
    assert "theirs" == Experiment("test", project="theirs", resume=state).project


@pytest.mark.parametrize("wrong", [{}, {"run_id": "r"}, {"run_id": 1, "project": "p", "dir": "d"}])
def test_what_no_checkpoint_holds_is_refused(wrong: Any):
    with pytest.raises(UsageError, match="resume_state"):
        Experiment("test", resume=wrong)
