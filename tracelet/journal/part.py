"""One writer's part of a run, as analysis reads it: its log when it is made, its segments when a series is asked for.

Called by `journal.load` on the reader's own thread; nothing here writes.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

from tracelet.core.records import MetricData, MetricType
from tracelet.journal.columns import Columns, ScalarTable, read_tail
from tracelet.journal.format import log_name
from tracelet.journal.live import LiveLine, Point
from tracelet.journal.ranks import prefix_of
from tracelet.journal.reader import Damage, WriterReader, first_line, place_of
from tracelet.journal.status import RunStatus, tell_status
from tracelet.journal.written import Written
from tracelet.utils.values import bounded

if TYPE_CHECKING:
    pass

logger = logging.getLogger(__name__)

UNKNOWN: Final = "key#"
"""A series whose definition was lost goes by its key."""

SCALARS: Final = (MetricType.SCALAR, MetricType.SYSTEM)

_Place = tuple[int, int]  # (segment, slot): a line comes after the scalars before it.


@final
class WriterPart(Written):
    """See the module docstring.

    Attributes:
        id: The writer's.
        series: Name, type and source of each key.
        records: What its lines hold.
        scalars: Those of the records that are points, by name, with their places.
        lost: Records that the disk did not take.
        closed: Whether it has ended.
    """

    def __init__(self, directory: Path, writer: str, segments: Sequence[int], damage: Damage) -> None:
        """Read the log.

        Args:
            directory: The run directory.
            writer: The writer's id.
            segments: The indices of its segments.
            damage: Counts what can't be read, here and later.

        Raises:
            UnsupportedVersionError: A newer Tracelet wrote it.
        """
        reader = WriterReader(directory, writer)
        self.id = writer
        self.facts: Mapping[str, Any] = first_line(directory / log_name(writer)) or {}
        self.series = reader.series
        self.records: list[MetricData] = []
        self.scalars: dict[str, list[tuple[_Place, MetricData]]] = defaultdict(list)
        self.lost = 0
        self.closed = False
        self._directory, self._segments, self._damage = directory, sorted(segments), damage
        self._table: ScalarTable | None = None
        for fields, record in self._lines(reader):
            if record is not None:
                self.records.append(record)
                if record.type in SCALARS:
                    self.scalars[record.name].append((place_of(fields), record))
            elif fields.get("kind") in ("gap", "close"):
                lost = fields.get("lost")
                self.lost += lost if isinstance(lost, int) else 0
                self.closed |= fields["kind"] == "close"
        self._keys: dict[str, list[int]] = defaultdict(list)
        for key, (name, kind, _) in reader.series.items():
            if kind in SCALARS:
                self._keys[name].append(key)
        damage.add(reader.damage)

    @property
    def is_at_work(self) -> bool:
        """Whether it has not ended, and its process is not known to be gone."""
        log = self._directory / log_name(self.id)
        return tell_status(None, self.facts, log, closed=self.closed) is RunStatus.RUNNING

    def has(self, name: str) -> bool:
        """Whether it has defined or recorded a series of this name; on another rank also as `rank/1/name`."""
        return self._known_as(name) is not None

    def columns(self, name: str) -> Columns:
        """Its points of a series, scalars of segments and of lines in their order. Names as for `has`."""
        import numpy as np

        name = self._known_as(name) or name
        if self._table is None:
            self._table = ScalarTable(self._directory, self.id, self._segments, self._damage)
        keys = self._keys.get(name, [])
        if not keys and name.startswith(UNKNOWN) and name[len(UNKNOWN) :].isdecimal():
            keys = [int(name[len(UNKNOWN) :])]
        columns, rows = self._table.of(keys)
        lines = self.scalars.get(name)
        if not lines:
            return columns
        # Sorted stably: lines of several threads can stand in the log in another order than that of their places.
        before = np.array([self._table.rows_before(place) for place, _ in lines])
        order = np.argsort(before, kind="stable")
        at = before[order] if rows is None else np.searchsorted(rows, before[order])
        extra = [lines[index][1] for index in order]
        return Columns(
            np.insert(columns.steps, at, [bounded(r.iteration or 0) for r in extra]),
            np.insert(columns.values, at, [r.value for r in extra]),
            np.insert(columns.times_s, at, [r.timestamp or 0.0 for r in extra]),
        )

    def tail(self) -> list[tuple[float, int, int, int]]:
        """Its last few thousand scalars: see `read_tail`."""
        return read_tail(self._directory, self.id, self._segments, self._damage)

    @property
    def last_s(self) -> float:
        """See the base class."""
        times_s = [record.timestamp for record in self.records[-1:] if record.timestamp]
        return max(times_s + [time_ns / 1e9 for _, _, time_ns, _ in self.tail()[-1:]], default=self.born_ns / 1e9)

    def latest(self, line: LiveLine) -> dict[str, tuple[float, int, float]]:
        """Time, step and value of the last point of each metric that was logged lately.

        Args:
            line: Of the run: what it has superseded is left out, and times are in the order of the attempts.
        """
        found: dict[str, tuple[float, int, float]] = {}
        for name, time_s, step, value in line.points(self.attempt, list(self._lately())):
            keep_later(found, name, (time_s, step, value))
        return found

    def _lately(self) -> Iterator[Point]:
        for value, step, time_ns, key in self.tail():
            name, kind, _ = self.series.get(key, (f"{UNKNOWN}{key}", MetricType.SCALAR, None))
            if kind is MetricType.SCALAR:
                yield Point(name, time_ns / 1e9, step, value)
        for name, lines in self.scalars.items():
            for _, record in lines:
                if record.type is MetricType.SCALAR and record.iteration is not None:
                    yield Point(name, record.timestamp or 0.0, record.iteration, record.value)

    def _known_as(self, name: str) -> str | None:
        names = (name, prefix_of(self.rank) + name)
        return next((known for known in names if known in self._keys or known in self.scalars), None)

    def _lines(self, reader: WriterReader) -> Iterator[tuple[Mapping[str, Any], MetricData | None]]:
        try:
            yield from reader.lines()
        except OSError as error:
            logger.warning("a log is left out: %s", error)
            self._damage.files.append(log_name(reader.writer))


def keep_later(found: dict[str, tuple[float, int, float]], name: str, point: tuple[float, int, float]) -> None:
    """Put a point (time, step, value) under its name, unless a later one stands there."""
    if name not in found or point[0] >= found[name][0]:
        found[name] = point
