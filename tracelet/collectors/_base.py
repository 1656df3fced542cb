"""What the collectors share: their settings, sources that fail on their own, and rates of counters.

Called on the collector's own thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, ParamSpec, TypeVar, final

from pydantic import Field

from tracelet.core.plugin_settings import PluginSettings
from tracelet.core.records import MetricData, MetricType

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


class CollectorSettings(PluginSettings):
    """The base of a collector's own settings.

    Attributes:
        interval: Time between two readings, in seconds.
    """

    kind = "collector"

    interval: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 30.0


@final
class Sources:
    """Reads several sources of one collector: one that fails costs only its own records, and is reported once."""

    def __init__(self, collector: str) -> None:
        self._collector = collector
        self._reported: set[str] = set()

    def read(self, source: str, reading: Callable[P, Iterable[T]], *args: P.args, **kwargs: P.kwargs) -> list[T]:
        """What a source gives up to where it fails."""
        found: list[T] = []
        try:
            found.extend(reading(*args, **kwargs))
        except Exception as error:
            if source not in self._reported:
                self._reported.add(source)
                logger.warning(
                    "the collector %r goes on without %s: %s: %s",
                    self._collector, source, type(error).__name__, error,
                )  # fmt: skip
                logger.debug("where it failed", exc_info=True)
        return found

    @property
    def failed(self) -> list[str]:
        """The sources that have failed at least once."""
        return sorted(self._reported)


@final
class Rates:
    """Turns counters that only grow into growth per second. Holds one reading, so its size is that of the last one."""

    def __init__(self) -> None:
        self._time_s = 0.0
        self._counters: Mapping[str, float] = {}

    def of(self, now_s: float, counters: Mapping[str, float]) -> dict[str, float]:
        """The growth of each counter per second since the last call.

        Args:
            now_s: By the monotonic clock.
            counters: By name; one that was not there at the last call has no rate yet, and one that went back (a
                process ended, a device was replaced) has the rate 0.
        """
        past_s, before = now_s - self._time_s, self._counters
        self._time_s, self._counters = now_s, dict(counters)
        if past_s <= 0:
            return {}
        return {name: max(0.0, value - before[name]) / past_s for name, value in counters.items() if name in before}


def curves(source: str, values: Iterable[tuple[str, float]]) -> list[MetricData]:
    """Points of SYSTEM series."""
    return [MetricData(name, value, MetricType.SYSTEM, source=source) for name, value in values]


def facts(source: str, values: Iterable[tuple[str, Any]]) -> list[MetricData]:
    """Parameters `env/…`; what is None is not known, and left out."""
    return [
        MetricData(f"env/{name}", value, MetricType.PARAMETER, source=source)
        for name, value in values
        if value is not None
    ]
