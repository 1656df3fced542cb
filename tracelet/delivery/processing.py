"""The processors between the journal and one backend. Everything here runs on that backend's worker thread.

Guarantee: a processor that fails lets the record through as it was, is counted each time, and logged once.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, final

from tracelet.core.plugins import ManagedPlugin, PluginState, ProcessorPlugin
from tracelet.core.records import PLUGIN_ERRORS_NAME, MetricData

logger = logging.getLogger(__name__)


@final
class PluginSink:
    """Takes what the plug-ins of one backend record about themselves.

    An error in handling the record of an error makes no further one: that would go on for ever.
    """

    def __init__(self, emit: Callable[[MetricData], None], on_error: Callable[[str, BaseException], None]) -> None:
        self._emit = emit
        self._on_error = on_error
        self._has_errors_in_hand = False

    @contextlib.contextmanager
    def handling(self, records: Sequence[MetricData]) -> Iterator[None]:
        """While a plug-in has these records in hand."""
        self._has_errors_in_hand = any(record.name == PLUGIN_ERRORS_NAME for record in records)
        try:
            yield
        finally:
            self._has_errors_in_hand = False

    def emit_metric(self, metric: MetricData) -> None:
        """Record it."""
        if not (self._has_errors_in_hand and metric.name == PLUGIN_ERRORS_NAME):
            self._emit(metric)

    def note_error(self, plugin: str, error: BaseException, about: MetricData | None = None) -> None:
        """Count an error of a plug-in; `about` is the record that it could not handle."""
        if about is None or about.name != PLUGIN_ERRORS_NAME:
            self._on_error(plugin, error)


@final
class ProcessorChain:
    """See the module docstring."""

    def __init__(self, processors: Sequence[ManagedPlugin], backend: str, sink: PluginSink) -> None:
        self._processors = processors
        self._backend = backend
        self._sink = sink

    def start(self, facts: Mapping[str, Any]) -> None:
        """Initialise and start all of them."""
        for managed in self._processors:
            managed.plugin.attach(self._sink)
            try:
                managed.initialize(facts)
                managed.start()
            except Exception as error:  # noqa: BLE001  a plug-in may raise anything; it is noted
                self._note_error(managed, error)
                managed.fail(error)

    def apply(self, record: MetricData) -> list[MetricData]:
        """The record after all processors."""
        records = [record]
        for managed in self._processors:
            processor = managed.plugin
            assert isinstance(processor, ProcessorPlugin)
            if managed.state is PluginState.RUNNING:
                records = [made for item in records for made in self._process(managed, processor, item)]
        return records

    def _process(self, managed: ManagedPlugin, processor: ProcessorPlugin, record: MetricData) -> Sequence[MetricData]:
        try:
            with self._sink.handling([record]):
                result = processor.process(record)
                made = [result] if isinstance(result, MetricData) else list(result or ())
            if not all(isinstance(item, MetricData) for item in made):
                raise TypeError(f"process() gave {result!r:.200}, which is no MetricData, nor several, nor None")
        except Exception as error:  # noqa: BLE001  as above
            self._note_error(managed, error, record)
            return [record]
        return made

    def _note_error(self, managed: ManagedPlugin, error: Exception, about: MetricData | None = None) -> None:
        self._sink.note_error(managed.name, error, about)
        if managed.error is None:
            managed.error = f"{type(error).__name__}: {error}"
            logger.warning(
                "the processor %r failed: %s; its records reach %r unchanged",
                managed.name, error, self._backend, exc_info=error,
            )  # fmt: skip
