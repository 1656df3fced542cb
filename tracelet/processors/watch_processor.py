"""Notices NaN, infinities and spikes, and has what is near to one reach the backend whole. Called as `_base` says.

It stands in front of `thin` and `aggregate`. Each record waits until the series are more than `before` steps further,
or `hold_s` seconds: then it is known whether anything happens soon after it. What is near to an anomaly is marked as
released, and those behind let it through at full rate. So all reaches the backend in its order and once.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Final, Literal, final

from pydantic import Field

from tracelet.core.alerts import Alert
from tracelet.core.records import MetricData, MetricType
from tracelet.processors._base import (
    RELEASED,
    Patterns,
    Processor,
    ProcessorSettings,
    StateOfSeries,
    matcher,
)

_MAX_HELD: Final = 100_000
_RATE: Final = 0.02  # Of the moving mean and deviation: that of the last hundred points, say.


@final
class WatchSettings(ProcessorSettings):
    """What is noticed, and how much is released.

    Attributes:
        match: The series that are watched; those that tell most are the default.
        release: The series whose points near to an anomaly are released: those that count the same steps.
        before: So many steps before the anomaly,
        after: and so many after it.
        hold_s: The longest time that a record waits for the next steps, by the time of the records, in seconds.
        deviations: A spike is further from the moving mean than so many standard deviations. None: spikes are none.
        direction: Where a spike is: above the mean, below it, or both.
        warm_up: Points of a series before the first that can be a spike.
    """

    match: Patterns = ("*loss*", "*grad*norm*")
    release: Patterns = ("*",)
    before: Annotated[int, Field(ge=0, le=10_000)] = 20
    after: Annotated[int, Field(ge=0, le=10_000)] = 20
    hold_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 30.0
    deviations: Annotated[float | None, Field(gt=0, allow_inf_nan=False)] = 10.0
    direction: Literal["up", "down", "both"] = "up"
    warm_up: Annotated[int, Field(ge=2)] = 50


@dataclass(slots=True)
class _Series:
    """The course of a watched series so far."""

    count: int = 0
    mean: float = 0.0
    variance: float = 0.0
    anomalies: dict[str, int] = field(default_factory=dict)
    """The latest of each kind, by its place in the series: many in a row are one."""


@dataclass(slots=True)
class _Held:
    """A record that waits, and why it is released if it is."""

    record: MetricData
    step: int
    time_s: float
    reason: str | None


@final
class WatchProcessor(Processor[WatchSettings]):
    """See the module docstring. An alert is a line of the log, the run's tag `alert`, and a call of `on_alert`."""

    name = "watch"
    description = "Notices NaN, infinities and spikes, and releases what is near to them"
    settings_class = WatchSettings

    def initialize(self, config: dict[str, Any]) -> None:
        """Take the settings."""
        super().initialize(config)
        self._is_released = matcher(self._settings.release)
        self._series: StateOfSeries[_Series] = StateOfSeries()
        self._held: deque[_Held] = deque()
        self._released_steps = range(0)  # Those near to the latest anomaly.
        self._reason = ""
        self._is_tagged = False

    def change(self, metric: MetricData) -> Sequence[MetricData]:
        """The records whose waiting ends with this one of a watched series."""
        kind = self._anomaly(metric)
        if kind is None:
            return self.pass_by(metric)
        where = "" if metric.iteration is None else f" at step {metric.iteration}"
        what = f"jumps to {metric.value:.6g}" if kind == "spike" else f"is {metric.value}"
        alert = Alert(kind, metric.name, metric.iteration, metric.value, f"{metric.name} {what}{where}")
        self.emit_metric(alert.record())
        self._release(metric, alert.text)
        tag = [] if self._is_tagged else [alert.tag(metric.timestamp)]
        self._is_tagged = True
        return [*tag, *self.pass_by(metric)]

    def pass_by(self, metric: MetricData) -> Sequence[MetricData]:
        """The records whose waiting ends with this one; it may be of any kind."""
        step, time_s = metric.iteration, metric.timestamp
        is_meant = metric.type is MetricType.SCALAR and self._is_released(metric.name)
        if not is_meant or step is None or time_s is None:
            return [metric]
        self._held.append(_Held(metric, step, time_s, self._reason if step in self._released_steps else None))
        made = []
        while self._held and self._is_over(self._held[0], step, time_s):
            made.append(_let_go(self._held.popleft()))
        return made

    def finish(self) -> Sequence[MetricData]:
        """All that waits. What the series were like is no news of the next attempt."""
        made = [_let_go(held) for held in self._held]
        self._held.clear()
        self._series.take_all()
        self._released_steps = range(0)
        return made

    def _is_over(self, held: _Held, step: int, time_s: float) -> bool:
        """Whether what comes is too far away from what waits."""
        is_far = step - held.step > self._settings.before or time_s - held.time_s >= self._settings.hold_s
        return is_far or len(self._held) > _MAX_HELD

    def _release(self, metric: MetricData, reason: str) -> None:
        """Have what waits, and what comes soon, reach the backend if it is near."""
        if metric.iteration is None:
            return
        self._reason = reason
        self._released_steps = range(
            metric.iteration - self._settings.before, metric.iteration + self._settings.after + 1
        )
        for held in self._held:
            if held.reason is None and held.step in self._released_steps:
                held.reason = reason

    def _anomaly(self, metric: MetricData) -> str | None:
        """What is odd about a point of a watched series; None where nothing is, or the last one was not long ago."""
        series = self._series.get(metric)
        if series is None:
            series = _Series()
            self._series.put(metric, series)
        series.count += 1
        kind = _kind(metric.value) or self._spike(series, metric.value)
        if kind is None:
            return None
        previous, series.anomalies[kind] = series.anomalies.get(kind), series.count
        return kind if previous is None or series.count - previous > self._settings.after else None

    def _spike(self, series: _Series, value: float) -> str | None:
        """Whether a finite value is a spike; it moves the mean and the deviation by as much as a spike may."""
        difference = value - series.mean
        limit = math.inf
        if self._settings.deviations is not None and series.count > self._settings.warm_up:
            limit = self._settings.deviations * math.sqrt(series.variance)
        is_spike = abs(difference) > limit > 0
        bounded = min(max(difference, -limit), limit)
        rate = max(1 / series.count, _RATE)
        series.mean += rate * bounded
        series.variance = (1 - rate) * (series.variance + rate * bounded**2)
        is_meant = self._settings.direction in ("both", "up" if difference > 0 else "down")
        return "spike" if is_spike and is_meant else None


def _kind(value: float) -> str | None:
    if math.isfinite(value):
        return None
    return "nan" if math.isnan(value) else "inf"


def _let_go(held: _Held) -> MetricData:
    if held.reason is None:
        return held.record
    return replace(held.record, metadata={**(held.record.metadata or {}), RELEASED: held.reason})
