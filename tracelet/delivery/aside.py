"""Hands a run's artifacts to one backend beside all else, so that a large one holds back no metric.

Threads:
    tracelet-<backend>             The worker's: `start`, `split`, `wake`, `check`, `drain`, `close`.
    tracelet-<backend>-artifacts   `_run`: the only caller of `handle_artifact`.
    any                            `hurry`.

Only for a backend with `uploads_aside`; the artifacts of all others go with everything else. The worker sets them aside
when all before them has arrived: they are in the `Cursor` then, and leave it when the backend has taken or rejected
them. Guarantee: at least once, one after the other and in their order; the end of the run is told after all of them. An
outage here is no outage for the metrics, and the reverse.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, final

from tracelet.core.plugins import BackendPlugin
from tracelet.core.records import MetricData, MetricType
from tracelet.delivery.cursor import Cursor
from tracelet.delivery.retry import Backoff, Verdict, judge
from tracelet.delivery.sending import GaveUpError
from tracelet.errors import PartialDeliveryError
from tracelet.utils.text import in_a_line

logger = logging.getLogger(__name__)

_LONGEST_DELAY_AT_THE_END_S: Final = 1.0


@final
class ArtifactLane:
    """See the module docstring."""

    def __init__(
        self,
        backend: BackendPlugin,
        name: str,
        cursor: Cursor,
        note_error: Callable[[BaseException, MetricData | None], None],
        on_change: Callable[[], None],
        backoff: Backoff,
    ) -> None:
        """Nothing is called yet.

        Args:
            backend: Who takes the artifacts.
            name: What it is called.
            cursor: Keeps what waits.
            note_error: Told of each error.
            on_change: Called when an artifact is done with, and at the end.
            backoff: The delays between attempts.
        """
        self._backend = backend
        self._name = name
        self._cursor = cursor
        self._note_error = note_error
        self._on_change = on_change
        self._backoff = backoff
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._hurried = False
        self._in_outage = False
        self._attempts = float("inf")  # Left where the backend is away.
        self._fault: BaseException | None = None

    # -- the worker's thread -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin with what an earlier delivery has left."""
        if self._backend.uploads_aside or self._cursor.aside:
            self._thread = threading.Thread(target=self._run, name=f"tracelet-{self._name}-artifacts", daemon=True)
            self._thread.start()

    def split(self, records: Sequence[MetricData]) -> tuple[Sequence[MetricData], Sequence[MetricData]]:
        """The records that go with all else, and those that are to be set aside."""
        if not self._backend.uploads_aside or not any(map(_is_upload, records)):
            return records, ()
        return [one for one in records if not _is_upload(one)], [one for one in records if _is_upload(one)]

    def wake(self) -> None:
        """There may be something in the cursor."""
        if self._cursor.aside:
            self._notify()

    def hurry(self) -> None:
        """Somebody waits: where the backend is away, one attempt is due at once."""
        self._hurried = True
        self._notify()

    def check(self) -> None:
        """Look for an end that nobody asked for.

        Raises:
            GaveUpError: Nothing will work before the user acts.
        """
        if self._fault is not None:
            raise GaveUpError(self._fault) from self._fault

    @property
    def is_empty(self) -> bool:
        """Whether the backend has got, or rejected, all that was set aside."""
        return not self._cursor.aside

    def drain(self, deadline_s: float, attempts: float) -> bool:
        """Wait until it is empty; False where there is no time for that, or the backend stays away.

        Args:
            deadline_s: By the monotonic clock.
            attempts: How often to try again where the backend is away.

        Raises:
            GaveUpError: As `check`.
        """
        self._attempts = attempts
        self.hurry()
        with self._changed:
            while not self.is_empty and self._is_running() and (left_s := deadline_s - time.monotonic()) > 0:
                self._changed.wait(min(left_s, threading.TIMEOUT_MAX))
        self.check()
        return self.is_empty

    def close(self) -> None:
        """Begin with nothing more. What is under way then may reach the backend, and is sent again all the same."""
        with self._cursor.lock:
            self._closed = True
        self._notify()

    def _is_running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    # -- the lane's thread ---------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._closed and self._attempts >= 0:
                with self._changed:
                    self._changed.wait_for(lambda: self._closed or self._cursor.aside)
                if not self._closed:
                    self._hand_over(self._cursor.aside[0].record)
        except BaseException as error:  # noqa: BLE001  the worker takes it up: see `check`
            self._fault = error
        finally:
            self._thread = None  # For `drain`: while its thread says so, it is still alive.
            self._changed_by_lane()

    def _hand_over(self, record: MetricData) -> None:
        try:
            self._backend.handle_artifact(record)
        except Exception as error:  # noqa: BLE001  a plug-in may raise anything; it is judged
            cause = (isinstance(error, PartialDeliveryError) and error.__cause__) or error
            match judge(cause):
                case Verdict.REJECT:
                    self._done(record, cause)
                case Verdict.RETRY:
                    self._note_error(cause, None)
                    self._wait_for_retry(record, cause)
                case Verdict.GIVE_UP:
                    self._note_error(cause, None)
                    raise cause from None  # From itself, it would be its own cause.
        else:
            self._backoff.reset()
            self._in_outage = False
            self._done(record, None)

    def _done(self, record: MetricData, reason: BaseException | None) -> None:
        """The backend has taken an artifact, or refuses it for this reason."""
        if reason is not None:
            self._note_error(reason, record)
            logger.warning(
                "%r rejected the artifact %r: %s (see rejected.jsonl)", self._name, record.name, in_a_line(reason)
            )
        with self._cursor.lock:
            if self._closed:  # Another process may deliver by now, and the cursor is its.
                return
            if reason is None:
                self._cursor.took(1)
            else:
                self._cursor.reject(record, reason)
            del self._cursor.aside[0]
            self._cursor.save()
        self._changed_by_lane()

    def _wait_for_retry(self, record: MetricData, error: BaseException) -> None:
        delay_s = self._backoff.next_delay_s()
        if not self._in_outage:
            self._in_outage = True
            logger.warning(
                "%r can't take the artifact %r now (%s); it waits on the disk",
                self._name, record.name, in_a_line(error),
            )  # fmt: skip
        is_ending = self._attempts != float("inf")
        if is_ending:
            self._attempts -= 1
            delay_s = min(delay_s, _LONGEST_DELAY_AT_THE_END_S) if self._attempts >= 0 else 0.0
        with self._changed:
            self._hurried = self._hurried and not is_ending
            self._changed.wait_for(lambda: self._closed or self._hurried, delay_s)
            self._hurried = False

    def _changed_by_lane(self) -> None:
        self._notify()
        self._on_change()


def _is_upload(record: MetricData) -> bool:
    """Whether it is an artifact, and not what a processor made of one."""
    return record.type is MetricType.ARTIFACT and isinstance(record.value, (str, os.PathLike))
