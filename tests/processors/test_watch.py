from __future__ import annotations

import math
import random
from collections.abc import Iterable
from typing import Any

import pytest

from tests.processors.support import point, series, started, steps, through
from tracelet.core.alerts import ALERT_NAME, ALERT_TAG, Alert
from tracelet.core.records import TAG_PREFIX, MetricData, MetricType
from tracelet.errors import SettingsError
from tracelet.processors._base import RELEASED
from tracelet.processors.thin_processor import ThinProcessor
from tracelet.processors.watch_processor import WatchProcessor


class Heard:
    """Takes what a processor records about itself."""

    def __init__(self) -> None:
        self.alerts: list[Alert] = []

    def emit_metric(self, metric: MetricData) -> None:
        assert ALERT_NAME == metric.name
        self.alerts.append(Alert.of(metric.value))


def watching(**config: Any) -> tuple[WatchProcessor, Heard]:
    watch, heard = started(WatchProcessor, **config), Heard()
    watch.attach(heard)
    return watch, heard


def released(records: Iterable[MetricData]) -> list[int | None]:
    return [record.iteration for record in records if record.metadata and RELEASED in record.metadata]


def scalars(records: Iterable[MetricData]) -> list[MetricData]:
    return [record for record in records if record.type is MetricType.SCALAR]


def test_a_nan_is_told_once_and_what_is_near_is_released():
    watch, heard = watching(before=3, after=2)
    values = [1.0] * 10 + [math.nan] * 4 + [1.0] * 10
    made = through(watch, series(values, "train/loss"))
    assert [7, 8, 9, 10, 11, 12] == released(made)
    assert list(range(24)) == steps(scalars(made))
    (alert,) = heard.alerts
    assert ("nan", "train/loss", 10, "train/loss is nan at step 10") == (
        alert.kind, alert.series, alert.step, alert.text
    )  # fmt: skip
    assert math.isnan(alert.value)


def test_what_is_near_is_released_of_the_other_series_too():
    watch, _ = watching(before=2, after=1, match="loss", release=["loss", "lr"])
    records = [
        point(math.nan if step == 5 and name == "loss" else 1.0, step, name)
        for step in range(10)
        for name in ("lr", "loss", "acc")
    ]
    made = through(watch, records)
    assert {(step, name) for step in (3, 4, 5, 6) for name in ("lr", "loss")} == {
        (record.iteration, record.name) for record in made if record.metadata
    }
    for name in ("lr", "loss", "acc"):
        assert list(range(10)) == [record.iteration for record in scalars(made) if record.name == name]


def test_the_first_alert_is_the_tag_of_the_run():
    watch, heard = watching(before=0, after=0)
    made = through(watch, series([math.nan, 1.0, math.inf, 1.0, -math.inf]))
    assert ["nan", "inf", "inf"] == [alert.kind for alert in heard.alerts]
    assert [(TAG_PREFIX + ALERT_TAG, "loss is nan at step 0")] == [
        (record.name, record.value) for record in made if record.type is MetricType.CUSTOM
    ]


def test_many_in_a_row_are_one_and_later_ones_are_another():
    watch, heard = watching(before=1, after=5)
    through(watch, series([1.0, *[math.nan] * 100, *[1.0] * 10, math.nan]))
    assert [1, 111] == [alert.step for alert in heard.alerts]


def test_a_spike_is_what_is_far_above_the_moving_mean():
    rng = random.Random(3)
    values = [2.0 + rng.gauss(0, 0.1) for _ in range(400)]
    values[300] = 30.0
    watch, heard = watching()
    through(watch, series(values))
    assert [("spike", 300, "loss jumps to 30 at step 300")] == [(a.kind, a.step, a.text) for a in heard.alerts]


@pytest.mark.parametrize(
    ("change", "why"),
    [({"deviations": None}, "switched off"), ({"direction": "down"}, "the other way"), ({"warm_up": 500}, "too early"),
     ({"match": "grad"}, "another series")],
)  # fmt: skip
def test_there_is_no_alert(change: dict[str, Any], why: str):
    rng = random.Random(3)
    values = [2.0 + rng.gauss(0, 0.1) for _ in range(400)]
    values[300] = 30.0
    watch, heard = watching(**change)
    assert 400 == len(through(watch, series(values)))
    assert [] == heard.alerts, why


def test_a_usual_training_raises_no_alert():
    rng = random.Random(5)
    watch, heard = watching()
    through(watch, series([5 * math.exp(-step / 300) + 0.5 + rng.gauss(0, 0.1) for step in range(3000)]))
    through(watch, series([float(step // 100) for step in range(1000)], "constant_loss"))
    assert [] == heard.alerts


def test_a_new_level_is_one_spike_and_then_usual():
    rng = random.Random(5)
    watch, heard = watching()
    through(watch, series([(1.0 if step < 500 else 9.0) + rng.gauss(0, 0.1) for step in range(2000)]))
    assert 500 == heard.alerts[0].step
    assert all(alert.step < 700 for alert in heard.alerts if alert.step is not None)


def test_a_record_waits_for_the_next_steps_and_no_longer_than_it_may():
    watch, _ = watching(before=3, hold_s=100.0)
    assert [[], [], [], [], [0], [1]] == [steps(list(watch.process(record))) for record in series([1.0] * 6)]
    watch, _ = watching(before=1000, hold_s=2.0)
    assert [[], [], [0], [1], [2]] == [steps(list(watch.process(record))) for record in series([1.0] * 5)]


def test_a_series_of_rare_points_goes_with_the_others():
    watch, _ = watching(before=3, hold_s=1e6)
    rare = point(1.0, 1, "val/loss")
    made = [rec for record in [*series([1.0] * 2), rare, *series([1.0] * 4, start=2)] for rec in watch.process(record)]
    assert rare in made


def test_what_has_no_step_or_is_of_the_system_does_not_wait():
    watch, _ = watching()
    records = [point(1.0, None), MetricData("system/cpu", 1.0, MetricType.SYSTEM, 3, 1.0)]
    assert [[record] for record in records] == [watch.process(record) for record in records]


def test_together_with_thin_the_neighbourhood_is_whole_and_in_order():
    watch, _ = watching(before=20, after=10)
    thin = started(ThinProcessor, every=100, extremes=False)
    values = [1.0] * 1000
    values[555] = math.nan
    made = scalars(through(thin, through(watch, series(values))))
    near = list(range(535, 566))
    assert sorted({*range(0, 1000, 100), *near, 999}) == steps(made)


def test_wrong_settings_are_refused():
    with pytest.raises(SettingsError, match="direction"):
        WatchProcessor.validate_config({"direction": "sideways"})
