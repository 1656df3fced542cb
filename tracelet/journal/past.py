"""What a reader has read before it came to its positions. Called on one thread at a time: that of a delivery worker."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from tracelet.journal.delivered import DeliveredRecords
from tracelet.journal.directory import RunDirectory
from tracelet.journal.format import log_name
from tracelet.journal.reader import Entry, Position, WriterReader, first_line

_ENTRIES: Final = 4096


def entries_before(run: RunDirectory, positions: Mapping[str, Position]) -> Iterator[Entry]:
    """The entries up to the positions as they were delivered, writer by writer, the oldest writer first.

    Raises:
        OSError, JournalError: A file can't be read.
    """
    delivered = DeliveredRecords(run.path)
    for writer in sorted(positions, key=lambda writer: _birth_ns(run, writer)):
        reader, end = WriterReader(run.path, writer), positions[writer]
        passed = False
        while not passed and (entries := reader.read(_ENTRIES)):
            for entry in entries:
                after = entry.after
                if entry.line is not None:
                    if after.line_bytes <= end.line_bytes:
                        yield delivered.of(writer, entry)
                elif (after.segment, after.slot) <= (end.segment, end.slot):
                    yield delivered.of(writer, entry)
                else:  # All lines that had been read by then were written before this scalar.
                    passed = True
                    break


def _birth_ns(run: RunDirectory, writer: str) -> int:
    born = (first_line(run.path / log_name(writer)) or {}).get("time_ns")
    return born if isinstance(born, int) else 0
