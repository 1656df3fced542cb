"""Hashes the artifacts of a running run, behind the training's back.

    any thread           `put`: also signal handlers and forked children
    tracelet-hashing     completes manifests, at a low priority
    the experiment's     `drain`, `close`

Guarantee: `put` waits for nothing, and nothing is lost: a manifest that is not complete says so on the disk, and the
run's next attempt or `tracelet sync` finishes it.
"""

from __future__ import annotations

import logging
import os
import queue
import sys
import threading
from pathlib import Path
from typing import Final, final

from tracelet.errors import TraceletError
from tracelet.journal import forking
from tracelet.journal.manifests import FOLDER, Finisher, InterruptedHashError, pending

logger = logging.getLogger(__name__)

_NICENESS: Final = 10  # A tenth of a processor that is in use: with 19, `stop` would wait long on a busy machine.


@final
class Hashing:
    """See the module docstring. Its thread starts with the first artifact."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._is_closed = False
        self._reset()
        forking.watch(self)

    def _reset(self) -> None:
        self._queue: queue.SimpleQueue[Path | threading.Event | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()  # Only ever tried.

    def become_child(self) -> None:
        """In a forked child: what waits is its parent's."""
        self._reset()

    def put(self, manifest: Path) -> None:
        """Have a manifest completed."""
        self._queue.put(manifest)
        if self._thread is None and not self._is_closed and self._starting.acquire(blocking=False):
            try:
                thread = threading.Thread(target=self._work, args=(self._queue,), name="tracelet-hashing", daemon=True)
                thread.start()
                self._thread = thread
            except RuntimeError as error:  # The interpreter is on its way out, or there are too many threads.
                logger.debug("no thread can be started that hashes artifacts: %s", error)
            finally:
                self._starting.release()

    def drain(self, timeout_s: float) -> bool:
        """Wait until all that has been put is hashed; whether it was so in time."""
        if self._thread is None:
            return self._queue.empty()
        done = threading.Event()
        self._queue.put(done)
        return done.wait(max(timeout_s, 0.0))

    def put_all(self) -> None:
        """Have what an earlier attempt has left completed."""
        if (self._run / FOLDER).is_dir():
            self.put(self._run)

    def close(self, timeout_s: float) -> None:
        """End, in the middle of a file if the time is over."""
        self.drain(timeout_s)
        self._is_closed = True
        self._queue.put(None)
        if self._thread is not None:
            self._thread.join()

    def _work(self, source: queue.SimpleQueue[Path | threading.Event | None]) -> None:
        if sys.platform == "linux":  # Elsewhere it would be the whole process.
            try:
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
            except OSError as error:  # A sandbox may forbid it.
                logger.debug("artifacts are hashed at the training's priority: %s", error)
        finisher = Finisher(self._run)
        while (item := source.get()) is not None and not self._is_closed:
            if isinstance(item, threading.Event):
                item.set()
                continue
            paths = pending(self._run) if item == self._run else (item,)
            try:
                for path in paths:
                    finisher.finish(path, lambda: self._is_closed)
            except InterruptedHashError:
                return
            except (OSError, TraceletError) as error:
                logger.debug("%s stays pending: %s", item, error)
            except Exception:  # The thread goes on.
                logger.warning("%s can't be completed", item, exc_info=True)
