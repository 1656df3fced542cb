"""One point for each window of a series. Called as `processors._base` says."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final, Literal, Self, final

from pydantic import BeforeValidator, Field, model_validator

from tracelet.core.records import MetricData
from tracelet.processors._base import RELEASED, Processor, ProcessorSettings, StateOfSeries, bucket, listed

Function = Literal["mean", "min", "max", "first", "last", "sum", "count"]


@final
class AggregateSettings(ProcessorSettings):
    """The windows, and what is made of one. Either `every` or `seconds` is given.

    Attributes:
        every: A window is so many steps: with 100, the steps 0 to 99, 100 to 199 and so on.
        seconds: A window is so long, in seconds, by the time of the records.
        functions: What a window becomes. One keeps the name of the series; several add theirs: `loss/mean`, `loss/max`.
    """

    every: Annotated[int | None, Field(ge=1)] = None
    seconds: Annotated[float | None, Field(gt=0, allow_inf_nan=False)] = None
    functions: Annotated[tuple[Function, ...], BeforeValidator(listed), Field(min_length=1)] = ("mean",)

    @model_validator(mode="after")
    def _has_windows(self) -> Self:
        if (self.every is None) == (self.seconds is None):
            raise ValueError("give either every (steps) or seconds")
        return self


@dataclass(slots=True)
class _Window:
    """What is known of the open window of a series."""

    number: int
    first: MetricData
    last: MetricData
    count: int = 0
    sum: float = 0.0
    min: float = math.nan
    max: float = math.nan

    def add(self, metric: MetricData) -> None:
        value = float(metric.value)
        self.last = metric
        self.count += 1
        self.sum += value
        if not self.min <= value:  # Also where there was none yet; a NaN is neither the lowest nor the highest.
            self.min = self.min if math.isnan(value) else value
        if not self.max >= value:
            self.max = self.max if math.isnan(value) else value


_FUNCTIONS: Final[Mapping[Function, Callable[[_Window], float]]] = {
    "mean": lambda window: window.sum / window.count,
    "min": lambda window: window.min,
    "max": lambda window: window.max,
    "first": lambda window: float(window.first.value),
    "last": lambda window: float(window.last.value),
    "sum": lambda window: window.sum,
    "count": lambda window: float(window.count),
}


@final
class AggregateProcessor(Processor[AggregateSettings]):
    """Gives a window's mean, lowest, highest or last value at the step and time of its last record.

    A NaN makes the mean and the sum one. A window comes when the next one begins, or an attempt of the run ends. What
    `watch` has released goes through beside it.
    """

    name = "aggregate"
    description = "One point for each window of a series: mean, min, max, first, last, sum, count"
    settings_class = AggregateSettings

    def initialize(self, config: dict[str, Any]) -> None:
        """Take the settings."""
        super().initialize(config)
        self._series: StateOfSeries[_Window] = StateOfSeries()

    def change(self, metric: MetricData) -> Sequence[MetricData]:
        """The window that the record ends, where it is the first one of the next."""
        number = bucket(metric, self._settings.every, self._settings.seconds)
        if number is None:
            return [metric]
        made = [metric] if metric.metadata and RELEASED in metric.metadata else []
        window = self._series.get(metric)
        if window is None or window.number != number:
            if window is not None:
                made = [*self._results(window), *made]
            window = _Window(number, metric, metric)
            if not self._series.put(metric, window):
                return [metric]
        window.add(metric)
        return made

    def finish(self) -> Sequence[MetricData]:
        """The open windows."""
        return [made for window in self._series.take_all() for made in self._results(window)]

    def _results(self, window: _Window) -> Iterator[MetricData]:
        functions, last = self._settings.functions, window.last
        for function in functions:
            name = last.name if len(functions) == 1 else f"{last.name}/{function}"
            yield replace(last, name=name, value=_FUNCTIONS[function](window), metadata=None)
