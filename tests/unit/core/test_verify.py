from __future__ import annotations

import math
import threading
from collections.abc import Sequence

import pytest

from tests.unit.core.support import killed_run, stand_in
from tracelet import Experiment, MetricData, TraceletSettings
from tracelet.core.changes import Change, ChangeKind
from tracelet.core.records import STATUS_NAME
from tracelet.core.verify import SeriesCheck, verify_run
from tracelet.errors import RetryableError, UsageError
from tracelet.testing import MemoryBackend


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> MemoryBackend:
    made = MemoryBackend()
    stand_in(made, monkeypatch)
    return made


@pytest.fixture
def run() -> Experiment:
    with Experiment("e") as experiment:
        for step in range(600):
            experiment.log_metrics({"loss": float(step), "acc": math.nan if step == 5 else 0.5}, step)
    return experiment


def verify(run: Experiment, **options: bool) -> dict[str, SeriesCheck]:
    return {check.name: check for check in verify_run(run.run_dir, "memory", TraceletSettings(), **options)}


def forget(backend: MemoryBackend, *steps: int, name: str = "loss") -> None:
    backend.records[:] = [r for r in backend.records if not (r.name == name and r.iteration in steps)]


def test_a_run_that_was_never_sent_is_sent_and_complete(backend: MemoryBackend, run: Experiment):
    assert {"loss": SeriesCheck("loss", 600, 600, 0, 0), "acc": SeriesCheck("acc", 600, 600, 0, 0)} == verify(run)
    assert STATUS_NAME == backend.records[-1].name


def test_gaps_are_found_and_repaired(backend: MemoryBackend, run: Experiment):
    verify(run)
    forget(backend, 0, 17, 599)
    forget(backend, 5, name="acc")
    checks = verify(run)
    assert SeriesCheck("loss", 600, 597, 3, 0, repaired=3) == checks["loss"]
    assert SeriesCheck("acc", 600, 599, 1, 0, repaired=1) == checks["acc"]
    assert checks["loss"].is_complete
    assert set(range(600)) == {record.iteration for record in backend.records if record.name == "loss"}
    assert STATUS_NAME == backend.records[-1].name


def test_without_repair_nothing_is_sent(backend: MemoryBackend, run: Experiment):
    verify(run)
    forget(backend, 17)
    loss = verify(run, repair=False)["loss"]
    assert (SeriesCheck("loss", 600, 599, 1, 0), False) == (loss, loss.is_complete)
    assert 17 not in {record.iteration for record in backend.records if record.name == "loss"}


def test_points_that_nobody_logged_and_other_values_are_told(backend: MemoryBackend, run: Experiment):
    verify(run)
    wrong = MetricData("loss", -1.0, next(r.type for r in backend.records if r.name == "loss"), 3)
    forget(backend, 3)
    backend.records.append(wrong)
    loss = verify(run, repair=False)["loss"]
    assert (1, 1) == (loss.missing, loss.unexpected)


def test_the_same_point_twice_is_two_points(backend: MemoryBackend):
    with Experiment("e") as experiment:
        for _ in range(3):
            experiment.log_metric("loss", 1.0, 0)
    verify(experiment)
    del backend.records[0]
    assert SeriesCheck("loss", 3, 2, 1, 0, repaired=1) == verify(experiment)["loss"]


def test_a_repair_that_does_not_arrive_is_no_repair(backend: MemoryBackend, run: Experiment):
    verify(run)
    forget(backend, 17)
    keeps = backend.handle_batch
    backend.handle_batch = lambda records: keeps([r for r in records if r.iteration != 17])
    loss = verify(run)["loss"]
    assert (1, 0, False) == (loss.missing, loss.repaired, loss.is_complete)


class NoNan(MemoryBackend):
    """Drops NaN, and has 9.0 for an infinity; it says so."""

    def plan(self, metric: MetricData) -> Sequence[Change]:
        if not isinstance(metric.value, float) or math.isfinite(metric.value):
            return ()
        return [Change(ChangeKind.DROPPED if math.isnan(metric.value) else ChangeKind.CHANGED, "its limits")]

    def handle_batch(self, metrics: Sequence[MetricData]) -> None:
        super().handle_batch([m for m in metrics if m.value == m.value])
        for index, record in enumerate(self.records):
            if record.value == math.inf:
                self.records[index] = MetricData(record.name, 9.0, record.type, record.iteration, record.timestamp)


def test_what_the_plan_says_is_no_gap(monkeypatch: pytest.MonkeyPatch):
    stand_in(NoNan(), monkeypatch)
    with Experiment("e") as experiment:
        for step, value in enumerate([1.0, math.nan, math.inf, math.inf]):
            experiment.log_metric("loss", value, step)
    assert SeriesCheck("loss", 3, 3, 0, 0) == verify(experiment)["loss"]


def test_a_killed_run_can_be_verified(backend: MemoryBackend):
    (check,) = verify_run(killed_run(), "memory", TraceletSettings())
    assert check.is_complete
    assert "killed" == backend.records[-1].value


def test_a_running_run_is_refused(backend: MemoryBackend):
    with Experiment("e") as experiment, pytest.raises(UsageError, match="still running"):
        verify(experiment)


def test_a_tracker_that_cannot_be_asked_says_so(run: Experiment, monkeypatch: pytest.MonkeyPatch):
    backend = MemoryBackend()
    backend.read_back = lambda name: None
    stand_in(backend, monkeypatch)
    with pytest.raises(UsageError, match="'memory' can't be asked what it holds"):
        verify(run)


def test_a_tracker_that_is_away_says_so_and_no_thread_is_left(backend: MemoryBackend, run: Experiment):
    before = set(threading.enumerate())
    backend.fail(ConnectionError("no route"), at="initialize")
    with pytest.raises(RetryableError, match="'memory' can't be asked: ConnectionError: no route"):
        verify(run, repair=False)
    assert before == set(threading.enumerate())
