"""A place in the journal, and whether a backend has come past it: before a file that it may still need is deleted.

Called on any thread, of any process that sees the run directory: it reads what delivery keeps on the disk, so it does
not matter where delivery runs. Guarantee: True only after the backend has got every line that was there at the mark.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

from tracelet.delivery.cursor import Cursor
from tracelet.journal.directory import delivery_directory, own_files
from tracelet.journal.format import writer_of_log
from tracelet.journal.reader import Position


@final
@dataclass(frozen=True, slots=True)
class JournalMark:
    """How long the logs were: each line of a log, that of an artifact say, before it is before the mark."""

    log_bytes: Mapping[str, int]

    @classmethod
    def now(cls, run_dir: Path) -> JournalMark:
        """The end of the journal as it is.

        Raises:
            OSError: It can't be read.
        """
        writers = {name: writer for name in own_files(run_dir) if (writer := writer_of_log(name))}
        return cls({writer: os.stat(run_dir / name).st_size for name, writer in writers.items()})

    def is_passed_by(self, run_dir: Path, backend: str) -> bool:
        """Whether a backend has got, or rejected, all that is before the mark."""
        cursor = Cursor(delivery_directory(run_dir, backend))
        if any(item.line_bytes <= self.log_bytes.get(item.writer, 0) for item in cursor.aside):
            return False
        positions = cursor.positions
        return all(positions.get(writer, Position()).line_bytes >= size for writer, size in self.log_bytes.items())
