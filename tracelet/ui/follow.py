"""The points of the runs that are being looked at, kept in memory and brought up to date at each question.

Called on the server's threads; a run is read by one of them at a time. Bounded: the runs that nobody has asked for the
longest are forgotten first, where all together hold more points than `MAX_POINTS`.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Final, final

import numpy as np

from tracelet.core.records import REWIND_NAME, SEGMENT_NAME, MetricType
from tracelet.journal.columns import Columns
from tracelet.journal.directory import own_files
from tracelet.journal.format import log_name, segments_by_writer
from tracelet.journal.live import still_holds
from tracelet.journal.load import Series
from tracelet.journal.ranks import rank_of
from tracelet.journal.reader import WriterReader, first_line
from tracelet.ui.columns import ScalarFollower

logger = logging.getLogger(__name__)

MAX_POINTS: Final = 12_000_000
"""Of all runs together, 24 bytes each: 290 MB. One run alone may have more."""
_SCALARS: Final = (MetricType.SCALAR, MetricType.SYSTEM)
_NOTHING: Final = Columns(np.empty(0, np.int64), np.empty(0), np.empty(0))


@final
class _Writer:
    """One writer's segments and log."""

    def __init__(self, directory: Path, writer: str) -> None:
        self.scalars = ScalarFollower(directory, writer)
        self.lines: dict[str, list[tuple[int, float, float]]] = defaultdict(list)  # Scalars that came as lines.
        self.reader = WriterReader(directory, writer)
        self.rank = rank_of(first_line(directory / log_name(writer)) or {})

    def read(self, segments: list[int]) -> int:
        """Take in what has come; the number of lines."""
        self.scalars.read(segments)
        count = 0
        for _, record in self.reader.lines():
            count += 1
            if record is not None and record.type in _SCALARS:
                self.lines[record.name].append((record.iteration or 0, float(record.value), record.timestamp or 0.0))
        return count

    def parts(self, name: str) -> list[Columns]:
        """The pieces of a series."""
        keys = [key for key, (known, kind, _) in self.reader.series.items() if known == name and kind in _SCALARS]
        parts = [self.scalars.series[key].columns() for key in keys if key in self.scalars.series]
        if name in self.lines:
            steps, values, times_s = zip(*self.lines[name], strict=True)
            parts.append(Columns(np.array(steps, np.int64), np.array(values, float), np.array(times_s, float)))
        return parts


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
            return sorted({writer.rank for writer in self._writers.values() if writer.parts(name)})

    def series(self, name: str, rank: int | None = None, *, superseded: bool = False) -> Series:
        """A series; an empty one where the run has none of this name.

        Args:
            name: The series.
            rank: Of the process. None: the first one that has it, as `Run.series`.
            superseded: Also the points that a run which resumed from an earlier step has computed again.
        """
        whole = self._whole(name, rank)
        if superseded:
            return whole
        rewinds = self._whole(REWIND_NAME)
        if not len(rewinds):
            return whole
        segments = self._whole(SEGMENT_NAME)
        holds = still_holds(whole, rewinds, segments if len(segments) else None)
        return Series(name, whole.steps[holds], whole.values[holds], whole.times_s[holds])

    def _whole(self, name: str, rank: int | None = None) -> Series:
        wanted = next(iter(self.ranks(name)), 0) if rank is None else rank
        with self._lock:
            writers = [writer for writer in self._writers.values() if writer.rank == wanted]
            parts = [part for writer in writers for part in writer.parts(name)]
        if len(parts) == 1:
            return Series(name, *parts[0])
        columns = Columns(*map(np.concatenate, zip(_NOTHING, *parts, strict=True)))
        return Series(name, *columns.take(np.argsort(columns.times_s, kind="stable")))


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
