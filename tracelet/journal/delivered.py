"""A run's journal as the backends get it: the main line, and of other ranks what `journal.ranks` says.

Called on one thread at a time, as `JournalReader`: that of a delivery worker, or of whoever foresees what one does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, final

from tracelet.journal.directory import RunDirectory
from tracelet.journal.format import log_name
from tracelet.journal.ranks import as_delivered, rank_of
from tracelet.journal.reader import Entry, JournalReader, Position, first_line


@final
class DeliveredRecords:
    """Leaves out or renames the records of other ranks than the first. An entry that is left out has no record."""

    def __init__(self, directory: Path) -> None:
        """For the run in this directory."""
        self._directory = directory
        self._facts: dict[str, Mapping[str, Any]] = {}  # By writer; empty for those of the main line.

    def is_main(self, writer: str) -> bool:
        """Whether all records of a writer are delivered as they are."""
        if writer not in self._facts:
            facts = first_line(self._directory / log_name(writer)) or {}
            self._facts[writer] = facts if rank_of(facts) else {}
        return not self._facts[writer]

    def of(self, writer: str, entry: Entry) -> Entry:
        """What is delivered of an entry."""
        if entry.record is None or self.is_main(writer):
            return entry
        return entry._replace(record=as_delivered(entry.record, self._facts[writer]))


@final
class DeliveryReader:
    """A `JournalReader` of what is delivered."""

    def __init__(self, run: RunDirectory, positions: Mapping[str, Position] | None = None) -> None:
        """Begin at the positions, by writer; one that is missing there has not been read at all."""
        self._reader = JournalReader(run, positions)
        self._delivered = DeliveredRecords(run.path)

    def read(self, limit: int) -> list[tuple[str, Entry]]:
        """As `JournalReader.read`. Entries without a record move the cursor, and reach nobody."""
        entries = self._reader.read(limit)
        if all(self._delivered.is_main(writer) for writer in {writer for writer, _ in entries}):
            return entries
        return [(writer, self._delivered.of(writer, entry)) for writer, entry in entries]

    def __iter__(self) -> Iterator[tuple[str, Entry]]:
        """All entries that are there now."""
        while batch := self.read(4096):
            yield from batch
