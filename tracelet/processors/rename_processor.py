"""Gives records other names. Called as `processors._base` says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, final

from tracelet.core.records import DEFINE_PREFIX, MetricData, MetricType
from tracelet.processors._base import OWN_PREFIX, Processor, ProcessorSettings, Regex


@final
class RenameSettings(ProcessorSettings):
    r"""What is renamed.

    Attributes:
        pattern: A regular expression; the part of a name that it matches is replaced: `"^train/"`.
        replacement: What stands there then, `\1` is its first group.
    """

    pattern: Regex
    replacement: str


@final
class RenameProcessor(Processor[RenameSettings]):
    """Renames series, parameters and files; `define_metric` goes by the new names too."""

    name = "rename"
    description = "Gives records other names"
    settings_class = RenameSettings
    types = tuple(MetricType)
    has_memory = False

    def initialize(self, config: dict[str, Any]) -> None:
        """Take the settings."""
        super().initialize(config)
        self._pattern = re.compile(self._settings.pattern)

    def change(self, metric: MetricData) -> MetricData:
        """The record under its new name."""
        new = self._renamed(metric.name)
        return metric if new == metric.name else replace(metric, name=new)

    def pass_by(self, metric: MetricData) -> MetricData:
        """A definition of an x-axis speaks of two series; all else stays."""
        if metric.type is not MetricType.CUSTOM or not metric.name.startswith(DEFINE_PREFIX):
            return metric
        value = metric.value
        if isinstance(value, Mapping) and isinstance(value.get("step"), str):
            value = {**value, "step": self._renamed(value["step"])}
        return replace(metric, name=DEFINE_PREFIX + self._renamed(metric.name.removeprefix(DEFINE_PREFIX)), value=value)

    def _renamed(self, name: str) -> str:
        if name.startswith(OWN_PREFIX) or not self._is_matched(name):
            return name
        return self._pattern.sub(self._settings.replacement, name) or name
