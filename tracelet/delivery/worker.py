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
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

from tracelet.core.plugins import BackendPlugin, ManagedPlugin, PluginState, ProcessorPlugin
from tracelet.core.records import MetricData
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
        errors: Errors of the backend so far, every attempt counted.
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
        self.records: list[MetricData] = []
        self._marks: list[tuple[int, str, Position]] = []  # (records that must have arrived, writer, position)
        self._arrived = 0

    def add(self, records: Iterable[MetricData], writer: str, position: Position) -> None:
        self.records.extend(records)
        self._marks.append((len(self.records), writer, position))

    def arrived(self, count: int, cursor: Cursor) -> None:
        """The next `count` records are done with."""
        self._arrived += count
        for needed, writer, position in self._marks:
            if needed > self._arrived:
                break
            cursor.advance(writer, position)

    @property
    def left(self) -> Sequence[MetricData]:
        return self.records[self._arrived :]


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
        self._on_error = on_error
        self._backoff = backoff or Backoff()
        self._state = WorkerState.NEW
        self._drain_attempts = DRAIN_ATTEMPTS
        self._deadline_s = float("inf")  # By the monotonic clock.
        self._in_outage = False
        self._errors = 0
        self._last_error: str | None = None
        self._flushes: list[threading.Event] = []
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

    def flush(self) -> threading.Event:
        """An event that comes when all that is in the journal now has been delivered."""
        done = threading.Event()
        self._flushes.append(done)
        self._wake.set()
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
    def delivered(self) -> int:
        """Records that the backend has taken."""
        return self._cursor.delivered

    @property
    def gave_up(self) -> bool:
        """Whether nothing more will be delivered before the user acts."""
        return self._state is WorkerState.ENDED and self._managed.error is not None

    # -- the worker's thread -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            if self._connect():
                self._state = WorkerState.DELIVERING
                self._deliver_all()
        except _GaveUpError as end:
            self._managed.fail(end.error)
            logger.error(
                "Delivery to %r has ended: %s. The journal keeps every record; mend it, then: tracelet sync %s --to %s",
                self.name, end.error, self._facts.get("run_id"), self.name,
            )  # fmt: skip
        except Exception as error:  # A fault of ours. It must not take the process's other threads along.
            self._managed.fail(error)
            logger.exception(
                "Delivery to %r has ended by a fault of Tracelet; the journal keeps every record", self.name
            )
        finally:
            self._cursor.save()
            self._stop_plugins()
            self._state = WorkerState.ENDED
            for done in self._flushes:
                done.set()

    def _connect(self) -> bool:
        """Initialise and start the backend and its processors, for as long as it takes; whether it worked."""
        while True:
            try:
                for managed in (*self._processors, self._managed):
                    if managed.state is PluginState.REGISTERED:
                        managed.initialize(self._facts)
                    if managed.state is PluginState.INITIALIZED:
                        managed.start()
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
        while True:
            asked, flushes = (
                self._stop_requested,
                tuple(self._flushes),
            )  # Before the read: what comes later may be missed.
            batch = self._next_batch()
            if batch is None:
                self._complete(flushes)
                if asked:
                    return
                self._wake.wait(POLL_S)
                self._wake.clear()
            elif not self._deliver(batch):
                return

    def _next_batch(self) -> _Batch | None:
        """What to send next, after routing and processors; None where the journal has nothing new."""
        try:
            entries = self._reader.read(MAX_BATCH)
        except (OSError, JournalError) as error:
            self._note_error(error)
            logger.warning("the journal can't be read for %r: %s", self.name, error)
            return None
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
            passed: list[MetricData] = []
            for item in records:
                try:
                    result = processor.process(item)
                    passed += [result] if isinstance(result, MetricData) else list(result or ())
                except Exception as error:
                    self._on_error(managed.name, error)
                    if managed.error is None:
                        managed.error = f"{type(error).__name__}: {error}"
                        logger.warning(
                            "the processor %r failed; its records pass unchanged", managed.name, exc_info=True
                        )
                    passed.append(item)
            records = passed
        return records

    def _deliver(self, batch: _Batch) -> bool:
        """Send a batch, for as long as it takes; whether all of it is done with."""
        while True:
            try:
                self._send(batch, len(batch.left))
            except _RetryError as outage:
                self._cursor.save()
                if not self._wait_for_retry(outage.error):
                    return False
            else:
                batch.arrived(0, self._cursor)  # Entries without a record of their own.
                self._cursor.save()
                self._over_the_outage()
                return True

    def _send(self, batch: _Batch, count: int) -> None:
        """Send the next `count` records; where the backend refuses them, halve them to find the bad one."""
        if not count:
            return
        records = batch.left[:count]
        try:
            self._backend.handle_batch(records)
        except Exception as error:
            done, cause = (
                (error.delivered, error.__cause__ or error) if isinstance(error, PartialDeliveryError) else (0, error)
            )
            done = max(0, min(done, count - 1))
            self._arrive(batch, done)
            self._note_error(cause, about=records[done])
            verdict = judge(cause)
            if verdict is Verdict.GIVE_UP:
                raise _GaveUpError(cause) from error
            if verdict is Verdict.RETRY:
                raise _RetryError(cause) from error
            left = count - done
            if done or left == 1:  # `handle_metric` failed at just this record.
                self._reject(batch, records[done], cause)
                self._send(batch, left - 1)
            else:
                self._send(batch, left // 2)
                self._send(batch, left - left // 2)
        else:
            self._arrive(batch, count)

    def _arrive(self, batch: _Batch, count: int) -> None:
        self._cursor.delivered += count
        batch.arrived(count, self._cursor)

    def _reject(self, batch: _Batch, record: MetricData, reason: BaseException) -> None:
        self._cursor.reject(record, reason)
        batch.arrived(1, self._cursor)
        level = logging.WARNING if self._cursor.rejected <= _REJECTIONS_SHOWN else logging.DEBUG
        logger.log(level, "%r rejected the record %r: %s (see rejected.jsonl)", self.name, record.name, reason)

    # -- outages -------------------------------------------------------------------------------------------------------

    def _note_error(self, error: BaseException, about: MetricData | None = None) -> None:
        self._errors += 1
        self._last_error = f"{type(error).__name__}: {error}"
        # The record of an error that is itself refused must not make another one, and so on for ever.
        if about is None or not about.name.startswith("tracelet/"):
            self._on_error(self.name, error)

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

    def _complete(self, flushes: Sequence[threading.Event]) -> None:
        """The journal has nothing new: those who waited for that may go on."""
        if self._stop_requested:
            self._state = WorkerState.DRAINING
        if not flushes:
            return
        try:
            self._backend.flush()
        except Exception as error:
            self._note_error(error)
            logger.warning("flush() of %r failed: %s", self.name, error, exc_info=True)
        for done in flushes:
            done.set()
            self._flushes.remove(done)

    def _stop_plugins(self) -> None:
        for managed in (self._managed, *self._processors):
            try:
                managed.stop()
            except Exception as error:
                self._note_error(error)
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
