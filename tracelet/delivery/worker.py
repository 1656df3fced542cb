"""Delivers one run's journal to one backend.

Threads:
    the user's threads    `Experiment.log_metric()` → the journal. They never come here and never wait for a backend.
    tracelet-<backend>    `_run`: the only caller of the backend, its processors, its reader and its cursor.
    the experiment's      `start`, `request_stop`, `join`, `flush`, `get_stats`.

States, each entered once and in this order:
    NEW → CONNECTING → DELIVERING → DRAINING → ENDED      (from any of them to ENDED, where the user has to act first)

Delivery is at least once: the cursor moves after the backend has returned, so that a kill in between sends that batch
again. Order is the order of the journal. What can't be delivered stays in the journal for a later start or `tracelet
sync`.
"""

from __future__ import annotations

import enum
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final, final

from tracelet.core.plugins import BackendPlugin, ManagedPlugin, PluginState, ProcessorPlugin
from tracelet.core.records import PLUGIN_ERRORS_NAME, MetricData
from tracelet.delivery.backlog import backlog
from tracelet.delivery.cursor import Cursor
from tracelet.delivery.retry import Backoff, Verdict, judge
from tracelet.errors import JournalError, PartialDeliveryError
from tracelet.journal.reader import JournalReader, Position

logger = logging.getLogger(__name__)

MAX_BATCH: Final = 512  # Records in one `handle_batch`.
_REJECTIONS_SHOWN: Final = 5  # In the log; the file has them all.
POLL_S: Final = 0.2  # The longest time that a record waits before its worker looks at the journal.
DRAIN_ATTEMPTS: Final = 3  # When the run has ended, an outage is not waited for without limit.


@final
class WorkerState(enum.Enum):
    """See the module docstring."""

    NEW = "new"  # Made; no thread exists.
    CONNECTING = "connecting"  # The backend's `initialize` and `start` are tried.
    DELIVERING = "delivering"  # The thread reads and delivers.
    DRAINING = "draining"  # `request_stop` was called: what is there is delivered, then the end.
    ENDED = "ended"  # The thread is done; the backend is stopped.


@final
@dataclass(frozen=True, slots=True)
class WorkerStats:
    """How a backend's delivery stands.

    Attributes:
        waiting: Records in the journal that the backend has not got; an estimate while records come in.
        errors: Errors of the backend so far: each attempt that found it away, and each record that it rejected.
    """

    state: str
    delivered: int
    rejected: int
    waiting: int
    errors: int
    last_error: str | None


@final
class _Batch:
    """Records on their way, and how far the cursor may move when the first n of them have arrived."""

    def __init__(self) -> None:
        self._records: list[MetricData] = []
        self._marks: deque[tuple[int, str, Position]] = deque()  # (records that must have arrived, writer, position)
        self._arrived = 0

    def add(self, records: Iterable[MetricData], writer: str, position: Position) -> None:
        self._records.extend(records)
        self._marks.append((len(self._records), writer, position))

    def next(self, count: int) -> Sequence[MetricData]:
        """The next `count` records that have not arrived."""
        return self._records[self._arrived : self._arrived + count]

    def arrived(self, count: int, cursor: Cursor) -> None:
        """The next `count` records are done with."""
        self._arrived += count
        while self._marks and self._marks[0][0] <= self._arrived:
            _, writer, position = self._marks.popleft()
            cursor.advance(writer, position)

    @property
    def left(self) -> int:
        """How many records have not arrived."""
        return len(self._records) - self._arrived


@final
class DeliveryWorker:
    """See the module docstring for threads, states and guarantees."""

    def __init__(
        self,
        managed: ManagedPlugin,
        reader: JournalReader,
        cursor: Cursor,
        *,
        facts: Mapping[str, Any],
        accepts: Callable[[MetricData], bool],
        processors: Sequence[ManagedPlugin] = (),
        emit: Callable[[MetricData], None],
        on_error: Callable[[str, BaseException], None],
        backoff: Backoff | None = None,
    ) -> None:
        """Make a worker; nothing is called yet.

        Args:
            managed: The backend.
            reader: Begins at the cursor's positions.
            cursor: The backend's own.
            facts: What the run is, for the plug-in's `initialize`.
            accepts: The routing rules: whether this backend gets a record.
            processors: Copies of the processors for this backend alone.
            emit: Takes the records that the plug-ins make about themselves.
            on_error: Told of each error, with the plug-in's name, on the worker's thread.
            backoff: The delays between attempts.
        """
        assert isinstance(managed.plugin, BackendPlugin)
        self.name = managed.name
        self._managed = managed
        self._backend = managed.plugin
        self._reader = reader
        self._cursor = cursor
        self._facts = facts
        self._accepts = accepts
        self._processors = processors
        self._emit = emit
        self._on_error = on_error
        self._backoff = backoff or Backoff()
        self._state = WorkerState.NEW
        self._drain_attempts = DRAIN_ATTEMPTS
        self._deadline_s = float("inf")  # By the monotonic clock.
        self._in_outage = False
        self._unreadable = False
        self._handles_errors = False  # Whether a plug-in has a record of `PLUGIN_ERRORS_NAME` in hand at this moment.
        self._errors = 0
        self._last_error: str | None = None
        self._flushes: deque[Future[bool]] = deque()
        self._wake = threading.Event()
        self._stop_requested = False
        self._thread = threading.Thread(target=self._run, name=f"tracelet-{self.name}", daemon=True)

    # -- the experiment's thread ---------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread."""
        self._state = WorkerState.CONNECTING
        self._thread.start()

    def request_stop(self, timeout_s: float) -> None:
        """Deliver what is there and end. Returns at once; see `join`."""
        self._deadline_s = time.monotonic() + timeout_s
        self._stop_requested = True
        self._wake.set()

    def join(self, timeout_s: float) -> bool:
        """Wait for the end; whether it has come."""
        if self._state is not WorkerState.NEW and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def flush(self) -> Future[bool]:
        """Have the backend get all that is in the journal now; the result says whether it has, once that is known."""
        done: Future[bool] = Future()
        self._flushes.append(done)
        self._wake.set()
        if self._state is WorkerState.ENDED:  # After the append: so either this line or the thread's last ones see it.
            self._answer(len(self._flushes), not self.waiting())
        return done

    def get_stats(self) -> WorkerStats:
        """How it stands."""
        cursor = self._cursor
        return WorkerStats(
            self._state.value, cursor.delivered, cursor.rejected, self.waiting(), self._errors, self._last_error
        )

    def waiting(self) -> int:
        """Records in the journal that the backend has not got, filtered ones included."""
        return backlog(self._reader.run.path, dict(self._cursor.positions))

    @property
    def gave_up(self) -> bool:
        """Whether nothing more will be delivered before the user acts."""
        return self._state is WorkerState.ENDED and self._managed.error is not None

    # -- the worker's thread -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            if self._connect():
                self._deliver_all()
        except _GaveUpError as end:
            self._managed.fail(end.error)
            logger.error(
                "Delivery to %r has ended: %s. The journal keeps every record; mend it, then: tracelet sync %s --to %s",
                self.name, end.error, self._facts.get("run_id"), self.name,
            )  # fmt: skip
        except BaseException as error:  # A fault of ours, or a plug-in that calls `sys.exit()`.
            self._managed.fail(error)
            logger.exception(
                "Delivery to %r has ended unexpectedly. The journal keeps every record; send them with: "
                "tracelet sync %s --to %s", self.name, self._facts.get("run_id"), self.name,
            )  # fmt: skip
        finally:
            self._cursor.save()
            self._stop_plugins()
            self._state = WorkerState.ENDED
            self._answer(len(self._flushes), False)

    def _connect(self) -> bool:
        """Initialise and start the processors and the backend, for as long as it takes; whether it worked."""
        self._cursor.save()  # It makes the directory that the plug-ins know as `state_dir`.
        self._backend.attach(self)
        for processor in self._processors:
            processor.plugin.attach(self)
            try:
                processor.initialize(self._facts)
                processor.start()
            except Exception as error:  # noqa: BLE001  a plug-in may raise anything; it is noted
                self._note_processor_error(processor, error)
                processor.fail(error)
        while True:
            try:
                if self._managed.state is PluginState.REGISTERED:
                    self._managed.initialize(self._facts)
                if self._managed.state is PluginState.INITIALIZED:
                    self._managed.start()
            except Exception as error:
                self._note_error(error)
                # Whatever a connection fails with may pass: only what says that it won't ends it.
                if judge(error) is Verdict.GIVE_UP:
                    raise _GaveUpError(error) from error
                if not self._wait_for_retry(error):
                    return False
            else:
                self._over_the_outage()
                return True

    def _deliver_all(self) -> None:
        while time.monotonic() < self._deadline_s:
            # Asked before the journal is read: what comes after that may not be seen any more.
            asked, flushes = self._stop_requested, len(self._flushes)
            self._state = WorkerState.DRAINING if asked else WorkerState.DELIVERING
            try:
                batch = self._next_batch()
                self._unreadable = False
            except (OSError, JournalError) as error:
                if not self._unreadable:
                    self._unreadable = True
                    logger.warning("the journal can't be read for %r: %s", self.name, error)
                batch, flushes = None, 0
            if batch is None:
                self._complete(flushes)
                if asked:
                    return
                self._wake.wait(POLL_S)
                self._wake.clear()
            elif not self._deliver(batch):
                return

    def _next_batch(self) -> _Batch | None:
        """What to send next, after routing and processors; None where the journal has nothing new.

        Raises:
            OSError, JournalError: It can't be read now.
        """
        entries = self._reader.read(MAX_BATCH)
        if not entries:
            return None
        batch = _Batch()
        for writer, entry in entries:
            wanted = entry.record is not None and self._accepts(entry.record)
            batch.add(self._processed(entry.record) if wanted and entry.record else (), writer, entry.after)
        return batch

    def _processed(self, record: MetricData) -> list[MetricData]:
        """The record after all processors. One that fails lets the record through as it is."""
        records = [record]
        for managed in self._processors:
            processor = managed.plugin
            assert isinstance(processor, ProcessorPlugin)
            if managed.state is PluginState.RUNNING:
                records = [made for item in records for made in self._process(managed, processor, item)]
        return records

    def _process(self, managed: ManagedPlugin, processor: ProcessorPlugin, record: MetricData) -> Sequence[MetricData]:
        self._handles_errors = record.name == PLUGIN_ERRORS_NAME
        try:
            result = processor.process(record)
            made = [result] if isinstance(result, MetricData) else list(result or ())
            if not all(isinstance(item, MetricData) for item in made):
                raise TypeError(f"process() gave {result!r:.200}, which is no MetricData, nor several, nor None")
        except Exception as error:  # noqa: BLE001  as above
            self._note_processor_error(managed, error)
            return [record]
        finally:
            self._handles_errors = False
        return made

    def _note_processor_error(self, managed: ManagedPlugin, error: Exception) -> None:
        if not self._handles_errors:
            self._on_error(managed.name, error)
        if managed.error is None:
            managed.error = f"{type(error).__name__}: {error}"
            logger.warning(
                "the processor %r failed: %s; its records reach %r unchanged",
                managed.name, error, self.name, exc_info=error,
            )  # fmt: skip

    def _deliver(self, batch: _Batch) -> bool:
        """Send a batch, for as long as it takes; whether all of it is done with."""
        while True:
            try:
                self._send(batch)
            except _RetryError as outage:
                self._cursor.save()
                if not self._wait_for_retry(outage.error):
                    return False
            else:
                batch.arrived(0, self._cursor)  # Entries without a record of their own.
                self._cursor.save()
                self._over_the_outage()
                return True

    def _send(self, batch: _Batch) -> None:
        """Send what is left of a batch; where the backend refuses records, halve them until the bad one stands alone.

        Raises:
            _RetryError, _GaveUpError: Not all of it could be sent.
        """
        sizes: list[int] = []  # Of the calls to come, the next one last.
        while batch.left:
            records = batch.next(sizes.pop() if sizes else MAX_BATCH)
            delivered, error = self._handle(records)
            self._cursor.delivered += delivered
            batch.arrived(delivered, self._cursor)
            if error is None:
                continue
            left = len(records) - delivered
            verdict = judge(error)
            if verdict is Verdict.REJECT and left > 1:
                # After some have arrived it is most likely the next one: it goes alone.
                first = 1 if delivered else left // 2
                sizes += [left - first, first]
            elif verdict is Verdict.REJECT and left:
                self._reject(batch, records[-1], error)
            else:
                self._note_error(error)
                if verdict is Verdict.GIVE_UP:
                    raise _GaveUpError(error) from error
                if verdict is Verdict.RETRY:
                    raise _RetryError(error) from error

    def _handle(self, records: Sequence[MetricData]) -> tuple[int, BaseException | None]:
        """Hand records to the backend: how many have arrived, and what went wrong with the others."""
        self._handles_errors = any(record.name == PLUGIN_ERRORS_NAME for record in records)
        try:
            self._backend.handle_batch(records)
        except PartialDeliveryError as error:
            return max(0, min(error.delivered, len(records))), error.__cause__ or error
        except Exception as error:  # noqa: BLE001  a plug-in may raise anything; `_send` judges it
            return 0, error
        finally:
            self._handles_errors = False
        return len(records), None

    def _reject(self, batch: _Batch, record: MetricData, reason: BaseException) -> None:
        self._note_error(reason, about=record)
        self._cursor.reject(record, reason)
        batch.arrived(1, self._cursor)
        level = logging.WARNING if self._cursor.rejected <= _REJECTIONS_SHOWN else logging.DEBUG
        logger.log(level, "%r rejected the record %r: %s (see rejected.jsonl)", self.name, record.name, reason)

    # -- outages -------------------------------------------------------------------------------------------------------

    def _note_error(self, error: BaseException, about: MetricData | None = None) -> None:
        self._errors += 1
        self._last_error = f"{type(error).__name__}: {error}"
        if about is None or about.name != PLUGIN_ERRORS_NAME:  # As in `emit_metric`.
            self._on_error(self.name, error)

    def emit_metric(self, metric: MetricData) -> None:
        """Record what a plug-in says about itself.

        An error in handling the record of an error makes no further one: that would go on for ever.
        """
        if not (self._handles_errors and metric.name == PLUGIN_ERRORS_NAME):
            self._emit(metric)

    def _wait_for_retry(self, error: BaseException) -> bool:
        """Wait before the next attempt; False where the run has ended and there is no more time for one."""
        if not self._in_outage:
            self._in_outage = True
            logger.warning(
                "%r is not reachable (%s: %s); the records wait in the journal", self.name, type(error).__name__, error
            )
        delay_s = self._backoff.next_delay_s()
        while not self._stop_requested:
            began_s = time.monotonic()
            self._wake.wait(delay_s)  # `flush` wakes too.
            self._wake.clear()
            delay_s -= time.monotonic() - began_s
            if delay_s <= 0:
                return True
        self._drain_attempts -= 1
        delay_s = min(1.0, self._deadline_s - time.monotonic())
        if self._drain_attempts < 0 or delay_s <= 0:
            return False
        time.sleep(delay_s)
        return True

    def _over_the_outage(self) -> None:
        self._backoff.reset()
        self._managed.error = None
        if self._in_outage:
            self._in_outage = False
            logger.warning("%r is reachable again", self.name)

    # -- the end -------------------------------------------------------------------------------------------------------

    def _complete(self, flushes: int) -> None:
        """The backend has got all that the journal had: those who waited for that may go on."""
        if not flushes:
            return
        try:
            self._backend.flush()
        except Exception as error:
            self._note_error(error)
            logger.warning("flush() of %r failed: %s", self.name, error, exc_info=True)
            self._answer(flushes, False)
        else:
            self._answer(flushes, True)

    def _answer(self, flushes: int, complete: bool) -> None:
        """Tell the first ones who wait. At the end two threads may do so: each answer is given by one of them."""
        for _ in range(flushes):
            try:
                done = self._flushes.popleft()
            except IndexError:
                return
            done.set_result(complete)

    def _stop_plugins(self) -> None:
        for managed in (self._managed, *self._processors):
            try:
                managed.stop()
            except Exception as error:
                self._on_error(managed.name, error)
                logger.warning("stop() of %r failed: %s", managed.name, error, exc_info=True)


class _OutcomeError(Exception):
    """Ends a `_send` early."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


@final
class _RetryError(_OutcomeError):
    """The backend is away."""


@final
class _GaveUpError(_OutcomeError):
    """The user has to act."""
