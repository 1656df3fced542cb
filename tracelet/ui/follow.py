"""The points of the runs that are being looked at, kept in memory and brought up to date at each question.

Called on the server's threads; a run is read by one of them at a time. Bounded: the runs that nobody has asked for the
longest are forgotten first, where all together hold more points than `MAX_POINTS`.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, final

import numpy as np

from tracelet.core.records import MetricType
from tracelet.journal.columns import Columns, joined
from tracelet.journal.directory import own_files
from tracelet.journal.format import log_name, segments_by_writer
from tracelet.journal.live import LiveLine
from tracelet.journal.load import Series
from tracelet.journal.reader import WriterReader, first_line
from tracelet.journal.written import Written, in_order, ranks_of, writers_of
from tracelet.ui.columns import ScalarFollower

logger = logging.getLogger(__name__)

MAX_POINTS: Final = 12_000_000
"""Of all runs together, 24 bytes each: 290 MB. One run alone may have more."""
_SCALARS: Final = (MetricType.SCALAR, MetricType.SYSTEM)


@final
class _Writer(Written):
    """One writer's segments and log."""

    def __init__(self, directory: Path, writer: str) -> None:
        self.facts: Mapping[str, Any] = {}
        self.scalars = ScalarFollower(directory, writer)
        self.lines: dict[str, list[tuple[int, float, float]]] = defaultdict(list)  # Scalars that came as lines.
        self.reader = WriterReader(directory, writer)
        self._log = directory / log_name(writer)
        self._last_line_s = 0.0

    def read(self, segments: list[int]) -> int:
        """Take in what has come; the number of lines."""
        self.facts = self.facts or first_line(self._log) or {}  # A log that has just been made may still be empty.
        self.scalars.read(segments)
        count = 0
        for _, record in self.reader.lines():
            count += 1
            if record is None:
                continue
            self._last_line_s = record.timestamp or self._last_line_s
            if record.type in _SCALARS:
                self.lines[record.name].append((record.iteration or 0, float(record.value), record.timestamp or 0.0))
        return count

    @property
    def last_s(self) -> float:
        """See the base class."""
        return max(self.scalars.last_s, self._last_line_s) or self.born_ns / 1e9

    def has(self, name: str) -> bool:
        """See the base class."""
        return name in self.lines or any(key in self.scalars.series for key in self._keys(name))

    def columns(self, name: str) -> Columns:
        """See the base class. Lines are put between the other points by their times."""
        parts = [self.scalars.series[key].columns() for key in self._keys(name) if key in self.scalars.series]
        if name in self.lines:
            steps, values, times_s = zip(*self.lines[name], strict=True)
            parts.append(Columns(np.array(steps, np.int64), np.array(values, float), np.array(times_s, float)))
        columns = joined(parts)
        return columns if len(parts) == 1 else columns.take(np.argsort(columns.times_s, kind="stable"))

    def _keys(self, name: str) -> list[int]:
        series = self.reader.series.items()
        return [key for key, (known, kind, _) in series if known == name and kind in _SCALARS]


@final
class FollowedRun:
    """A run whose points are kept. See the module docstring."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._writers: dict[str, _Writer] = {}
        self._lines = 0

    def refresh(self) -> None:
        """Take in what has come since the last time."""
        with self._lock:
            for writer, indices in segments_by_writer(own_files(self._path)).items():
                if writer not in self._writers:
                    self._writers[writer] = _Writer(self._path, writer)
                try:
                    self._lines += self._writers[writer].read(sorted(indices))
                except OSError as error:
                    logger.warning("a log is left out: %s", error)

    @property
    def points(self) -> int:
        """How many points it holds."""
        return sum(writer.scalars.points for writer in list(self._writers.values()))

    @property
    def version(self) -> int:
        """Another number whenever something has come."""
        return self.points + self._lines

    @property
    def damage(self) -> tuple[int, set[str]]:
        """How many points can't be read, and which files."""
        scalars = [writer.scalars for writer in list(self._writers.values())]
        return sum(each.damaged for each in scalars), set().union(*(each.unreadable for each in scalars))

    def names(self) -> dict[str, tuple[MetricType, int]]:
        """The kind of each series, and how many points it has."""
        found: dict[str, tuple[MetricType, int]] = {}
        with self._lock:
            for writer in self._writers.values():
                for key, (name, kind, _) in writer.reader.series.items():
                    if kind in _SCALARS:
                        count = len(writer.scalars.series.get(key, ()))
                        found[name] = (kind, found.get(name, (kind, 0))[1] + count)
                for name, lines in writer.lines.items():
                    kind, count = found.get(name, (MetricType.SCALAR, 0))
                    found[name] = (kind, count + len(lines))
        return found

    def ranks(self, name: str) -> list[int]:
        """The processes that have a series, by rank."""
        with self._lock:
            return ranks_of(self._writers.values(), name)

    def series(self, name: str, rank: int | None = None, *, superseded: bool = False) -> Series:
        """A series; an empty one where the run has none of this name.

        Args:
            name: The series.
            rank: Of the process. None: the first one that has it, as `Run.series`.
            superseded: Also the points that a run which resumed from an earlier step has computed again.
        """
        with self._lock:
            writers = in_order(self._writers.values())
            chosen = writers_of(writers, name, rank)
            if superseded:
                return Series(name, *joined([writer.columns(name) for writer in chosen]))
            return Series(name, *LiveLine(writers).columns(name, chosen))


@final
class Followed:
    """The runs that are being looked at."""

    def __init__(self, max_points: int = MAX_POINTS) -> None:
        self._max_points = max_points
        self._lock = threading.Lock()
        self._runs: OrderedDict[Path, FollowedRun] = OrderedDict()

    def __len__(self) -> int:
        return len(self._runs)

    def of(self, path: Path) -> FollowedRun:
        """The points of a run, as they are now."""
        with self._lock:
            run = self._runs.setdefault(path, FollowedRun(path))
            self._runs.move_to_end(path)
        run.refresh()
        with self._lock:
            total = sum(each.points for each in self._runs.values())
            while total > self._max_points and len(self._runs) > 1:
                _, oldest = self._runs.popitem(last=False)
                total -= oldest.points
        return run
