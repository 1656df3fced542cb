from __future__ import annotations

import time

import numpy as np
import pytest

from tests.ui.demo import experiment
from tracelet.core.records import REWIND_NAME, MetricData, MetricType
from tracelet.journal import writer
from tracelet.journal.load import Run
from tracelet.ui.curves import drawn, smoothed
from tracelet.ui.follow import Followed, FollowedRun

# -- curves ------------------------------------------------------------------------------------------------------------


def test_a_thinned_curve_keeps_ends_and_extremes():
    chance = np.random.default_rng(1)
    y = chance.normal(size=100_000)
    y[[31_415, 77_777]] = 50, -50
    curve = drawn(np.arange(100_000.0), y, None, None, 500, 0)
    assert len(curve.x) <= 504
    assert {0.0, 31_415.0, 77_777.0, 99_999.0} <= set(curve.x.tolist())
    assert (curve.total, bool(np.all(np.diff(curve.x) > 0))) == (100_000, True)


def test_points_out_of_order_are_drawn_in_order():
    curve = drawn(np.array([2.0, 0.0, np.nan, 1.0]), np.array([20.0, 0.0, 99.0, 10.0]), None, None, 100, 0)
    assert (curve.x.tolist(), curve.y.tolist()) == ([0, 1, 2], [0, 10, 20])


def test_nothing_but_nan_and_nothing_at_all():
    curve = drawn(np.arange(3.0), np.full(3, np.nan), None, None, 100, 0.5)
    assert (curve.x.tolist(), curve.not_finite, len(curve.marks)) == ([], 3, 3)
    assert drawn(np.empty(0), np.empty(0), 1.0, 2.0, 100, 0.5).facts()["x"] == []


@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 1000])
def test_smoothing_is_the_moving_average_without_its_bias(count):
    values = np.random.default_rng(2).normal(size=count)
    average, expected = 0.0, []
    for index, value in enumerate(values, 1):
        average = 0.9 * average + 0.1 * value
        expected.append(average / (1 - 0.9**index))
    assert smoothed(values, 0.9) == pytest.approx(np.array(expected))


def test_smoothing_passes_over_nan():
    average = smoothed(np.array([1.0, np.nan, 1.0, np.inf, 1.0]), 0.5)
    assert average == pytest.approx([1, np.nan, 1, np.nan, 1], nan_ok=True)


# -- points in memory --------------------------------------------------------------------------------------------------


def test_points_are_followed_while_the_run_writes(tmp_path):
    run = experiment(tmp_path, "followed", run_id="followed")
    run.start()
    followed = FollowedRun(tmp_path / "default" / "followed")
    versions = set()
    for start in range(0, 3000, 1000):
        for step in range(start, start + 1000):
            run.log_metrics({"a": step, "b": -step}, step)
        followed.refresh()
        versions.add(followed.version)
        assert followed.series("a").values.tolist() == list(range(start + 1000))
        assert followed.series("b").steps.tolist() == list(range(start + 1000))
    assert len(versions) == 3
    run.stop()
    followed.refresh()
    whole = Run(tmp_path / "default" / "followed")
    assert {name: count for name, (_, count) in followed.names().items()} == {
        name: len(whole.series(name)) for name in whole.names()
    }


def test_a_resumed_run_shows_the_line_that_holds_and_the_rest_on_request(tmp_path):
    run = experiment(tmp_path, "resumed", run_id="resumed")
    run.start()
    for step in range(10):
        run.log_metric("loss", step, step)
    run.emit_metric(MetricData(REWIND_NAME, 5.0, MetricType.SYSTEM, 5))
    for step in range(6, 10):
        run.log_metric("loss", 100 + step, step)
    run.stop()
    followed = FollowedRun(tmp_path / "default" / "resumed")
    followed.refresh()
    assert followed.series("loss").values.tolist() == [0, 1, 2, 3, 4, 5, 106, 107, 108, 109]
    assert len(followed.series("loss", superseded=True)) == 14


def test_it_agrees_with_the_run_also_where_a_clock_goes_back_between_two_attempts(tmp_path, monkeypatch):
    place = tmp_path / "default" / "resumed"
    followed = FollowedRun(place)
    for first in (0, 6):
        with experiment(tmp_path, "resumed", run_id="resumed") as run:
            if first:
                run.rewind(first - 1)
            for step in range(first, 10):
                run.log_metric("loss", first + step, step)
                run.emit_metric(MetricData("line", step, MetricType.SCALAR, step, metadata={"kept": "as a line"}))
        followed.refresh()
        monkeypatch.setattr(writer, "_time_ns", lambda: time.time_ns() - 3600 * 10**9)
    whole = Run(place)
    for name in ("loss", "line"):
        assert followed.series(name).steps.tolist() == list(range(10)) == whole.live(name).steps.tolist()
        assert followed.series(name).values.tolist() == whole.live(name).values.tolist()
        everything = followed.series(name, superseded=True)
        assert everything.times_s.tolist() == whole.series(name).times_s.tolist()


def test_memory_is_bounded_by_forgetting_the_run_that_was_asked_for_the_longest_ago(runs):
    followed = Followed(max_points=2000)
    for index in range(6):
        followed.of(runs / "digits" / f"study{index}")
    assert len(followed) == 2
