"""The processors between the journal and one backend. Everything here runs on that backend's worker thread.

Guarantee: what comes out depends on the records and their order alone, not on when they were delivered or how often
delivery began anew: a worker that begins in the middle of a run has the processors see (`recall`) what was delivered
before. What they hold back comes where an attempt of the run ends (`finish`). A processor that fails lets the record
through as it was, is counted each time, and logged once.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, final

from tracelet.core.plugins import ManagedPlugin, ProcessorPlugin
from tracelet.core.records import PLUGIN_ERRORS_NAME, MetricData, is_status
from tracelet.errors import JournalError
from tracelet.journal.directory import RunDirectory
from tracelet.journal.past import entries_before
from tracelet.journal.reader import Position

logger = logging.getLogger(__name__)

Accepts = Callable[[MetricData], bool]
"""The routing rules: whether a backend gets a record."""


@final
class PluginSink:
    """Takes what the plug-ins of one backend record about themselves.

    An error in handling the record of an error makes no further one: that would go on for ever.
    """

    def __init__(self, emit: Callable[[MetricData], None], on_error: Callable[[str, BaseException], None]) -> None:
        self._emit = emit
        self._on_error = on_error
        self._has_errors_in_hand = False
        self._is_silent = False

    @contextlib.contextmanager
    def silence(self) -> Iterator[None]:
        """While plug-ins see again what they have seen: what they have to say has been recorded."""
        self._is_silent = True
        try:
            yield
        finally:
            self._is_silent = False

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
        if not self._is_silent and not (self._has_errors_in_hand and metric.name == PLUGIN_ERRORS_NAME):
            self._emit(metric)

    def note_error(self, plugin: str, error: BaseException, about: MetricData | None = None) -> None:
        """Count an error of a plug-in; `about` is the record that it could not handle."""
        if not self._is_silent and (about is None or about.name != PLUGIN_ERRORS_NAME):
            self._on_error(plugin, error)


@final
class ProcessorChain:
    """See the module docstring."""

    def __init__(self, processors: Sequence[ManagedPlugin], backend: str, sink: PluginSink) -> None:
        self._processors = processors
        self._backend = backend
        self._sink = sink
        self._running: list[tuple[ManagedPlugin, ProcessorPlugin]] = []

    @property
    def description(self) -> str:
        """What stands in it, in words."""
        found = (managed.metadata for managed in self._processors)
        return "; ".join(f"the processor {one.name!r}: {one.description or 'changes records'}" for one in found)

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
            else:
                assert isinstance(managed.plugin, ProcessorPlugin)
                self._running.append((managed, managed.plugin))

    def recall(self, run: RunDirectory, positions: Mapping[str, Position], accepts: Accepts) -> None:
        """Show the processors again what was delivered before; what they make of it was delivered, too."""
        if not any(processor.has_memory for _, processor in self._running):
            return
        with self._sink.silence():
            try:
                for entry in entries_before(run, positions):
                    self.take(entry.record, accepts)
            except (OSError, JournalError) as error:
                logger.warning("the processors of %r do not see what was delivered before: %s", self._backend, error)

    def take(self, record: MetricData | None, accepts: Accepts) -> Sequence[MetricData]:
        """What comes of an entry of the journal; None is an entry without a record."""
        if record is None:
            return ()
        if is_status(record):  # It ends an attempt, and the backend is told of the last one alone, after all else.
            return self.finish()
        return self.apply(record) if accepts(record) else ()

    def apply(self, record: MetricData, first: int = 0) -> Sequence[MetricData]:
        """The record after all processors; or after those from number `first` on."""
        records: Sequence[MetricData] = [record]
        for managed, processor in self._running[first:]:
            records = [made for item in records for made in self._process(managed, processor, item)]
        return records

    def finish(self) -> Sequence[MetricData]:
        """What the processors hold back, after those that come behind them."""
        made: list[MetricData] = []
        for number, (managed, processor) in enumerate(self._running, 1):
            try:
                held = _checked(processor.finish())
            except Exception as error:  # noqa: BLE001  as above
                self._note_error(managed, error)
                continue
            made += [record for item in held for record in self.apply(item, number)]
        return made

    def end(self, record: MetricData) -> Sequence[MetricData]:
        """The end of the run, after what is held back. No processor can keep it from the backend."""
        told = [made for made in self.apply(record) if is_status(made)]
        return [*self.finish(), *(told[-1:] or [record])]

    def _process(self, managed: ManagedPlugin, processor: ProcessorPlugin, record: MetricData) -> Sequence[MetricData]:
        try:
            with self._sink.handling([record]):
                return _checked(processor.process(record))
        except Exception as error:  # noqa: BLE001  as above
            self._note_error(managed, error, record)
            return [record]

    def _note_error(self, managed: ManagedPlugin, error: Exception, about: MetricData | None = None) -> None:
        self._sink.note_error(managed.name, error, about)
        if managed.error is None:
            managed.error = f"{type(error).__name__}: {error}"
            logger.warning(
                "the processor %r failed: %s; its records reach %r unchanged",
                managed.name, error, self._backend, exc_info=error,
            )  # fmt: skip


def _checked(result: MetricData | Iterable[MetricData] | None) -> Sequence[MetricData]:
    """The records that a stranger's processor gave.

    Raises:
        TypeError: They are none.
    """
    made = [result] if isinstance(result, MetricData) else list(result or ())
    if not all(isinstance(item, MetricData) for item in made):
        raise TypeError(f"a processor gave {result!r:.200}, which is no MetricData, nor several, nor None")
    return made
