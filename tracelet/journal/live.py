"""Which records of a run still hold, where it went back to an earlier step.

A training that resumes from a checkpoint of step 500 after it had come to 700 computes the steps 501 to 700 again. The
journal keeps both; the adapter that resumes records the step in the series `REWIND_NAME`, before the first new point.
Called by `Run`, on the reader's own thread, and by the page's server, on one of its threads: both show the same line.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, final

from tracelet.core.records import REWIND_NAME, SEGMENT_NAME, MetricData, MetricType
from tracelet.journal.columns import Columns, joined
from tracelet.journal.written import Written, spans_s, writers_of
from tracelet.utils.values import INT64_MIN, bounded

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_APART_S: Final = 1.0  # A mark may be older than the journal of its attempt, by the moment that it took to open it.


class _Rewind(NamedTuple):
    """The steps above `step` are superseded, as far as they were recorded from `begin_s` on and before `time_s`."""

    step: float
    begin_s: float
    time_s: float


class Point(NamedTuple):
    """One point of a series."""

    name: str
    time_s: float
    step: int
    value: float


@final
class LiveLine:
    """See the module docstring."""

    def __init__(self, writers: Sequence[Written]) -> None:
        """Of a run.

        Args:
            writers: All of the run's, in their order.
        """
        self._writers = writers

    def columns(self, name: str, writers: Iterable[Written]) -> Columns:
        """The points of a series that hold.

        Args:
            name: The series.
            writers: Those whose points are asked for, in their order.
        """
        return joined([self._that_hold(writer.attempt, writer.columns(name)) for writer in writers])

    def records(self, attempt: int, records: Sequence[MetricData]) -> list[MetricData]:
        """Those that hold. A record without a step always does, and so does an artifact: it is a version of its own.

        Args:
            attempt: The one that recorded them.
            records: Any.
        """
        if not self._rewinds:
            return list(records)
        import numpy as np

        steps = np.array([_place(record) for record in records], np.int64)
        holds = self._holds(attempt, steps, np.array([record.timestamp or 0.0 for record in records]))
        return list(itertools.compress(records, holds.tolist()))

    def points(self, attempt: int, points: list[Point]) -> list[Point]:
        """Those that hold, with times as if no clock had gone back from one attempt to the next.

        Args:
            attempt: The one that recorded them.
            points: Of any series.
        """
        if self._rewinds:
            import numpy as np

            steps = np.array([bounded(point.step) for point in points], np.int64)
            holds = self._holds(attempt, steps, np.array([point.time_s for point in points]))
            points = list(itertools.compress(points, holds.tolist()))
        delay_s = self._delays_s.get(attempt, 0.0)
        return [point._replace(time_s=point.time_s + delay_s) for point in points] if delay_s else points

    def _that_hold(self, attempt: int, columns: Columns) -> Columns:
        return columns.take(self._holds(attempt, columns.steps, columns.times_s)) if self._rewinds else columns

    def _holds(self, attempt: int, steps: NDArray[np.int64], times_s: NDArray[np.float64]) -> NDArray[np.bool_]:
        import numpy as np

        times_s = times_s + self._delays_s.get(attempt, 0.0)
        holds = np.ones(len(steps), bool)
        for step, begin_s, time_s in self._rewinds:
            holds &= (steps <= step) | (times_s >= time_s) | (times_s < begin_s)
        return holds

    @functools.cached_property
    def _rewinds(self) -> list[_Rewind]:
        """Each mark; the steps of a training before the one that it belongs to are never superseded."""
        if not any(writer.has(REWIND_NAME) for writer in self._writers):
            return []  # As most runs: their end, which looks for the last values, does without numpy.
        marks = self._marks(REWIND_NAME)
        begun_s = self._marks(SEGMENT_NAME).times_s
        return [
            _Rewind(step, max(begun_s[begun_s <= time_s], default=float("-inf")), time_s)
            for step, time_s in zip(marks.values.tolist(), marks.times_s.tolist(), strict=True)
        ]

    def _marks(self, name: str) -> Columns:
        """A series with its times as if no clock had gone back from one attempt to the next."""
        parts = [(writer.attempt, writer.columns(name)) for writer in writers_of(self._writers, name)]
        return joined([part._replace(times_s=part.times_s + self._delays_s.get(number, 0.0)) for number, part in parts])

    @functools.cached_property
    def _delays_s(self) -> dict[int, float]:
        """By how much the times of an attempt have to be later so that it comes after those before it: mostly 0."""
        if len({writer.attempt for writer in self._writers}) < 2:
            return {}
        delays_s: dict[int, float] = {}
        end_s = float("-inf")
        for attempt, (began_s, last_s) in spans_s(self._writers).items():
            delay_s = delays_s[attempt] = 0.0 if began_s > end_s else end_s - began_s + _APART_S
            end_s = max(end_s, last_s + delay_s)
        return delays_s


def _place(record: MetricData) -> int:
    """Its step; below all others where it holds whatever comes."""
    if record.iteration is None or record.type is MetricType.ARTIFACT:
        return INT64_MIN
    return bounded(record.iteration)
