"""Hides from one backend what the journal keeps. Called as `processors._base` says.

What may not reach the disk either is told by the settings `redact_names` and `redact_patterns`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, final

from pydantic import BeforeValidator

from tracelet.core.records import MetricData, MetricType
from tracelet.processors._base import Patterns, Processor, ProcessorSettings, Regex, listed
from tracelet.utils.redaction import Redactor


@final
class RedactSettings(ProcessorSettings):
    """What is hidden, besides the credentials that are hidden anyway.

    Attributes:
        names: Parameters, tags and fields whose values are hidden.
        patterns: Regular expressions; what they match is hidden, or their group `secret` if they have one.
    """

    names: Patterns = ()
    patterns: Annotated[tuple[Regex, ...], BeforeValidator(listed)] = ()


@final
class RedactProcessor(Processor[RedactSettings]):
    """Hides names, hosts, paths or customers in parameters, tags, texts, tables and the text of the run's error."""

    name = "redact"
    description = "Hides from one backend what the journal keeps"
    settings_class = RedactSettings
    types = tuple(MetricType)
    has_memory = False

    def initialize(self, config: dict[str, Any]) -> None:
        """Take the settings."""
        super().initialize(config)
        self._redactor = Redactor(self._settings.names, self._settings.patterns)

    def change(self, metric: MetricData) -> MetricData:
        """The record without it."""
        name, value, metadata = self._redactor.record(metric.name, metric.value, metric.type, metric.metadata)
        return replace(metric, name=name, value=value, metadata=metadata)

    def pass_by(self, metric: MetricData) -> MetricData:
        """Tags, descriptions and the run's error are meant by no name."""
        return self.change(metric) if metric.type is MetricType.CUSTOM else metric
