"""Makes the segments of one writer: chooses how they are written, sizes and numbers them, and keeps a spare one ready.

Called by `JournalWriter`: `next` under its lock, on the thread that logs; `prepare` on the keeper's thread, ahead of
the need, so that the thread that fills a segment does not wait for the filesystem. The guarantee: a segment has its
name only once its header is whole, and the numbers leave no gap.
"""

from __future__ import annotations

import logging
import os
import time
import uuid
from typing import Final, Literal, final

from tracelet.journal.directory import RunDirectory
from tracelet.journal.format import RECORD_BYTES, SegmentHeader, segment_name
from tracelet.journal.segment import CannotMapError, MappedSegment, Segment, WrittenSegment, can_map

logger = logging.getLogger(__name__)

JournalMode = Literal["auto", "map", "write"]

_FIRST_SEGMENT_BYTES: Final = 64 << 10  # 2,048 records: a short run stays small.
_GROWTH: Final = 10
"""A segment has a tenth of what was made before it: so what is unused, spare included, is at most a fifth of a run."""


@final
class SegmentSupply:
    """See the module docstring for threads."""

    def __init__(self, run: RunDirectory, writer: str, mode: JournalMode, max_segment_bytes: int) -> None:
        self._run = run
        self._writer = writer
        self._mode: JournalMode = mode
        self._max_bytes = max(max_segment_bytes, RECORD_BYTES)
        self._count = 0
        self._made_bytes = 0
        self._spare: MappedSegment | None = None

    @property
    def is_ready(self) -> bool:
        """Whether the next segment is there already, as far as segments are made ahead."""
        return self._mode != "map" or self._spare is not None

    def next(self) -> Segment:
        """The next segment, with its name.

        Raises:
            OSError: There is no room, or no place.
        """
        index = self._count
        path = self._run.path / segment_name(self._writer, index)
        spare, self._spare = self._spare, None
        mapped = spare or self._new_mapped()
        if mapped is None:
            written = WrittenSegment(path, self._header(), index)
            self._count = index + 1
            return written
        try:
            mapped.publish(path, index)
        except OSError:
            mapped.discard()
            raise
        self._count = index + 1
        return mapped

    def prepare(self) -> None:
        """Have the next segment ready.

        Raises:
            OSError: There is no room, or no place.
        """
        if not self.is_ready:
            self._spare = self._new_mapped()

    def discard(self) -> None:
        """Remove the spare segment."""
        spare, self._spare = self._spare, None
        if spare is not None:
            spare.discard()

    def let_go(self) -> None:
        """In a forked child: close the parent's spare segment, which stays the parent's."""
        spare, self._spare = self._spare, None
        if spare is not None:
            spare.close(trim=False)

    def _new_mapped(self) -> MappedSegment | None:
        """A segment without a name; None where segments are not mapped."""
        if self._mode == "auto":
            self._mode = "map" if can_map(self._run.path) else "write"
        if self._mode == "write":
            return None
        size_bytes = min(max(_FIRST_SEGMENT_BYTES, self._made_bytes // _GROWTH), self._max_bytes)
        size_bytes -= size_bytes % RECORD_BYTES
        try:
            made = MappedSegment(self._run.path, self._header(), size_bytes)
        except CannotMapError as error:
            logger.info("The run %s is written without a memory map: %s", self._run.path, error)
            self._mode = "write"
            return None
        self._made_bytes += size_bytes
        return made

    def _header(self) -> SegmentHeader:
        return SegmentHeader(bytes.fromhex(self._run.identity.uuid), uuid.uuid4().bytes, os.getpid(), time.time_ns())
