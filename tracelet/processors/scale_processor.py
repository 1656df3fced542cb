"""Changes the unit of series. Called as `processors._base` says."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, final

from pydantic import Field

from tracelet.core.records import MetricData
from tracelet.processors._base import Processor, ProcessorSettings

_Finite = Annotated[float, Field(allow_inf_nan=False)]


@final
class ScaleSettings(ProcessorSettings):
    """The new unit.

    Attributes:
        factor: The values are multiplied by it,
        offset: and this is added then.
        suffix: Ends of names, the old and the new one: `["_bytes", "_gib"]`.
    """

    factor: _Finite = 1.0
    offset: _Finite = 0.0
    suffix: tuple[str, str] = ("", "")


@final
class ScaleProcessor(Processor[ScaleSettings]):
    """Multiplies the values of series and adds to them. NaN and infinities stay what they are."""

    name = "scale"
    description = "Changes the unit of series"
    settings_class = ScaleSettings
    has_memory = False

    def change(self, metric: MetricData) -> MetricData:
        """The record in the new unit."""
        settings = self._settings
        old, new = settings.suffix
        name = metric.name.removesuffix(old) + new if metric.name.endswith(old) else metric.name
        return replace(metric, name=name, value=metric.value * settings.factor + settings.offset)
