from __future__ import annotations

import math

import pytest

from tests.processors.support import point, series, started, steps, through, values
from tracelet.errors import SettingsError
from tracelet.processors._base import RELEASED
from tracelet.processors.aggregate_processor import AggregateProcessor


def test_a_window_becomes_its_mean_at_its_last_step():
    made = through(started(AggregateProcessor, every=4), series(map(float, range(10))))
    assert [(3, 1.5), (7, 5.5), (9, 8.5)] == list(zip(steps(made), values(made), strict=True))
    assert {"loss"} == {record.name for record in made}
    assert [3.0, 7.0, 9.0] == [record.timestamp for record in made]


def test_several_functions_have_series_of_their_own():
    functions = ["mean", "min", "max", "first", "last", "sum", "count"]
    made = through(started(AggregateProcessor, every=10, functions=functions), series([3.0, 1.0, 2.0]))
    expected = {"mean": 2.0, "min": 1.0, "max": 3.0, "first": 3.0, "last": 2.0, "sum": 6.0, "count": 3.0}
    assert {f"loss/{name}": value for name, value in expected.items()} == {r.name: r.value for r in made}


def test_one_function_may_be_given_as_a_text():
    assert [9.0] == values(through(started(AggregateProcessor, every=10, functions="max"), series([1.0, 9.0, 2.0])))


def test_windows_of_time_go_by_the_time_of_the_records():
    records = [point(float(step), step, time_s=step * 0.4) for step in range(10)]
    assert [2, 4, 7, 9] == steps(through(started(AggregateProcessor, seconds=1.0), records))


def test_a_nan_makes_the_mean_one_and_is_neither_lowest_nor_highest():
    config = {"every": 10, "functions": ["mean", "min", "max"]}
    mean, low, high = values(through(started(AggregateProcessor, **config), series([math.nan, 1.0, 2.0, math.nan])))
    assert (True, 1.0, 2.0) == (math.isnan(mean), low, high)
    assert all(map(math.isnan, values(through(started(AggregateProcessor, **config), series([math.nan])))))


def test_a_step_that_goes_back_ends_the_window():
    made = through(started(AggregateProcessor, every=10), [*series([1.0] * 15), *series([5.0] * 5)])
    assert [(9, 1.0), (14, 1.0), (4, 5.0)] == list(zip(steps(made), values(made), strict=True))


def test_what_is_released_goes_beside_its_window():
    records = series([1.0, 9.0, 1.0])
    records[1] = point(9.0, 1, metadata={RELEASED: "near"})
    made = through(started(AggregateProcessor, every=10), records)
    assert [9.0, 11 / 3] == values(made)


def test_windows_that_are_not_given_are_refused():
    with pytest.raises(SettingsError, match="either every"):
        AggregateProcessor.validate_config({"functions": ["mean"]})
    with pytest.raises(SettingsError, match="functions"):
        AggregateProcessor.validate_config({"every": 2, "functions": ["median"]})
