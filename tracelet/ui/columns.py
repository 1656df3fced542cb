"""The scalars of one writer as columns that grow: what came since the last look is read, and nothing twice.

Called by `follow`, one thread at a time, also while the run is being written. A point costs 24 bytes; the room that a
column has in reserve is not touched, so the kernel does not give it.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

import numpy as np

from tracelet.errors import JournalError
from tracelet.journal.columns import Columns
from tracelet.journal.format import HEADER_BYTES, RECORD_BYTES, decode_records, segment_name
from tracelet.journal.reader import read_block

if TYPE_CHECKING:
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

_BLOCK_SLOTS: Final = 1 << 16  # 2 MiB.


@final
class Growing:
    """One series of one writer."""

    def __init__(self) -> None:
        self._count = 0
        self._columns = Columns(np.empty(64, np.int64), np.empty(64), np.empty(64))

    def __len__(self) -> int:
        return self._count

    def add(self, columns: Columns) -> None:
        """Append points."""
        end = self._count + len(columns.steps)
        if end > len(self._columns.steps):
            size, old = max(end, 2 * self._count), self._columns.take(slice(self._count))
            self._columns = Columns(np.empty(size, np.int64), np.empty(size), np.empty(size))
            for column, kept in zip(self._columns, old, strict=True):
                column[: self._count] = kept
        for column, more in zip(self._columns, columns, strict=True):
            column[self._count : end] = more
        self._count = end

    def columns(self) -> Columns:
        """What is there now; a later `add` does not change it."""
        return self._columns.take(slice(self._count))


@final
class ScalarFollower:
    """All series of one writer. See the module docstring."""

    def __init__(self, directory: Path, writer: str) -> None:
        self.series: dict[int, Growing] = {}
        """By the key that the writer gave them."""
        self.points = 0
        self.last_s = 0.0
        """When the last one was recorded: Unix time in seconds."""
        self.damaged = 0
        self.unreadable: set[str] = set()
        self._directory = directory
        self._writer = writer
        self._next_slots: dict[int, int] = {}  # By segment.

    def read(self, segments: list[int]) -> None:
        """Take in what has come in the segments with these indices, ascending."""
        for index in segments[-2:] if len(segments) == len(self._next_slots) else segments:
            self._read_segment(index)

    def _read_segment(self, index: int) -> None:
        path = self._directory / segment_name(self._writer, index)
        slot = self._next_slots.setdefault(index, 0)
        try:
            slots = max(0, os.stat(path).st_size - HEADER_BYTES) // RECORD_BYTES
            while slot < slots:
                block = read_block(path, slot, min(_BLOCK_SLOTS, slots - slot))
                records, bad = decode_records(block.data)
                self._add(np.delete(records, bad) if bad else records)
                self.damaged += sum(any(records[at].tobytes()) for at in bad)
                slot += len(records)
                self._next_slots[index] = slot
                if len(records) < block.slots:
                    break
        except (OSError, JournalError) as error:
            if path.name not in self.unreadable:
                logger.warning("a segment is left out: %s", error)
                self.unreadable.add(path.name)

    def _add(self, records: NDArray[np.void]) -> None:
        if not len(records):
            return
        self.points += len(records)
        self.last_s = int(records["time_ns"][-1]) / 1e9
        keys = np.ascontiguousarray(records["key"])
        # numpy sorts 16-bit numbers by radix, several times faster than wider ones.
        order = np.argsort(keys.astype(np.uint16) if keys.max() < 1 << 16 else keys, kind="stable")
        # Field by field: numpy takes whole records four times slower.
        columns = Columns(records["step"][order], records["value"][order], records["time_ns"][order] / 1e9)
        ordered = keys[order]
        starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])).tolist()
        for start, end in zip(starts, [*starts[1:], len(ordered)], strict=True):
            key = int(ordered[start])
            if key not in self.series:
                self.series[key] = Growing()
            self.series[key].add(columns.take(slice(start, end)))
