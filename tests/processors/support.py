"""What the tests of processors share: a processor at work, and records for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tracelet.core.plugins import ProcessorPlugin
from tracelet.core.records import MetricData, MetricType
from tracelet.delivery.processing import _checked


def started(processor: type[ProcessorPlugin], **config: Any) -> ProcessorPlugin:
    made = processor()
    made.validate_config(config)
    made.initialize({"run_id": "run1", **config})
    made.start()
    return made


def through(processor: ProcessorPlugin, records: Iterable[MetricData], *, finish: bool = True) -> list[MetricData]:
    made = [one for record in records for one in _checked(processor.process(record))]
    return made + list(processor.finish() if finish else ())


def series(values: Iterable[float], name: str = "loss", start: int = 0, step: int = 1) -> list[MetricData]:
    """A point a step, and a step a second."""
    return [point(value, start + index * step, name) for index, value in enumerate(values)]


def point(value: float, step: int | None, name: str = "loss", time_s: float | None = None, **more: Any) -> MetricData:
    return MetricData(name, value, MetricType.SCALAR, step, float(step or 0) if time_s is None else time_s, **more)


def steps(records: Sequence[MetricData]) -> list[int | None]:
    return [record.iteration for record in records]


def values(records: Sequence[MetricData]) -> list[float]:
    return [record.value for record in records]
