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
from tracelet.journal.format import EMPTY_SLOT, HEADER_BYTES, RECORD_BYTES, decode_records, segment_name
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

        paths = [directory / segment_name(writer, index) for index in segments]
        sizes = [_slots_of(path) for path in paths]
        total = sum(sizes)
        self._columns = Columns(np.empty(total, np.int64), np.empty(total), np.empty(total))
        self._keys = np.empty(total, np.uint32)
        # The row of each place from which on slots and rows go side by side.
        self._marks: list[tuple[tuple[int, int], int]] = []
        rows = 0
        for index, path, size in zip(segments, paths, sizes, strict=True):
            rows = self._read_segment(path, index, size, rows, damage)
        self._columns = Columns(*(column[:rows] for column in self._columns))
        self._keys = self._keys[:rows]

    def of(self, keys: Sequence[int]) -> tuple[Columns, NDArray[np.int64] | None]:
        """The rows of these keys, and their numbers; None instead of the numbers means: all rows."""
        import numpy as np

        order, names, starts = self._groups
        if len(names) == 1 and names[0] in keys:
            return self._columns, None
        found = [order[starts[group] : starts[group + 1]] for group in np.flatnonzero(np.isin(names, keys))]
        rows = found[0] if len(found) == 1 else np.sort(np.concatenate([order[:0], *found]))
        return Columns(*(column[rows] for column in self._columns)), rows

    def rows_before(self, place: tuple[int, int]) -> int:
        """How many rows come before a place (segment, slot)."""
        at = bisect.bisect_right(self._marks, place, key=lambda mark: mark[0])
        if at == 0:
            return 0
        (segment, slot), row = self._marks[at - 1]
        end = self._marks[at][1] if at < len(self._marks) else len(self._keys)
        return min(end, row + place[1] - slot) if segment == place[0] else end

    @functools.cached_property
    def _groups(self) -> tuple[NDArray[np.int64], NDArray[np.uint32], NDArray[np.int64]]:
        """The rows in the order of their keys; the keys; and where each key's rows start, with the end of the last."""
        import numpy as np

        if len(self._keys) and self._keys.min() == self._keys.max():
            return np.empty(0, np.int64), self._keys[:1], np.array([0, len(self._keys)])
        # numpy sorts 16-bit numbers by radix, several times faster than wider ones.
        narrow = self._keys.astype(np.uint16) if len(self._keys) and self._keys.max() < 1 << 16 else self._keys
        order = np.argsort(narrow, kind="stable")
        ordered = self._keys[order]
        starts = np.flatnonzero(np.diff(ordered, prepend=-1.0))
        return order, ordered[starts], np.append(starts, len(ordered))

    def _read_segment(self, path: Path, index: int, size: int, rows: int, damage: Damage) -> int:
        """Read one segment into the columns from row `rows` on; the next free row."""
        import numpy as np

        holes: list[int] = []
        for start in range(0, size, _BLOCK_SLOTS):
            data = _block(path, start, min(_BLOCK_SLOTS, size - start), damage).data
            records, bad = decode_records(data)
            if len(records) == 0:
                continue
            if holes or bad ...
