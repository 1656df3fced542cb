"""Keeps records from a backend. Called as `processors._base` says."""

from __future__ import annotations

from typing import Any, final

from tracelet.core.records import MetricData, MetricType
from tracelet.processors._base import Patterns, Processor, ProcessorSettings, matcher


@final
class DropSettings(ProcessorSettings):
    """What is dropped.

    Attributes:
        match: The names; there is no default, which would be everything.
        keep: Names among them that stay.
        kinds: Only records of these types: `["image"]`; None: of any type.
    """

    match: Patterns
    keep: Patterns = ()
    kinds: tuple[MetricType, ...] | None = None


@final
class DropProcessor(Processor[DropSettings]):
    """Drops records by their names and types. Tags, the status and the like reach every backend."""

    name = "drop"
    description = "Keeps records from a backend, by their names and types"
    settings_class = DropSettings
    types = tuple(MetricType)
    has_memory = False

    def initialize(self, config: dict[str, Any]) -> None:
        """Take the settings."""
        super().initialize(config)
        self._stays = matcher(self._settings.keep)

    def change(self, metric: MetricData) -> MetricData | None:
        """The record, if it stays."""
        is_kind = self._settings.kinds is None or metric.type in self._settings.kinds
        return None if is_kind and not self._stays(metric.name) else metric
