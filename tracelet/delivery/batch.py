"""Records on their way to a backend. Made and used on its worker's thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import final

from tracelet.core.records import MetricData
from tracelet.delivery.cursor import Cursor
from tracelet.journal.reader import Position


@final
class Batch:
    """Records, and how far the cursor may move when the first n of them have arrived."""

    def __init__(self) -> None:
        self._records: list[MetricData] = []
        # (records that must have arrived, writer, position, artifacts to set aside then)
        self._marks: deque[tuple[int, str, Position, Sequence[MetricData]]] = deque()
        self._arrived = 0

    def add(self, records: Iterable[MetricData]) -> None:
        """Add records."""
        self._records.extend(records)

    def mark(self, writer: str, position: Position, aside: Sequence[MetricData] = ()) -> None:
        """When all that has been added so far has arrived, the writer is done with up to this position.

        The artifacts `aside`, which come from there, then go to the lane.
        """
        self._marks.append((len(self._records), writer, position, aside))

    def next(self, count: int) -> Sequence[MetricData]:
        """The next `count` records that have not arrived."""
        return self._records[self._arrived : self._arrived + count]

    def arrived(self, count: int, cursor: Cursor) -> None:
        """The next `count` records are done with."""
        self._arrived += count
        while self._marks and self._marks[0][0] <= self._arrived:
            _, writer, position, aside = self._marks.popleft()
            cursor.advance(writer, position, aside)

    @property
    def left(self) -> int:
        """How many records have not arrived."""
        return len(self._records) - self._arrived

    @property
    def last_time_s(self) -> float | None:
        """When the last record was made: Unix time in seconds."""
        return self._records[-1].timestamp if self._records else None
