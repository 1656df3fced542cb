"""All scalars in the segments of one writer, as columns: what analysis works on.

Called by `journal.load` on the reader's own thread, also while the run is being written: then the columns hold what was
there at that moment. A block at a time is read, checked and copied into columns that were allocated once, so that ten
million points take well under a second and little more memory than their columns.
"""

from __future__ import annotations

import bisect
import functools
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, final

from tracelet.errors import CorruptJournalError
from tracelet.journal.format import HEADER_BYTES, RECORD_BYTES, decode_records, decode_slots, segment_name
from tracelet.journal.reader import Block, Damage, read_block

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

_BLOCK_SLOTS: Final = 8192  # 256 KiB: what is read, checked and copied stays in the processor's cache.
_TAIL_SLOTS: Final = 4096


class Columns(NamedTuple):
    """Scalars, a row each, in the order in which they were logged. All three have the shape (n,).

    Attributes:
        steps: int64.
        values: float64.
        times_s: float64, Unix time in seconds.
    """

    steps: NDArray[np.int64]
    values: NDArray[np.float64]
    times_s: NDArray[np.float64]

    def take(self, rows: slice | NDArray[np.intp] | NDArray[np.bool_]) -> Columns:
        """These rows alone."""
        return Columns(self.steps[rows], self.values[rows], self.times_s[rows])


def joined(parts: Sequence[Columns]) -> Columns:
    """Parts of one series, one after the other."""
    import numpy as np

    if len(parts) == 1:
        return parts[0]
    empty = Columns(np.empty(0, np.int64), np.empty(0), np.empty(0))
    return Columns(*map(np.concatenate, zip(empty, *parts, strict=True)))


@final
class ScalarTable:
    """The scalars of one writer. Read when it is made."""

    def __init__(self, directory: Path, writer: str, segments: Sequence[int], damage: Damage) -> None:
        """Read the segments.

        Args:
            directory: The run directory.
            writer: The writer's id.
            segments: The indices of its segments, ascending.
            damage: Counts what can't be read.

        Raises:
            UnsupportedVersionError: A newer Tracelet wrote one of them.
        """
        import numpy as np

        files = [_File(directory / segment_name(writer, index), index, damage) for index in segments]
        total = sum(file.slots for file in files)
        self._columns = Columns(np.empty(total, np.int64), np.empty(total), np.empty(total))
        self._keys = np.empty(total, np.uint32)
        self._marks: list[tuple[tuple[int, int], int]] = []  # From each of these places on, rows count up with slots.
        rows = 0
        for file in files:
            for start in range(0, file.slots, _BLOCK_SLOTS):
                rows = self._add(file, start, rows)
        self._columns = self._columns.take(slice(rows))
        self._keys = self._keys[:rows]

    def of(self, keys: Sequence[int]) -> tuple[Columns, NDArray[np.intp] | None]:
        """The rows of these keys, and their numbers; None instead of the numbers means: all rows."""
        import numpy as np

        order, names, starts = self._groups
        if len(names) == 1 and names[0] in keys:
            return self._columns, None
        found = [order[starts[group] : starts[group + 1]] for group in np.flatnonzero(np.isin(names, keys))]
        rows = found[0] if len(found) == 1 else np.sort(np.concatenate([order[:0], *found]))
        return self._columns.take(rows), rows

    def rows_before(self, place: tuple[int, int]) -> int:
        """How many rows come before a place (segment, slot)."""
        at = bisect.bisect_right(self._marks, place, key=lambda mark: mark[0])
        if at == 0:
            return 0
        (segment, slot), row = self._marks[at - 1]
        end = self._marks[at][1] if at < len(self._marks) else len(self._keys)
        return min(end, row + place[1] - slot) if segment == place[0] else end

    def _add(self, file: _File, start: int, row: int) -> int:
        """Copy a block into the columns from `row` on; the next free row."""
        import numpy as np

        records, bad = file.read(start)
        self._marks.append(((file.index, start), row))
        for count, slot in enumerate(bad, 1):
            self._marks.append(((file.index, start + slot + 1), row + slot + 1 - count))
        whole = np.delete(records, bad) if bad else records
        rows = slice(row, row + len(whole))
        self._columns.steps[rows] = whole["step"]
        self._columns.values[rows] = whole["value"]
        np.divide(whole["time_ns"], 1e9, out=self._columns.times_s[rows])
        self._keys[rows] = whole["key"]
        return rows.stop

    @functools.cached_property
    def _groups(self) -> tuple[NDArray[np.intp], NDArray[np.uint32], NDArray[np.intp]]:
        """The rows in the order of their keys; the keys; and where each key's rows start, with the end of the last."""
        import numpy as np

        keys = self._keys
        if len(keys) == 0 or keys.min() == keys.max():
            return np.arange(0), keys[:1], np.array([0, len(keys)])
        # numpy sorts 16-bit numbers by radix, several times faster than wider ones.
        order = np.argsort(keys.astype(np.uint16) if keys.max() < 1 << 16 else keys, kind="stable")
        ordered = keys[order]
        starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
        return order, ordered[starts], np.append(starts, len(keys))


def read_tail(
    directory: Path, writer: str, segments: Sequence[int], damage: Damage
) -> list[tuple[float, int, int, int]]:
    """The last few thousand whole records of a writer, as `decode_slots` gives them; without numpy.

    Args:
        directory: The run directory.
        writer: The writer's id.
        segments: The indices of its segments, ascending.
        damage: Counts the files that can't be read.

    Raises:
        UnsupportedVersionError: A newer Tracelet wrote one of them.
    """
    found: list[tuple[float, int, int, int]] = []
    for index in reversed(segments):
        file = _File(directory / segment_name(writer, index), index, Damage(files=damage.files))
        for start in reversed(range(0, file.slots, _BLOCK_SLOTS)):
            found[:0] = filter(None, decode_slots(file.block(start).data))
            if len(found) >= _TAIL_SLOTS:
                return found
    return found


@final
class _File:
    """A segment that is being read. One that can't be read is noted, and has no slots."""

    def __init__(self, path: Path, index: int, damage: Damage) -> None:
        self.index = index
        self.slots = 0
        self._path = path
        self._damage = damage
        self._empty = 0  # Slots since the last record: holes, if another one comes.
        try:
            read_block(path, 0, 0)
            self.slots = max(0, os.stat(path).st_size - HEADER_BYTES) // RECORD_BYTES
        except (OSError, CorruptJournalError) as error:
            self._leave_out(error)

    def block(self, start: int) -> Block:
        """The block of slots from `start` on; an empty one where it can't be read, which is noted."""
        try:
            return read_block(self._path, start, min(_BLOCK_SLOTS, self.slots - start))
        except (OSError, CorruptJournalError) as error:
            self._leave_out(error)
            return Block(b"", 0)

    def read(self, start: int) -> tuple[NDArray[np.void], list[int]]:
        """The block of slots from `start` on, as `decode_records` gives it. Counts damage, so to be called in order."""
        block = self.block(start)
        records, bad = decode_records(block.data)
        holes = [slot for slot in bad if not any(records[slot].tobytes())]
        self._damage.records += len(bad) - len(holes)
        self._damage.holes += len(holes) + (self._empty if len(records) else 0)
        self._empty = block.slots - len(records) + (0 if len(records) else self._empty)
        return records, bad

    def _leave_out(self, error: Exception) -> None:
        if self._path.name not in self._damage.files:
            logger.warning("a segment is left out: %s", error)
            self._damage.files.append(self._path.name)
