"""What the processors share: their settings, which records they are for, and the state of each series.

Called on the thread of the backend that a processor stands in front of. What depends on time goes by the time stamps of
the records, so that a record comes out the same a month later.
"""

from __future__ import annotations

import fnmatch
import functools
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Final, Generic, TypeVar, final

from pydantic import AfterValidator, BeforeValidator

from tracelet.core.plugin_settings import PluginSettings
from tracelet.core.plugins import PluginMetadata, PluginType, ProcessorPlugin
from tracelet.core.records import MetricData, MetricType

RELEASED: Final = "released"
"""Stands in the metadata of a record that has to reach the backend as it is: what it is near to."""

OWN_PREFIX: Final = "tracelet/"
"""Of records that are Tracelet's own: tags, the status, the errors of plug-ins."""

SCALARS: Final = (MetricType.SCALAR, MetricType.SYSTEM)

_MAX_SERIES: Final = 100_000  # With state; what comes of further ones goes through as it is.


def listed(value: object) -> object:
    """A text as the list of it."""
    return [value] if isinstance(value, str) else value


Patterns = Annotated[tuple[str, ...], BeforeValidator(listed)]
"""Names as `fnmatch` has them: `"train/*"`, or several."""


def _as_pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"it is no regular expression: {error}") from None
    return value


Regex = Annotated[str, AfterValidator(_as_pattern)]
"""A regular expression."""


class ProcessorSettings(PluginSettings):
    """The base of a processor's own settings.

    Attributes:
        match: The records that it is for, by their names.
    """

    kind = "processor"

    match: Patterns = ("*",)


def matcher(patterns: Sequence[str]) -> Callable[[str], bool]:
    """A function that says whether a name matches one of the patterns; quick for names that come again."""
    pattern = re.compile("|".join(map(fnmatch.translate, patterns)) or "(?!)")
    return functools.lru_cache(10_000)(lambda name: pattern.match(name) is not None)


S = TypeVar("S", bound=ProcessorSettings)
T = TypeVar("T")


class Processor(ProcessorPlugin, ABC, Generic[S]):
    """A processor with settings. Subclasses say `name`, `description` and `settings_class`, and what they do."""

    name: ClassVar[str]
    description: ClassVar[str]
    settings_class: ClassVar[type[Any]]
    types: ClassVar[tuple[MetricType, ...]] = SCALARS
    """The types of records that it is for."""

    _settings: S

    @classmethod
    def get_metadata(cls) -> PluginMetadata:
        """Needs no package."""
        return PluginMetadata(cls.name, "1.0.0", PluginType.PROCESSOR, cls.description, "Tracelet")

    @classmethod
    def validate_config(cls, config: Mapping[str, Any]) -> None:
        """Check the settings."""
        cls.settings_class.parse(cls.name, config)

    def initialize(self, config: dict[str, Any]) -> None:
        """Take the settings."""
        self._settings = self.settings_class.parse(self.name, config)
        self._is_matched = matcher(self._settings.match)

    def start(self) -> None:
        """Nothing to do."""

    def stop(self) -> None:
        """Nothing to do."""

    def get_status(self) -> dict[str, Any]:
        """Nothing to tell."""
        return {}

    @final
    def process(self, metric: MetricData) -> MetricData | Iterable[MetricData] | None:
        """What comes of a record: itself where it is not one of those that are meant."""
        if metric.type not in self.types or metric.name.startswith(OWN_PREFIX) or not self._is_matched(metric.name):
            return self.pass_by(metric)
        return self.change(metric)

    @abstractmethod
    def change(self, metric: MetricData) -> MetricData | Iterable[MetricData] | None:
        """What comes of a record that is meant."""

    def pass_by(self, metric: MetricData) -> MetricData | Iterable[MetricData] | None:
        """What comes of one that is not."""
        return metric


@final
class StateOfSeries(Generic[T]):
    """The state of each series; those of different sources are different ones."""

    def __init__(self) -> None:
        self._states: dict[tuple[str, str | None], T] = {}

    def get(self, metric: MetricData) -> T | None:
        """The state of a record's series; None where it has none yet."""
        return self._states.get((metric.name, metric.source))

    def put(self, metric: MetricData, state: T) -> bool:
        """Begin a series; False where there are too many."""
        has_room = len(self._states) < _MAX_SERIES
        if has_room:
            self._states[metric.name, metric.source] = state
        return has_room

    def take_all(self) -> list[T]:
        """All states, in the order in which the series began; none is left."""
        states = list(self._states.values())
        self._states.clear()
        return states


def bucket(metric: MetricData, steps: int | None, seconds: float | None) -> int | None:
    """The number of the window that a record falls into, by its step or by its time; None where it has none."""
    if steps is not None:
        return None if metric.iteration is None else metric.iteration // steps
    return None if metric.timestamp is None or seconds is None else int(metric.timestamp // seconds)
