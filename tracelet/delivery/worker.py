"""Delivers one run's journal to one backend.

Threads:
    the user's threads           `Experiment.log_metric()` → the journal. They never come here, nor wait for a backend.
    tracelet-<backend>           `_run`: the only caller of the backend, its processors and its cursor.
    tracelet-<backend>-artifacts Hands over artifacts beside all else, where the backend can do that: see `aside`.
    tracelet-<backend>-reader    Reads the journal ahead where the backend catches up: see `ahead`.
    the experiment's             `start`, `request_stop`, `join`, `flush`, `get_stats`.

States, each entered once and in this order:
    NEW → CONNECTING → DELIVERING → DRAINING → ENDED      (from any of them to ENDED, where the user has to act first)

Delivery is at least once: the cursor moves after the backend has returned, so that a kill in between sends that batch
again. Order is the order of the journal; the end of the run comes after all else. What can't be delivered stays in the
journal for a later start or `tracelet sync`. Of several processes one delivers, the one that has the `Lease`.
"""

from __future__ import annotations

import copy
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Final, final

from tracelet.core.plugins import BackendPlugin, ManagedPlugin, PluginState
from tracelet.core.records import MetricData
from tracelet.delivery.ahead import ReadAhead
from tracelet.delivery.aside import ArtifactLane
from tracelet.delivery.backlog import backlog
from tracelet.delivery.batch import Batch
from tracelet.delivery.cursor import Cursor
from tracelet.delivery.lease import Lease
from tracelet.delivery.processing import PluginSink, ProcessorChain
from tracelet.delivery.report import DeliveryReport
from tracelet.delivery.retry import Backoff, Verdict, judge
from tracelet.delivery.sending import AwayError, GaveUpError, Sender
from tracelet.delivery.stats import WorkerState, WorkerStats
from tracelet.errors import JournalError, RejectedError
from tracelet.journal.delivered import DeliveryReader
from tracelet.journal.directory import RunDirectory, delivery_directory
from tracelet.utils.text import in_a_line

logger = logging.getLogger(__name__)

POLL_S: Final = 0.2  # The longest time that a record waits before its worker looks at the journal.
DRAIN_ATTEMPTS: Final = 3  # When the run has ended, an outage is not waited for without limit.
LAG_WARNING_S: Final = 60.0  # A backend that falls behind by as much as this is slower than the training.
_REPORT_INTERVAL_S: Final = 1.0


@final
class DeliveryWorker:
    """See the module docstring for threads, states and guarantees."""

    def __init__(
        self,
        managed: ManagedPlugin,
        run: RunDirectory,
        *,
        facts: Mapping[str, Any],
        accepts: Callable[[MetricData], bool],
        processors: Sequence[ManagedPlugin] = (),
        emit: Callable[[MetricData], None],
        on_error: Callable[[str, BaseException], None],
        backoff: Backoff | None = None,
        is_live: bool = True,
    ) -> None:
        """Make a worker; nothing is called yet.

        Args:
            managed: The backend.
            run: What is delivered.
            facts: What the run is, for the plug-in's `initialize`.
            accepts: The routing rules: whether this backend gets a record.
            processors: Copies of the processors for this backend alone.
            emit: Takes the records that the plug-ins make about themselves.
            on_error: Told of each error, with the plug-in's name, on the worker's thread.
            backoff: The delays between attempts.
            is_live: Whether the run is being recorded: only then is a backend that falls behind worth a warning.
        """
        assert isinstance(managed.plugin, BackendPlugin)
        self.name = managed.name
        self._managed = managed
        self._backend = managed.plugin
        self._run_directory = run
        self._directory = delivery_directory(run.path, managed.name)
        self._lease = Lease(self._directory)
        self._cursor = Cursor(self._directory)
        self._reader = self._new_reader()
        self._facts = facts
        self._accepts = accepts
        self._sink = PluginSink(emit, on_error)
        self._processors = processors
        self._chain = ProcessorChain(processors, self.name, self._sink)
        self._sender = Sender(self._backend, self.name, self._cursor, self._sink, self._note_error)
        self._backoff = backoff or Backoff()
        self._is_live = is_live
        self._state = WorkerState.NEW
        self._ending: Callable[[], MetricData | None] = _nothing
        self._end_told: str | None = None
        self._drain_attempts: float = DRAIN_ATTEMPTS
        self._deadline_s = float("inf")  # By the monotonic clock.
        self._in_outage = False
        self._unreadable = False
        self._was_full = False  # Whether the last batch had as many records as one may have.
        self._errors = 0
        self._last_error: str | None = None
        self._last_time_s: float | None = None  # When the record was made that was delivered last.
        self._lag_limit_s: float | None = None  # Beyond it a warning is due; None until something has been delivered.
        self._warned_of_lag = False
        self._report_due_s = 0.0  # By the monotonic clock.
        self._flushes: deque[Future[bool]] = deque()
        self._wake = threading.Event()
        self._lane = ArtifactLane(
            self._backend, self.name, self._cursor, self._note_error, self._wake.set, copy.deepcopy(self._backoff)
        )
        self._stop_requested = False
        self._thread = threading.Thread(target=self._run, name=f"tracelet-{self.name}", daemon=True)

    # -- the experiment's thread ---------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread."""
        self._state = WorkerState.CONNECTING
        self._thread.start()

    def request_stop(
        self,
        timeout_s: float,
        ending: Callable[[], MetricData | None] | None = None,
        attempts: float = DRAIN_ATTEMPTS,
    ) -> None:
        """Deliver what is there and end. Returns at once; see `join`.

        Args:
            timeout_s: For how long, in seconds.
            ending: Gives the end of the run, to be told to the backend last; None where the run goes on. Called on the
                worker's thread, when all else has been delivered.
            attempts: How often to try again where the backend is away.
        """
        self._ending, self._drain_attempts = ending or _nothing, attempts
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
        self._lane.hurry()
        if self._state is WorkerState.ENDED:  # After the append: so either this line or the thread's last ones see it.
            self._answer(len(self._flushes), not self.waiting())
        return done

    def get_stats(self) -> WorkerStats:
        """How it stands."""
        waiting = self.waiting()
        return WorkerStats(
            state=self._state.value,
            delivered=self._cursor.delivered,
            rejected=self._cursor.rejected,
            waiting=waiting,
            lag_s=self._lag_s() if waiting else 0.0,
            errors=self._errors,
            last_error=self._last_error,
            url=self._url(),
        )

    def waiting(self) -> int:
        """Records in the journal that the backend has not got, filtered ones included."""
        end_is_due = self._ending is not _nothing and self._end_told is None
        waiting = backlog(self._run_directory.path, dict(self._cursor.positions)) + len(self._cursor.aside)
        return waiting or int(end_is_due)

    @property
    def gave_up(self) -> bool:
        """Whether nothing more will be delivered before the user acts."""
        return self._state is WorkerState.ENDED and self._managed.error is not None

    @property
    def goes_on(self) -> None:
        """Nobody: it ends with this process."""

    # -- the worker's thread -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            if self._take_over() and self._connect():
                self._lane.start()
                self._deliver_all()
        except GaveUpError as end:
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
            self._reader.close()
            self._lane.close()
            self._stop_plugins()
            if self._lease.is_held:
                self._cursor.save()
                self._enter(WorkerState.ENDED)
                self._lease.release()
            self._state = WorkerState.ENDED
            self._answer(len(self._flushes), False)

    def _enter(self, state: WorkerState) -> None:
        """Go to the next state, and say so."""
        if self._state is not state:
            self._state = state
            self._report()

    def _take_over(self) -> bool:
        """Become the one who delivers; False where the run has ended and another process still does."""
        has_said_so = False
        while not self._acquire():
            if not has_said_so:
                has_said_so = True
                logger.warning(
                    "another process delivers the run %s to %r; waiting", self._facts.get("run_id"), self.name
                )
            if time.monotonic() >= self._deadline_s:
                return False
            self._wake.wait(POLL_S)
            self._wake.clear()
        self._cursor.reload()
        self._cursor.closed = None
        self._reader = self._new_reader()
        self._cursor.save()
        self._report()
        return True

    def _new_reader(self) -> ReadAhead:
        return ReadAhead(DeliveryReader(self._run_directory, self._cursor.positions), self.name)

    def _acquire(self) -> bool:
        try:
            return self._lease.acquire()
        except OSError as error:  # A full disk, say: then there is nobody to be kept out either, and nothing is kept.
            logger.debug("the delivery to %r takes no lock: %s", self.name, error)
            return True

    def _connect(self) -> bool:
        """Initialise and start the processors and the backend, for as long as it takes; whether it worked."""
        self._backend.attach(self._sink)
        self._chain.start(self._facts)
        self._chain.recall(self._run_directory, self._cursor.positions, self._accepts)
        while True:
            flushes = len(self._flushes)
            try:
                if self._managed.state is PluginState.REGISTERED:
                    self._managed.initialize(self._facts)
                if self._managed.state is PluginState.INITIALIZED:
                    self._managed.start()
            except Exception as error:
                self._note_error(error)
                # Whatever a connection fails with may pass: only what says that it won't ends it.
                if judge(error) is Verdict.GIVE_UP or isinstance(error, RejectedError):
                    raise GaveUpError(error) from error
                if not self._wait_for_retry(error, flushes):
                    return False
            else:
                self._over_the_outage()
                return True

    def _deliver_all(self) -> None:
        while time.monotonic() < self._deadline_s:
            # Asked before the journal is read: what comes after that may not be seen any more.
            self._lane.check()
            asked, flushes = self._stop_requested, len(self._flushes)
            self._enter(WorkerState.DRAINING if asked else WorkerState.DELIVERING)
            try:
                batch = self._next_batch()
                self._unreadable = False
            except (OSError, JournalError) as error:
                if not self._unreadable:
                    self._unreadable = True
                    logger.warning("the journal can't be read for %r: %s", self.name, error)
                batch, flushes = None, 0
            if batch is None:
                if asked and not self._lane.drain(self._deadline_s, self._drain_attempts):
                    return
                if self._lane.is_empty:
                    self._complete(flushes)
                if asked:
                    self._tell_end()
                    return
                self._wake.wait(POLL_S)
                self._wake.clear()
            elif not self._deliver(batch):
                return
            elif not self._was_full and not asked:  # Gather some: a request for each step would keep a tracker busy.
                self._wake.wait(POLL_S)
                self._wake.clear()

    def _tell_end(self) -> None:
        """Tell the backend how the run ended, where it has."""
        record = self._ending()
        if record is None:
            self._ending = _nothing
            return
        batch = Batch()
        batch.add(self._chain.end(record))
        if self._deliver(batch):
            self._end_told = str(record.value)

    def _next_batch(self) -> Batch | None:
        """What to send next, after routing and processors; None where the journal has nothing new.

        Raises:
            OSError, JournalError: It can't be read now.
        """
        entries = self._reader.read(self._backend.max_batch)
        if not entries:
            return None
        self._was_full = len(entries) >= self._backend.max_batch
        batch = Batch()
        for writer, entry in entries:
            made = self._chain.take(entry.record, self._accepts)
            now, aside = (made, ()) if entry.line is None else self._lane.split(made)
            batch.add(now)
            batch.mark(writer, entry.after, aside)
        return batch

    def _deliver(self, batch: Batch) -> bool:
        """Send a batch, for as long as it takes; whether all of it is done with."""
        while True:
            flushes = len(self._flushes)
            try:
                self._sender.send(batch)
            except AwayError as outage:
                self._cursor.save()
                if not self._wait_for_retry(outage.error, flushes):
                    return False
            else:
                batch.arrived(0, self._cursor)  # Entries without a record of their own.
                self._cursor.save()
                self._lane.wake()
                self._over_the_outage()
                self._note_lag(batch)
                return True

    # -- outages -------------------------------------------------------------------------------------------------------

    def _note_error(self, error: BaseException, about: MetricData | None = None) -> None:
        self._errors += 1
        self._last_error = in_a_line(error)
        self._report_due_s = 0.0
        self._sink.note_error(self.name, error, about)

    def _wait_for_retry(self, error: BaseException, flushes: int) -> bool:
        """Wait for the next attempt; False where there is no time for one. `flushes` were asked for before the last."""
        self._report()
        if not self._in_outage:
            self._in_outage = True
            logger.warning("%r takes no records now (%s); they wait in the journal", self.name, in_a_line(error))
        delay_s = self._backoff.next_delay_s()
        while not self._stop_requested:
            began_s = time.monotonic()
            self._wake.wait(delay_s)
            self._wake.clear()
            delay_s -= time.monotonic() - began_s
            if delay_s <= 0 or len(self._flushes) > flushes:  # Somebody waits: one attempt is due at once.
                return True
        self._drain_attempts -= 1
        longest_s = 1.0 if self._drain_attempts < DRAIN_ATTEMPTS else self._backoff.next_delay_s()
        delay_s = min(longest_s, self._deadline_s - time.monotonic())
        if self._drain_attempts < 0 or delay_s <= 0:
            return False
        time.sleep(delay_s)
        return True

    def _over_the_outage(self) -> None:
        self._backoff.reset()
        self._managed.error = None
        if self._in_outage:
            self._in_outage = False
            self._lag_limit_s = None
            logger.warning("%r takes records again", self.name)

    # -- how it stands -------------------------------------------------------------------------------------------------

    def _lag_s(self) -> float:
        return 0.0 if self._last_time_s is None else max(0.0, time.time() - self._last_time_s)

    def _note_lag(self, batch: Batch) -> None:
        """Say it once where the backend falls behind the run, and not only behind an outage."""
        self._last_time_s = batch.last_time_s or self._last_time_s
        lag_s = self._lag_s()
        if self._lag_limit_s is None:
            self._lag_limit_s = lag_s + LAG_WARNING_S
        if self._is_live and not self._warned_of_lag and not self._stop_requested and lag_s > self._lag_limit_s:
            self._warned_of_lag = True
            logger.warning(
                "%r takes records more slowly than the run makes them: it is %.0f s and %d records behind. They wait "
                "on the disk, not in memory; what is left at the end, tracelet sync sends",
                self.name, lag_s, self.waiting(),
            )  # fmt: skip
        if time.monotonic() >= self._report_due_s:
            self._report()

    def _report(self) -> None:
        """Put how it stands where `tracelet status` and other processes read it."""
        self._report_due_s = time.monotonic() + _REPORT_INTERVAL_S
        DeliveryReport(
            state=self._state.value,
            pid=os.getpid(),
            errors=self._errors,
            last_error=self._last_error,
            url=self._url(),
            details=self._details(),
            written_s=time.time(),
        ).write(self._directory)

    def _url(self) -> str | None:
        try:
            return self._backend.get_url()
        except Exception as error:  # noqa: BLE001  a plug-in may raise anything; no URL is known then
            logger.debug("get_url() of %r failed: %s", self.name, error)
            return None

    def _details(self) -> dict[str, Any]:
        return {name: value for name, value in self._managed.get_status().items() if name not in ("type", "error")}

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
                self._sink.note_error(managed.name, error)
                logger.warning("stop() of %r failed: %s", managed.name, error, exc_info=True)
            else:
                if managed is self._managed:
                    self._cursor.closed = self._end_told


def _nothing() -> None:
    """The run goes on."""
