"""Reads a run in the order in which it was logged, from any position, also while it is being written.

Called on one thread at a time: that of a delivery worker, or of whoever loads a run. Nothing here writes, locks or maps
a file, so that any number of readers can follow a training without its noticing.

Guarantee: the records of each writer come in their order, each once, none that was never written. A record that is
damaged is skipped and counted, never an exception. Records of several writers (forked children, ranks) come writer by
writer; between them there is no order.

How lines and scalars are put together: a line says how far the scalars had come when it was written (`at`). So it goes
out after all visible scalars before `at`. And a scalar goes out before a line that is known to be later; or, with no
line left, once the log has been read to its end *after* the scalar was.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple, final

from tracelet.core.records import MetricData, MetricType, is_reference
from tracelet.errors import CorruptJournalError, JournalError
from tracelet.journal.directory import RunDirectory, own_files
from tracelet.journal.format import (
    HEADER_BYTES,
    RECORD_BYTES,
    SegmentHeader,
    are_whole,
    check_version,
    decode_line,
    decode_lines,
    decode_slots,
    log_name,
    segment_name,
    used_part,
    writer_of_log,
    writer_of_segment,
)

logger = logging.getLogger(__name__)

_BLOCK_SLOTS: Final = 4096
_CHUNK_BYTES: Final = 1 << 20
_MAX_LINE_BYTES: Final = 256 << 20

FILE_TYPES: Final = frozenset(
    {MetricType.ARTIFACT, MetricType.IMAGE, MetricType.FIGURE, MetricType.AUDIO, MetricType.VIDEO, MetricType.TENSOR}
)
"""Types whose value is a path inside the run directory; the journal keeps it relative, so that a run can be moved."""


class Position(NamedTuple):
    """How far one writer has been read: the byte in its log, and the next scalar."""

    line_bytes: int = 0
    segment: int = 0
    slot: int = 0


@final
@dataclass(slots=True)
class Damage:
    """What could not be read, so far.

    Attributes:
        records: Slots that hold something else than a whole record.
        holes: Slots that are empty though a later one is not: pages that a power loss took.
        lines: Lines of a log.
        files: Names of segments and logs that are missing, unreadable, or none of ours.
    """

    records: int = 0
    holes: int = 0
    lines: int = 0
    files: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.records or self.holes or self.lines or self.files)

    def add(self, other: Damage) -> None:
        """Count what `other` has counted."""
        self.records += other.records
        self.holes += other.holes
        self.lines += other.lines
        self.files += (name for name in other.files if name not in self.files)


class Entry(NamedTuple):
    """One thing that a writer wrote. A tuple, as all that is made for each record here: it costs half of a dataclass.

    Attributes:
        record: The record; None for the log's own lines.
        line: The fields of a line; None for a scalar of a segment.
        after: The writer's position once this entry is done with.
    """

    record: MetricData | None
    line: Mapping[str, Any] | None
    after: Position


class _Line(NamedTuple):
    fields: dict[str, Any]
    at: tuple[int, int]
    end: int


class _Scalar(NamedTuple):
    place: tuple[int, int]  # (segment, slot)
    value: float
    step: int
    time_ns: int
    key: int


class Block(NamedTuple):
    """A piece of a segment.

    Attributes:
        data: The slots up to the last one that has anything in it; the last may be incomplete.
        slots: How many slots the file has there, empty ones included.
    """

    data: bytes
    slots: int


def read_block(path: Path, slot: int, count: int) -> Block:
    """Read up to `count` slots of a segment, from `slot` on.

    Raises:
        OSError: The file can't be read, or is not there.
        CorruptJournalError: It is no segment.
        UnsupportedVersionError: A newer Tracelet wrote it.
    """
    with open(path, "rb", buffering=0) as file:
        SegmentHeader.decode(file.read(HEADER_BYTES), os.fspath(path))
        start = file.seek(HEADER_BYTES + slot * RECORD_BYTES)
        data = file.read(count * RECORD_BYTES)
        used = used_part(data)
        if not are_whole(used):
            # The writer may have gone on between the copying of one page and of the next. A slot that was empty then,
            # with a later one that was not, is filled now.
            file.seek(start)
            used = file.read(len(used))
        return Block(used, -(-len(data) // RECORD_BYTES))


@final
class WriterReader:
    """Reads one writer. See the module docstring."""

    def __init__(self, directory: Path, writer: str, position: Position | None = None) -> None:
        self.writer = writer
        self.damage = Damage()
        self.series: dict[int, tuple[str, MetricType, str | None]] = {}
        """Name, type and source of each key, as far as the log has been read."""
        self._directory = directory
        self._position = Position()
        self._lines: deque[_Line] = deque()
        self._read_bytes = 0  # Of the log, up to the end of the last whole line.
        self._saw_all_lines = False  # The log has been read to its end since the queued scalars were read.
        self._scalars: deque[_Scalar] = deque()
        self._next_place = (0, 0)
        self._saw_all_scalars = False  # The segments have been read to their end since the queued lines were read.
        self._sought = position

    def read(self, limit: int) -> list[Entry]:
        """The next entries, up to `limit`, or up to about a MiB of lines; none where the writer has not come further.

        Raises:
            UnsupportedVersionError: A newer Tracelet wrote this.
            OSError: A file can't be read. Nothing is skipped: the next call tries again.
        """
        if self._sought is not None:
            self._seek(self._sought)
            self._sought = None
        entries: list[Entry] = []
        end_bytes = self._position.line_bytes + _CHUNK_BYTES
        self._saw_all_lines = self._saw_all_scalars = False
        try:
            while len(entries) < limit and self._position.line_bytes < end_bytes:
                more = self._next_entries(limit - len(entries))
                if not more:
                    break
                entries += more
        except (OSError, JournalError) as error:
            if not entries:
                raise
            logger.debug("first what was read before, the next call meets it again: %s", error)
        return entries

    def _next_entries(self, limit: int) -> list[Entry]:
        """The next line, or the scalars before it; none where nothing has come."""
        while True:
            if not self._lines and not self._saw_all_lines:
                self._read_lines()
                continue
            line = self._lines[0] if self._lines else None
            if not self._scalars and not self._saw_all_scalars and (line is None or self._next_place < line.at):
                self._read_scalars()
                continue
            if self._scalars and (line is None or self._scalars[0].place < line.at):
                return self._scalar_entries(limit, None if line is None else line.at)
            return [] if line is None else [self._line_entry(self._lines.popleft())]

    def lines(self) -> Iterator[tuple[Mapping[str, Any], MetricData | None]]:
        """The log's lines that are there now, without the segments; with the record, where a line holds one."""
        before = -1
        while before < self._read_bytes:
            before = self._read_bytes
            self._read_lines()
            while self._lines:
                fields = self._lines.popleft().fields
                yield fields, self._record(fields)

    # -- scalars -------------------------------------------------------------------------------------------------------

    def _read_scalars(self) -> None:
        """Queue the next block of visible scalars."""
        while not self._scalars:
            segment, slot = self._next_place
            # Asked before the slots are read: once there is a successor, nothing is added to this one any more.
            is_last = not self._segment_path(segment + 1).exists()
            block = self._read_block(segment, slot, is_last)
            found = decode_slots(block.data)
            if is_last and found and found[-1] is None:  # It may be being copied at this moment.
                found.pop()
            if is_last and not found:
                if not block.slots and self._skip_missing(segment):
                    continue
                self._saw_all_scalars = True
                return
            for index, fields in enumerate(found):
                if fields is not None:
                    self._scalars.append(_Scalar((segment, slot + index), *fields))
                elif any(block.data[index * RECORD_BYTES : (index + 1) * RECORD_BYTES]):
                    self.damage.records += 1
                else:
                    self.damage.holes += 1
            if is_last:
                self._next_place = (segment, slot + len(found))
            elif block.slots:
                self.damage.holes += block.slots - len(found)
                self._next_place = (segment, slot + block.slots)
            else:
                self._next_place = (segment + 1, 0)
        self._saw_all_lines = False

    def _skip_missing(self, segment: int) -> bool:
        """Whether there are later segments, though not the next one; then go on there."""
        ours = (found[1] for name in own_files(self._directory) if (found := writer_of_segment(name)) is not None
                and found[0] == self.writer and found[1] > segment)  # fmt: skip
        later = min(ours, default=None)
        if later is None:
            return False
        if not self._segment_path(segment + 1).exists():
            self._leave_out(self._segment_path(segment + 1).name, "it is missing")
            self._next_place = (later, 0)
        return True

    def _read_block(self, segment: int, slot: int, is_last: bool) -> Block:
        path = self._segment_path(segment)
        try:
            return read_block(path, slot, _BLOCK_SLOTS)
        except FileNotFoundError:
            if segment > 0 or not is_last:  # The first one comes with the first scalar, maybe at this moment.
                self._leave_out(path.name, "it is missing")
        except CorruptJournalError as error:
            self._leave_out(path.name, str(error))
        return Block(b"", 0)

    def _leave_out(self, name: str, reason: str) -> None:
        if name not in self.damage.files:
            logger.warning("the file %s of the run %s is left out: %s", name, self._directory, reason)
            self.damage.files.append(name)

    def _segment_path(self, index: int) -> Path:
        return self._directory / segment_name(self.writer, index)

    def _scalar_entries(self, limit: int, end: tuple[int, int] | None) -> list[Entry]:
        """The first of the queued scalars, up to the place `end`: in one loop, since each reader's time goes here."""
        entries: list[Entry] = []
        scalars, line_bytes = self._scalars, self._position.line_bytes
        while scalars and len(entries) < limit and (end is None or scalars[0].place < end):
            (segment, slot), value, step, time_ns, key = scalars.popleft()
            record = self._scalar(key, value, step, time_ns)
            entries.append(Entry(record, None, Position(line_bytes, segment, slot + 1)))
        self._position = entries[-1].after
        return entries

    def _scalar(self, key: int, value: float, step: int, time_ns: int) -> MetricData:
        name, kind, source = self.series.get(key, (f"key#{key}", MetricType.SCALAR, None))
        return MetricData(name, value, kind, step, time_ns / 1e9, source)

    # -- lines ---------------------------------------------------------------------------------------------------------

    def _read_lines(self) -> None:
        """Queue whole lines that are visible, up to a chunk."""
        data, wanted, at_end = b"", _CHUNK_BYTES, False
        try:
            with open(self._directory / log_name(self.writer), "rb", buffering=0) as file:
                file.seek(self._read_bytes)
                while not at_end and b"\n" not in data and len(data) < _MAX_LINE_BYTES:
                    more = file.read(wanted)
                    at_end = len(more) < wanted
                    data += more
                    wanted *= 2
        except FileNotFoundError:
            at_end = True
            self._leave_out(log_name(self.writer), "it is missing")
        start = self._read_bytes
        for fields, end in decode_lines(data):
            if fields is None:
                self.damage.lines += 1
            else:
                self._take_line(fields, start + end)
            self._read_bytes = start + end
        if self._read_bytes == start and len(data) >= _MAX_LINE_BYTES:  # No line of ours is as long as this.
            self.damage.lines += 1
            self._read_bytes += len(data)
        self._saw_all_lines = at_end
        self._saw_all_scalars = self._saw_all_scalars and not self._lines

    def _take_line(self, fields: dict[str, Any], end: int) -> None:
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
        place = (self._position.segment, self._position.slot)
        if line.fields.get("kind") == "close":  # It says how far the scalars came: nothing comes before that any more.
            place = max(place, line.at)
            if self._next_place < line.at:
                self.damage.holes += line.at[1] - (self._next_place[1] if self._next_place[0] == line.at[0] else 0)
                self._next_place = line.at
        self._position = Position(line.end, *place)
        return Entry(self._record(line.fields), line.fields, self._position)

    def _record(self, fields: Mapping[str, Any]) -> MetricData | None:
        """The record that a line holds; None where it holds none. Damaged fields are none too, and counted."""
        try:
            if fields.get("kind") == "scalar":
                key, step, time_ns = int(fields["key"]), int(fields["step"]), int(fields["time_ns"])
                return self._scalar(key, float(fields["value"]), step, time_ns)
            if fields.get("kind") != "record":
                return None
            kind, value, iteration = MetricType(fields["type"]), fields["value"], fields.get("step")
            source, metadata = fields.get("source"), fields.get("metadata")
            if kind in FILE_TYPES and not is_reference(value, metadata):
                value = self._file_of_run(str(value))
            elif kind in (MetricType.SCALAR, MetricType.SYSTEM):
                value = float(value)
            return MetricData(
                str(fields["name"]),
                value,
                kind,
                None if iteration is None else int(iteration),
                int(fields["time_ns"]) / 1e9,
                source if isinstance(source, str) else None,
                metadata if isinstance(metadata, dict) else None,
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            logger.debug("a line is left out: %r", error)
            self.damage.lines += 1
            return None

    def _file_of_run(self, relative: str) -> str:
        """The absolute path of a file that a line names.

        Raises:
            ValueError: It is outside of the run directory. A run may come from a stranger, and what a record names is
                uploaded to trackers: this must not be the reader's `~/.ssh`.
        """
        path = os.path.realpath(self._directory / relative)
        if not Path(path).is_relative_to(os.path.realpath(self._directory)):
            raise ValueError(f"the path {relative!r} leads out of the run directory")
        return os.path.abspath(self._directory / relative)

    # -- from a position -----------------------------------------------------------------------------------------------

    def _seek(self, position: Position) -> None:
        """Begin at `position`. The series that were defined before it are read again."""
        before = -1
        while before < self._read_bytes < position.line_bytes:
            before = self._read_bytes
            self._read_lines()
            while self._lines and self._lines[0].end <= position.line_bytes:
                self._lines.popleft()
        self._position = position
        self._next_place = (position.segment, position.slot)


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
        """The next entries with their writer, up to `limit`; none where no writer has come further.

        Raises:
            UnsupportedVersionError: A newer Tracelet wrote a part of the run, and all else has been read.
            OSError: The same for a file that can't be read. The next call tries again.
        """
        self._find_writers()
        found: list[tuple[str, Entry]] = []
        trouble: OSError | JournalError | None = None
        for writer, reader in self._readers.items():
            try:
                found += [(writer, entry) for entry in reader.read(limit - len(found))]
            except (OSError, JournalError) as error:  # The other writers are read all the same.
                trouble = error
            if len(found) >= limit:
                break
        if trouble is not None and not found:
            raise trouble
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
            total.add(reader.damage)
        return total

    def _find_writers(self) -> None:
        try:
            names = own_files(self.run.path)
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


def first_lines(directory: Path) -> list[dict[str, Any]]:
    """Who has written a run: the first line of each log that can be read, the oldest writer first."""
    try:
        names = os.listdir(directory)
    except OSError:  # Most often there is none yet.
        return []
    lines = (first_line(directory / name) or {} for name in names if writer_of_log(name))
    return sorted(lines, key=lambda line: line["time_ns"] if isinstance(line.get("time_ns"), int) else 0)


def first_line(log: Path) -> dict[str, Any] | None:
    """The fields of a log's first line, which says who writes; None where it can't be read."""
    try:
        with open(log, "rb") as file:
            return decode_line(file.readline(1 << 16))
    except OSError as error:
        logger.debug("a log can't be read: %s", error)
        return None
