"""Moving averages of series. Called as `processors._base` says."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, final

from pydantic import Field

from tracelet.core.records import MetricData
from tracelet.processors._base import Processor, ProcessorSettings, StateOfSeries


@final
class SmoothSettings(ProcessorSettings):
    """How much is averaged.

    Attributes:
        window: Over so many points, the present one included.
        suffix: With one, the average is a series of its own beside the values: `"/smooth"`; without, in their place.
    """

    window: Annotated[int, Field(ge=1, le=10_000)]
    suffix: str = ""


@final
class SmoothProcessor(Processor[SmoothSettings]):
    """A moving average. A NaN or an infinity stays what it is, and is no part of later averages."""

    name = "smooth"
    description = "Moving averages of series"
    settings_class = SmoothSettings

    def initialize(self, config: dict[str, Any]) -> None:
        """Take the settings."""
        super().initialize(config)
        self._series: StateOfSeries[deque[float]] = StateOfSeries()

    def change(self, metric: MetricData) -> MetricData | Sequence[MetricData]:
        """The average up to the record, in its place or behind it."""
        smooth = replace(metric, name=metric.name + self._settings.suffix, value=self._average(metric))
        return (metric, smooth) if self._settings.suffix else smooth

    def finish(self) -> Sequence[MetricData]:
        """Nothing is held back; the next attempt begins anew."""
        self._series.take_all()
        return ()

    def _average(self, metric: MetricData) -> float:
        value = float(metric.value)
        if not math.isfinite(value):
            return value
        values = self._series.get(metric)
        if values is None:
            values = deque(maxlen=self._settings.window)
            self._series.put(metric, values)
        values.append(value)
        return math.fsum(values) / len(values)
