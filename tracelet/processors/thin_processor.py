"""Fewer points of a series. Called as `processors._base` says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Self, final

from pydantic import Field, model_validator

from tracelet.core.records import MetricData
from tracelet.processors._base import RELEASED, Processor, ProcessorSettings, StateOfSeries, bucket


@final
class ThinSettings(ProcessorSettings):
    """How many points stay. Either `every` or `per_second` is given.

    Attributes:
        every: One point in so many steps: with 10, the first one of the steps 0 to 9, of 10 to 19 and so on.
        per_second: At most so many points a second, by the time of the records.
        extremes: Keep the lowest and the highest value besides, and the first NaN or infinity in a window.
    """

    every: Annotated[int | None, Field(ge=1)] = None
    per_second: Annotated[float | None, Field(gt=0, allow_inf_nan=False)] = None
    extremes: bool = True

    @model_validator(mode="after")
    def _has_a_rate(self) -> Self:
        if (self.every is None) == (self.per_second is None):
            raise ValueError("give either every (steps) or per_second")
        return self


@dataclass(slots=True)
class _Series:
    """Where a series stands: the open window, the lowest and the highest value so far, and what is held back."""

    window: int
    low: float = math.inf
    high: float = -math.inf
    lowest: MetricData | None = None  # Held back: a new low, which the rest of the window may go below.
    highest: MetricData | None = None
    last: MetricData | None = None  # The latest one, unless it was let through.
    is_highest_older: bool = False
    has_odd: bool = False  # Whether a NaN or an infinity of this window was let through.

    def held(self) -> Sequence[MetricData]:
        """What was held back so far, in the order in which it came."""
        found = (self.highest, self.lowest) if self.is_highest_older else (self.lowest, self.highest)
        held = [record for record in found if record is not None]
        if self.lowest is self.highest:  # The first finite value after others.
            del held[1:]
        self.lowest = self.highest = None
        return held


@final
class ThinProcessor(Processor[ThinSettings]):
    """Lets the first point of each window through at once, and the series' last one at the end of an attempt.

    A new lowest or highest value of the series comes when its window ends. What `watch` has released comes at once.
    """

    name = "thin"
    description = "Fewer points of a series: every n steps, or at most n a second"
    settings_class = ThinSettings

    def initialize(self, config: dict[str, Any]) -> None:
        """Take the settings."""
        super().initialize(config)
        rate = self._settings.per_second
        self._window_s = None if rate is None else 1 / rate
        self._series: StateOfSeries[_Series] = StateOfSeries()

    def change(self, metric: MetricData) -> Sequence[MetricData]:
        """The record if it stays, after those that were held back before it."""
        number = bucket(metric, self._settings.every, self._window_s)
        if number is None:
            return [metric]
        series = self._series.get(metric)
        if series is None:
            series = _Series(number - 1)
            if not self._series.put(metric, series):
                return [metric]
        is_odd = self._settings.extremes and not math.isfinite(metric.value)
        is_released = metric.metadata is not None and RELEASED in metric.metadata
        if series.window != number or is_released or (is_odd and not series.has_odd):
            return self._let_through(series, metric, number, is_odd)
        self._hold(series, metric)
        return ()

    def finish(self) -> Sequence[MetricData]:
        """What is held back of each series, and its last point."""
        made: list[MetricData] = []
        for series in self._series.take_all():
            held = series.held()
            made += held
            if series.last is not None and not any(record is series.last for record in held):
                made.append(series.last)
        return made

    def _let_through(self, series: _Series, metric: MetricData, number: int, is_odd: bool) -> Sequence[MetricData]:
        made = [*series.held(), metric]
        series.has_odd = is_odd or (series.has_odd and series.window == number)
        series.window, series.last = number, None
        if math.isfinite(metric.value):
            series.low, series.high = min(series.low, metric.value), max(series.high, metric.value)
        return made

    def _hold(self, series: _Series, metric: MetricData) -> None:
        series.last = metric
        if not self._settings.extremes or not math.isfinite(metric.value):
            return
        if metric.value < series.low:
            series.low, series.lowest, series.is_highest_older = metric.value, metric, True
        if metric.value > series.high:
            series.high, series.highest, series.is_highest_older = metric.value, metric, False
