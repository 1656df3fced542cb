"""The journal's housekeeping, off the training thread.

Threads:
    tracelet-journal   `_run`: calls `writer.tend()` about once a second, and when woken.
    any thread         `wake`, `retire`: a put into a `SimpleQueue`, which is safe also in a signal handler.
    the experiment's   `start`, `stop`.

Nothing waits for this thread. Should it die, scalars and lines are written as before; only the sync to the device
(which matters at a power loss), the heartbeat and the spare segment come to a halt.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from typing import Final, Protocol, final

from tracelet.journal.segment import Segment

logger = logging.getLogger(__name__)

_STOP_TIMEOUT_S: Final = 5.0  # A device that hangs in fdatasync must not hold up the end of a training.


class Tended(Protocol):
    """What the keeper looks after: a `JournalWriter`."""

    def tend(self, heartbeat: bool) -> None:
        """One round of housekeeping."""


@final
class JournalKeeper:
    """See the module docstring for threads."""

    def __init__(self, writer: Tended, interval_s: float, heartbeat_s: float) -> None:
        self._writer = writer
        self._interval_s = interval_s
        self._heartbeat_s = heartbeat_s
        self._orders: queue.SimpleQueue[Segment | None] = queue.SimpleQueue()  # None wakes.
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="tracelet-journal", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Have a round now."""
        self._orders.put(None)

    def retire(self, segment: Segment) -> None:
        """Have a segment that takes no more records synced and closed."""
        self._orders.put(segment)

    def stop(self) -> None:
        """End the thread, after what was retired has been closed."""
        self._stopping = True
        self._orders.put(None)
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(_STOP_TIMEOUT_S)

    def close_retired(self) -> None:
        """Close what was retired when the thread had ended already, or could not be started."""
        if not self._thread.is_alive():
            self._close_retired(timeout_s=0.0)

    def _run(self) -> None:
        heartbeat_at_s = time.monotonic() + self._heartbeat_s
        while True:
            self._close_retired(self._interval_s)
            if self._stopping:
                return
            now_s = time.monotonic()
            heartbeat = now_s >= heartbeat_at_s
            if heartbeat:
                heartbeat_at_s = now_s + self._heartbeat_s
            try:
                self._writer.tend(heartbeat)
            except Exception:  # A fault of ours: it is reported, and the next round may do better.
                logger.exception("the journal's housekeeping failed")

    def _close_retired(self, timeout_s: float) -> None:
        """Wait for an order, and close the segments that came meanwhile."""
        try:
            segment = self._orders.get(timeout=timeout_s)
            while True:
                if segment is not None:
                    segment.sync()
                    segment.close()
                segment = self._orders.get_nowait()
        except queue.Empty:
            return
        except OSError as error:
            logger.warning("a full segment of the journal may not be on the device: %s", error)
