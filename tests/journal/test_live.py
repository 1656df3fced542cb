"""What a run superseded by going back to an earlier step is told from what still holds."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import numpy as np
import pytest

import tracelet
from tracelet import MetricData, MetricType, RunStatus
from tracelet.core.records import REWIND_NAME, SEGMENT_NAME
from tracelet.journal import writer
from tracelet.journal.curves import curve_of


def record(*parts: tuple[int, int], marks: str = REWIND_NAME) -> tracelet.Run:
    """A run of several parts, each with its first and last step and the value of its first one.

    Before each but the first comes a mark: of going back to the step before it, or of a training that begins.
    """
    for first, last in parts:
        with tracelet.Experiment("test", run_id="r") as experiment:
            if tracelet.load_run("r").names():
                experiment.emit_metric(MetricData(marks, float(first - 1), MetricType.SYSTEM, first - 1))
            for step in range(first, last + 1):
                experiment.log_metric("loss", float(first), step)
    return tracelet.load_run("r")


def test_a_run_that_never_went_back_is_whole():
    run = record((1, 5))
    assert [1, 2, 3, 4, 5] == run.live("loss").steps.tolist()


def test_each_step_has_the_value_of_the_last_attempt():
    run = record((1, 7), (5, 9), (4, 6))
    assert 7 + 5 + 3 == len(run.series("loss"))
    live = run.live("loss")
    assert [1, 2, 3, 4, 5, 6] == live.steps.tolist()
    assert [1.0, 1.0, 1.0, 4.0, 4.0, 4.0] == live.values.tolist()
    assert len(live.steps) == len(live.times_s)
    assert live.values.tolist() == curve_of(run, "loss", None).y.tolist()


def test_the_last_values_are_those_that_hold(monkeypatch: pytest.MonkeyPatch):
    with tracelet.Experiment("test", run_id="r", collectors=()) as experiment:
        for step in range(1, 8):
            experiment.log_metrics({"loss": 1.0, "once": float(step)}, step)
    monkeypatch.setattr(writer, "_time_ns", lambda: time.time_ns() - 3600 * 10**9)
    with tracelet.Experiment("test", run_id="r", collectors=()) as experiment:
        experiment.rewind(3)
        experiment.log_metric("loss", 2.0, 4)
        running = tracelet.load_run("r")
        assert {"loss": (4, 2.0), "once": (3, 3.0)} == running.latest()
        assert (4, 4) == (running.last_step, running.ranks[0].last_step)
    assert running.latest() == tracelet.load_run("r").latest()  # By its summary.


def test_an_earlier_training_of_the_run_is_not_superseded():
    record((1, 7))
    record((1, 5), marks=SEGMENT_NAME)
    run = record((4, 6))
    assert [1, 2, 3, 4, 5, 6, 7, 1, 2, 3, 4, 5, 6] == run.live("loss").steps.tolist()
    assert [*[1.0] * 10, *[4.0] * 3] == run.live("loss").values.tolist()


def test_a_clock_that_goes_back_between_two_attempts_changes_nothing(monkeypatch: pytest.MonkeyPatch):
    record((1, 7))
    monkeypatch.setattr(writer, "_time_ns", lambda: time.time_ns() - 3600 * 10**9)
    run = record((5, 9))
    assert run.attempts[1].began_s < run.attempts[0].began_s
    assert [1, 2, 3, 4, 5, 6, 7, 8, 9] == run.live("loss").steps.tolist()
    assert [*[1.0] * 4, *[5.0] * 5] == run.live("loss").values.tolist()


@pytest.mark.parametrize("set_back_s", [0, 3600])
def test_texts_and_media_hold_as_the_points_of_their_steps_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, set_back_s: int
):
    (tmp_path / "weights").write_text("1")
    for first, last in ((1, 5), (4, 4)):
        with tracelet.Experiment("test", run_id="r", collectors=()) as experiment:
            if first > 1:
                experiment.rewind(first - 1)
            for step in range(first, last + 1):
                experiment.log_text("note", f"attempt of {first}", step)
                experiment.log_image("sample", np.zeros((1, 1), np.uint8), step)
            experiment.log_histogram("weights", [1.0, 2.0], last)
            experiment.log_text("console/stdout", "hello")
            experiment.log_artifact(tmp_path / "weights", iteration=last)
        monkeypatch.setattr(writer, "_time_ns", lambda: time.time_ns() - set_back_s * 10**9)
    run = tracelet.load_run("r")
    assert [*range(1, 6), 4] == [step for step, _ in run.texts("note")]
    live = [*((step, "attempt of 1") for step in range(1, 4)), (4, "attempt of 4")]
    assert live == run.texts("note", live=True)
    assert [1, 2, 3, 4] == [record.iteration for record in run.records(MetricType.IMAGE, live=True)]
    assert [4] == [record.iteration for record in run.records(MetricType.HISTOGRAM, live=True)]
    assert 2 == len(run.texts("console/stdout", live=True))  # What has no step is not superseded, ...
    assert [5, 4] == [record.iteration for record in run.records(MetricType.ARTIFACT, live=True)]  # ... nor a version.


def test_each_attempt_is_told_apart_with_how_it_ended_and_where_it_began():
    first = tracelet.Experiment("test", run_id="r").start()
    first.log_metrics({"loss": 1.0, "once": 1.0}, 1)
    first.stop("failed")
    run = record((3, 6), (5, 5))
    told = [(attempt.number, attempt.status, attempt.rewound_to) for attempt in run.attempts]
    assert [(1, RunStatus.FAILED, None), (2, RunStatus.FINISHED, 2), (3, RunStatus.FINISHED, 4)] == told
    assert all(earlier.last_s <= later.began_s for earlier, later in itertools.pairwise(run.attempts))
    assert {1: [1], 2: [3, 4, 5, 6], 3: [5]} == {n: s.steps.tolist() for n, s in run.by_attempt("loss").items()}
    assert [1] == list(run.by_attempt("once"))


def test_a_table_has_the_points_that_hold_or_all():
    run = record((1, 3), (2, 3))
    assert [1, 2, 3, 2, 3] == run.frame("loss")["step"].tolist()
    assert [1, 2, 3] == run.frame("loss", live=True)["step"].tolist()


def test_a_series_that_is_not_there_raises():
    with pytest.raises(KeyError, match="no series 'lose'"):
        record((1, 2)).live("lose")
