"""Reads a run in the order in which it was logged, from any position, also while it is being written.

Called on one thread at a time: that of a delivery worker, or of whoever loads a run. Nothing here writes, locks or maps a
file, so that any number of readers can follow a training without its noticing.

Guarantee: the records of each writer come in their order, each once, none that was never written. A record that is
damaged is skipped and counted, never an exception. Records of several writers (forked children, ranks) come writer by
writer; between them there is no order.

How lines and scalars are put together: first the scalars that are visible are read, then the lines. A line says how far
the scalars had come when it was written (`at`). So it comes after all scalars before `at`; and a scalar may go out once
all lines that were visible *after* it was read are known.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, final

from tracelet.core.records import MetricData, MetricType
from tracelet.errors import CorruptJournalError
from tracelet.journal.directory import RunDirectory
from tracelet.journal.format import (
    EMPTY_SLOT,
    HEADER_BYTES,
    RECORD_BYTES,
    SegmentHeader,
    check_version,
    decode_line,
    decode_record,
    log_name,
    segment_name,
    writer_of_log,
)

logger = logging.getLogger(__name__)

_BLOCK_SLOTS: Final = 4096
_CHUNK_BYTES: Final = 1 << 20
_MAX_LINE_BYTES: Final = 256 << 20

FILE_TYPES: Final = frozenset(
    {MetricType.ARTIFACT, MetricType.IMAGE, MetricType.FIGURE, MetricType.AUDIO, MetricType.VIDEO, MetricType.TENSOR}
)
"""Types whose value is a path inside the run directory; the journal keeps it relative, so that a run can be moved."""


@final
@dataclass(frozen=True, slots=True)
class Position:
    """How far one writer has been read: the byte in its log, and the next scalar."""

    line_bytes: int = 0
    segment: int = 0
    slot: int = 0


@final
@dataclass(slots=True)
class Damage:
    """What could not be read, so far."""

    records: int = 0  # Slots with a wrong CRC.
    holes: int = 0  # Slots that were passed over empty: pages that a power loss took.
    lines: int = 0
    files: list[str] = field(default_factory=list)  # Segments and logs that are none.

    def __bool__(self) -> bool:
        return bool(self.records or self.holes or self.lines or self.files)


@final
@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that a writer wrote.

    Attributes:
        record: The record; None for the log's own lines.
        line: The fields of a line; None for a scalar of a segment.
        after: The writer's position once this entry is done with.
    """

    record: MetricData | None
    line: Mapping[str, Any] | None
    after: Position


@dataclass(frozen=True, slots=True)
class _Line:
    fields: dict[str, Any]
    at: tuple[int, int]
    end: int


@final
class WriterReader:
    """Reads one writer. See the module docstring."""

    def __init__(self, directory: Path, writer: str, position: Position | None = None) -> None:
        self.writer = writer
        self.damage = Damage()
        self._directory = directory
        self._position = Position()
        self._lines: deque[_Line] = deque()
        self._read_bytes = 0  # Of the log, up to the end of the last whole line.
        self._saw_all_lines = False
        self._slots: deque[tuple[tuple[int, int], tuple[float, int, int, int]]] = deque()
        self._next_slot = (0, 0)
        self.series: dict[int, tuple[str, MetricType, str | None]] = {}
        """Name, type and source of each key, as far as the log has been read."""
        if position is not None:
            self._seek(position)

    def read(self, limit: int) -> list[Entry]:
        """The next entries, up to `limit`; none where the writer has not come further.

        Raises:
            UnsupportedVersionError: A newer Tracelet wrote this.
            OSError: A file can't be read. Nothing is skipped: the next call tries again.
        """
        entries: list[Entry] = []
        while len(entries) < limit:
            if not self._slots:
                self._read_slots()
            if not self._saw_all_lines and len(self._lines) < limit:
                self._read_lines()
            if not self._merge(entries, limit):
                break
        return entries

    def lines(self) -> Iterator[tuple[Mapping[str, Any], MetricData | None]]:
        """The log's lines that are there now, without the segments; with the record, where a line holds one."""
        before = -1
        while before < self._read_bytes:
            before = self._read_bytes
            self._read_lines()
            while self._lines:
                fields = self._lines.popleft().fields
                yield fields, self._record(fields)

    def _merge(self, entries: list[Entry], limit: int) -> bool:
        """Move what is in order into `entries`; whether there was anything."""
        before = len(entries)
        while len(entries) < limit:
            line = self._lines[0] if self._lines else None
            if line is not None and not self._slots and self._next_slot < line.at:
                self._read_slots(until=line.at)
            slot = self._slots[0] if self._slots else None
            if slot is not None and (slot[0] < line.at if line is not None else self._saw_all_lines):
                self._slots.popleft()
                entries.append(self._scalar_entry(*slot))
            elif line is not None:
                self._lines.popleft()
                entries.append(self._line_entry(line))
            else:
                break
        return len(entries) > before

    # -- scalars -------------------------------------------------------------------------------------------------------

    def _read_slots(self, until: tuple[int, int] | None = None) -> None:
        """Queue a block of visible scalars, from the next slot on.

        Args:
            until: A line says that all before this has been written: what is empty there is a hole, and is passed over.
        """
        self._saw_all_lines = False
        while not self._slots:
            segment, slot = self._next_slot
            # Asked before the slots are read: once there is a successor, nothing is added to this one any more.
            is_last = not self._segment_path(segment + 1).exists()
            data = self._read_block(segment, slot)
            if until is not None and is_last:
                if (segment, slot) >= until:
                    return
                if not data or until[0] > segment + 1:
                    self.damage.holes += until[1] - slot if until[0] == segment else 0
                    self._next_slot = until
                    return
                if until[0] == segment:
                    data = data[: (until[1] - slot) * RECORD_BYTES]
            elif is_last and not data:
                return
            if not data:
                self._next_slot = (segment + 1, 0)
            elif not self._queue_block(data, segment, slot, may_end_here=is_last and until is None):
                return

    def _queue_block(self, data: bytes, segment: int, slot: int, *, may_end_here: bool) -> bool:
        """Queue the block's records; whether there may be more behind it."""
        count = len(data) // RECORD_BYTES
        used = -(-len(data.rstrip(b"\0")) // RECORD_BYTES)  # The slots up to the last one with anything in it.
        for index in range(used):
            record = data[index * RECORD_BYTES : (index + 1) * RECORD_BYTES]
            decoded = decode_record(record) if len(record) == RECORD_BYTES else None
            if decoded is not None:
                self._slots.append(((segment, slot + index), decoded))
            elif may_end_here and index == used - 1:
                self._next_slot = (segment, slot + index)  # It may be being copied at this moment.
                return False
            elif record == EMPTY_SLOT:
                self.damage.holes += 1
            else:
                self.damage.records += 1
        self._next_slot = (segment, slot + (used if may_end_here else max(count, used)))
        return used == count

    def _read_block(self, segment: int, slot: int) -> bytes:
        path = self._segment_path(segment)
        try:
            with open(path, "rb", buffering=0) as file:
                if slot == 0:
                    SegmentHeader.decode(file.read(HEADER_BYTES), os.fspath(path))
                file.seek(HEADER_BYTES + slot * RECORD_BYTES)
                return file.read(_BLOCK_SLOTS * RECORD_BYTES)
        except FileNotFoundError:
            return b""
        except CorruptJournalError as error:
            if path.name not in self.damage.files:
                logger.warning("a segment is left out: %s", error)
                self.damage.files.append(path.name)
            return b""

    def _segment_path(self, index: int) -> Path:
        return self._directory / segment_name(self.writer, index)

    def _scalar_entry(self, place: tuple[int, int], decoded: tuple[float, int, int, int]) -> Entry:
        value, step, time_ns, key = decoded
        self._position = Position(self._position.line_bytes, place[0], place[1] + 1)
        return Entry(self._scalar(key, value, step, time_ns), None, self._position)

    def _scalar(self, key: int, value: float, step: int, time_ns: int) -> MetricData:
        name, kind, source = self.series.get(key, (f"key#{key}", MetricType.SCALAR, None))
        return MetricData(name, value, kind, step, time_ns / 1e9, source)

    # -- lines ---------------------------------------------------------------------------------------------------------

    def _read_lines(self) -> None:
        """Read whole lines that are visible, up to a chunk."""
        with open(self._directory / log_name(self.writer), "rb", buffering=0) as file:
            file.seek(self._read_bytes)
            data, wanted, at_end = b"", _CHUNK_BYTES, False
            while not at_end and b"\n" not in data and len(data) < _MAX_LINE_BYTES:
                more = file.read(wanted)
                at_end = len(more) < wanted
                data += more
                wanted *= 2
        whole = data[: data.rfind(b"\n") + 1]
        if not whole and len(data) >= _MAX_LINE_BYTES:  # No line of ours is as long as this.
            self.damage.lines += 1
            self._read_bytes += len(data)
        for piece in whole.splitlines(keepends=True):
            self._read_bytes += len(piece)
            self._take_line(piece, self._read_bytes)
        self._saw_all_lines = at_end

    def _take_line(self, piece: bytes, end: int) -> None:
        if piece == b"\n":  # It ended a torn line.
            return
        fields = decode_line(piece)
        if fields is None:
            self.damage.lines += 1
            return
        if fields.get("kind") == "writer":
            check_version(fields.get("format"), log_name(self.writer))
        self._note_series(fields)
        self._lines.append(_Line(fields, place_of(fields), end))

    def _note_series(self, fields: Mapping[str, Any]) -> None:
        if fields.get("kind") == "series":
            key, name, source = fields.get("key"), fields.get("name"), fields.get("source")
            if isinstance(key, int) and isinstance(name, str):
                self.series[key] = (name, _type_of(fields), source if isinstance(source, str) else None)

    def _line_entry(self, line: _Line) -> Entry:
        self._position = Position(line.end, *max((self._position.segment, self._position.slot), line.at))
        return Entry(self._record(line.fields), line.fields, self._position)

    def _record(self, fields: Mapping[str, Any]) -> MetricData | None:
        """The record that a line holds; None where it holds none. Damaged fields are none too, and counted."""
        try:
            if fields.get("kind") == "scalar":
                value, step, time_ns = float(fields["value"]), int(fields["step"]), int(fields["time_ns"])
                return self._scalar(int(fields["key"]), value, step, time_ns)
            if fields.get("kind") != "record":
                return None
            kind, value = MetricType(fields["type"]), fields["value"]
            if kind in FILE_TYPES:
                value = os.fspath(self._directory / str(value))
            step = fields.get("step")
            return MetricData(
                str(fields["name"]),
                float(value) if kind in (MetricType.SCALAR, MetricType.SYSTEM) else value,
                kind,
                None if step is None else int(step),
                int(fields["time_ns"]) / 1e9,
                fields.get("source"),
                fields.get("metadata"),
            )
        except (KeyError, TypeError, ValueError) as error:
            logger.debug("a line is left out: %r", error)
            self.damage.lines += 1
            return None

    # -- from a position -------------------------------------------------------------------------------------------------

    def _seek(self, position: Position) -> None:
        """Begin at `position`. The series that were defined before it are read again."""
        before = -1
        while before < self._read_bytes < position.line_bytes:
            before = self._read_bytes
            self._read_lines()
            while self._lines and self._lines[0].end <= position.line_bytes:
                self._lines.popleft()
        self._position = position
        self._next_slot = (position.segment, position.slot)
        self._saw_all_lines = False


def place_of(fields: Mapping[str, Any]) -> tuple[int, int]:
    """(segment, slot) of a line: it was written after the scalars before this place."""
    at = fields.get("at")
    if isinstance(at, list) and len(at) == 2 and all(isinstance(part, int) and 0 <= part < 1 << 40 for part in at):
        return at[0], at[1]
    return 0, 0


def _type_of(fields: Mapping[str, Any]) -> MetricType:
    try:
        return MetricType(fields.get("type"))
    except ValueError:
        return MetricType.SCALAR


@final
class JournalReader:
    """Reads all writers of a run, those of forked children and later attempts included."""

    def __init__(self, run: RunDirectory, positions: Mapping[str, Position] | None = None) -> None:
        self.run = run
        self._start = dict(positions or {})
        self._readers: dict[str, WriterReader] = {}

    def read(self, limit: int) -> list[tuple[str, Entry]]:
        """The next entries with their writer, up to about `limit`; none where no writer has come further."""
        self._find_writers()
        found: list[tuple[str, Entry]] = []
        for writer, reader in self._readers.items():
            if len(found) >= limit:
                break
            found += [(writer, entry) for entry in reader.read(limit - len(found))]
        return found

    def __iter__(self) -> Iterator[tuple[str, Entry]]:
        """All entries that are there now."""
        while batch := self.read(_BLOCK_SLOTS):
            yield from batch

    @property
    def damage(self) -> Damage:
        """What could not be read, over all writers."""
        total = Damage()
        for reader in self._readers.values():
            total.records += reader.damage.records
            total.holes += reader.damage.holes
            total.lines += reader.damage.lines
            total.files += reader.damage.files
        return total

    def _find_writers(self) -> None:
        try:
            names = sorted(os.listdir(self.run.path))
        except OSError as error:
            logger.debug("the run directory can't be listed: %s", error)
            return
        new = [writer for name in names if (writer := writer_of_log(name)) and writer not in self._readers]
        for writer in sorted(new, key=self._birth_ns):
            self._readers[writer] = WriterReader(self.run.path, writer, self._start.get(writer))

    def _birth_ns(self, writer: str) -> int:
        """When a writer began, so that an earlier attempt comes before a later one."""
        first = first_line(self.run.path / log_name(writer))
        born = first.get("time_ns") if first else None
        return born if isinstance(born, int) else 0


def first_line(log: Path) -> dict[str, Any] | None:
    """The fields of a log's first line, which says who writes; None where it can't be read."""
    try:
        with open(log, "rb") as file:
            return decode_line(file.readline(1 << 16))
    except OSError as error:
        logger.debug("a log can't be read: %s", error)
        return None
