from __future__ import annotations

import math
import random

import pytest

from tests.processors.support import point, series, started, steps, through
from tracelet.core.records import MetricData, MetricType
from tracelet.errors import SettingsError
from tracelet.processors._base import RELEASED
from tracelet.processors.thin_processor import ThinProcessor


def test_one_point_in_so_many_steps_and_the_last_one_stay():
    thin = started(ThinProcessor, every=10, extremes=False)
    assert [0, 10, 20, 24] == steps(through(thin, series([1.0] * 25)))


def test_a_series_that_is_logged_less_often_stays_whole():
    thin = started(ThinProcessor, every=10)
    records = series(map(float, range(20)), "val/loss", step=50)
    assert records == through(thin, records)


def test_the_first_of_a_window_comes_at_once():
    thin = started(ThinProcessor, every=10)
    assert [0, 10] == steps(through(thin, series([1.0] * 11), finish=False))


def test_the_lowest_and_the_highest_value_stay_and_the_order_too():
    rng = random.Random(7)
    records = series([rng.gauss(0, 1) for _ in range(1000)])
    made = through(started(ThinProcessor, every=50), records)
    assert {min(r.value for r in records), max(r.value for r in records)} <= {r.value for r in made}
    assert {records[0], records[-1]} <= set(made)
    assert sorted(steps(made)) == steps(made)
    assert len(made) == len(set(steps(made)))
    assert 21 <= len(made) <= 50


def test_extremes_of_one_window_come_in_their_order():
    up, down = [0.0, 1.0, -1.0, 0.5], [0.0, -1.0, 1.0, 0.5]
    assert [[0, 1, 2, 3]] * 2 == [steps(through(started(ThinProcessor, every=10), series(v))) for v in (up, down)]


def test_only_the_best_extreme_of_a_window_stays():
    assert [0, 3, 5] == steps(through(started(ThinProcessor, every=10), series([5.0, 4.0, 3.0, 2.0, 3.0, 3.5])))


def test_the_first_nan_of_a_window_comes_at_once():
    nan, inf = math.nan, math.inf
    thin = started(ThinProcessor, every=5)
    assert [0, 2, 5, 6] == steps(through(thin, series([1.0, 1.0, nan, nan, 1.0, 1.0, inf, 1.0]), finish=False))
    thin = started(ThinProcessor, every=5)
    assert [0, 2, 5] == steps(through(thin, series([nan, nan, 1.0, nan, 1.0, 1.0]), finish=False))
    assert [0, 5] == steps(through(started(ThinProcessor, every=5, extremes=False), series([1.0, nan, 1, 1, 1, 1.0])))


def test_an_infinity_is_no_extreme_that_others_are_measured_by():
    made = through(started(ThinProcessor, every=10), series([1.0, math.inf, 1.0, 9.0, 1.0]))
    assert [0, 1, 3, 4] == steps(made)


def test_at_most_so_many_a_second_by_the_time_of_the_records():
    records = [point(1.0, step, time_s=100 + step / 10) for step in range(40)]
    made = through(started(ThinProcessor, per_second=2), records)
    assert [0, 5, 10, 15, 20, 25, 30, 35, 39] == steps(made)


def test_series_and_sources_are_thinned_each_for_itself():
    records = [point(1.0, step, name, source=rank) for step in range(3) for name in "ab" for rank in ("0", "1")]
    assert 4 == len(through(started(ThinProcessor, every=10), records, finish=False))


def test_what_is_no_scalar_or_does_not_match_stays():
    thin = started(ThinProcessor, every=10, match=["train/*", "lr"])
    others = [
        MetricData("train/note", "x", MetricType.TEXT, 1, 1.0), *series([1.0] * 3, "val/loss"),
        *(MetricData("tracelet/plugin_errors", 1.0, MetricType.SYSTEM, step, 1.0) for step in range(3)),
    ]  # fmt: skip
    assert others == through(thin, others)
    assert [0] == steps(through(thin, series([1.0] * 3, "train/loss"), finish=False))
    assert [0] == steps(through(thin, series([1.0] * 3, "lr"), finish=False))


def test_a_point_without_a_step_stays():
    assert 3 == len(through(started(ThinProcessor, every=10), [point(1.0, None)] * 3))


def test_what_is_released_comes_at_once_after_what_was_held_back_before():
    records = series([1.0, 5.0, 1.0, 1.0])
    records[2] = point(1.0, 2, metadata={RELEASED: "near"})
    assert [0, 1, 2] == steps(through(started(ThinProcessor, every=10), records, finish=False))


def test_after_the_end_of_an_attempt_it_begins_anew():
    thin = started(ThinProcessor, every=100)
    assert [0, 4] == steps(through(thin, series([1.0] * 5)))
    assert [5, 9] == steps(through(thin, series([1.0] * 5, start=5)))


@pytest.mark.parametrize(
    ("config", "why"),
    [({}, "either every"), ({"every": 2, "per_second": 1}, "either every"), ({"every": 0}, "greater"),
     ({"evry": 2}, "evry"), ({"per_second": math.inf}, "finite")],
)  # fmt: skip
def test_wrong_settings_are_refused(config: dict[str, float], why: str):
    with pytest.raises(SettingsError, match=why):
        ThinProcessor.validate_config(config)
