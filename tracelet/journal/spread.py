"""The ranks of a run side by side: who is behind, and how a metric spreads over them at each step.

Called by `Run`, on the reader's own thread. One rank at a time is in memory, beside four columns for the result: eight
ranks of a million points take some 2 s and 400 MB.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast, final

from tracelet.core.records import MetricType
from tracelet.journal.live import LiveLine
from tracelet.journal.status import RunStatus
from tracelet.journal.written import first_rank, ranks_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tracelet.journal.load import Run, Series
    from tracelet.journal.part import WriterPart


@final
@dataclass(frozen=True, slots=True)
class Spread:
    """A metric over the ranks, a row a step that any of them has. All arrays have the shape (n,).

    Attributes:
        name: The metric's name.
        steps: int64, ascending.
        count: int64: how many ranks have the step.
        min: float64, without the NaN.
        mean: float64; NaN where one rank has a NaN.
        max: float64, without the NaN.
    """

    name: str
    steps: NDArray[np.int64]
    count: NDArray[np.int64]
    min: NDArray[np.float64]
    mean: NDArray[np.float64]
    max: NDArray[np.float64]


@final
@dataclass(frozen=True, slots=True)
class RankState:
    """How one rank stands.

    Attributes:
        rank: Its number.
        host: Where its process runs.
        pid: Its process there.
        status: `finished` is one that ended in order, whatever the run's own status.
        last_step: The highest step among its last records; None without any.
        last_s: When it wrote its last record: Unix time in seconds.
        behind: How many steps it is behind the rank that has come furthest.
        step_s: The median time of a step, in seconds, over the last thousand; None where that can't be told.
        late_s: By how much it comes to a step after the first rank that does, in seconds, the median over the same
            steps. Clocks of hosts that are not synchronised count in.
    """

    rank: int
    host: str
    pid: int | None
    status: RunStatus
    last_step: int | None
    last_s: float
    behind: int
    step_s: float | None
    late_s: float | None


class Ranked(ABC):
    """What `Run` says of ranks."""

    @property
    @abstractmethod
    def _writers(self) -> list[WriterPart]:
        """All writers of the run, the oldest first."""

    def ranks_of(self, name: str) -> list[int]:
        """The ranks of the processes that have recorded a metric, ascending."""
        return ranks_of(self._writers, name)

    def spread(self, name: str) -> Spread:
        """How a metric spreads over the ranks at each step: the smallest value, the mean, the largest.

        Raises:
            KeyError: As `series`.
        """
        return spread(cast("Run", self), name)

    @functools.cached_property
    def _live_line(self) -> LiveLine:
        return LiveLine(self._writers)

    @property
    def has_ranks(self) -> bool:
        """Whether another process than the first rank has recorded something."""
        return any(writer.rank for writer in self._writers)

    @functools.cached_property
    def ranks(self) -> list[RankState]:
        """How each process stands that has a rank, and which of them is behind; rank 0 alone of a run of one."""
        writers: dict[int, list[WriterPart]] = defaultdict(list)
        for writer in self._writers:
            writers[writer.rank].append(writer)
        return rank_states(cast("Run", self), writers, self._live_line)

    def _first_rank(self, name: str) -> int:
        """Whose points of a series are the main line."""
        return first_rank(self._writers, name)


_STEPS: Final = 1000  # What is looked at for the times.


def spread(run: Run, name: str) -> Spread:
    """A metric over all ranks that have it, by the points that hold.

    Raises:
        KeyError: As `Run.series`.
    """
    import numpy as np

    points = [_last_of_steps(run.live(name, rank)) for rank in run.ranks_of(name)] or [_last_of_steps(run.live(name))]
    steps = np.unique(np.concatenate([series_steps for series_steps, _ in points]))
    count = np.zeros(len(steps), np.int64)
    low, total, high = np.full(len(steps), np.nan), np.zeros(len(steps)), np.full(len(steps), np.nan)
    for series_steps, values in points:
        at = np.searchsorted(steps, series_steps)
        count[at] += 1
        total[at] += values
        low[at], high[at] = np.fmin(low[at], values), np.fmax(high[at], values)
    return Spread(name, steps, count, low, total / count, high)


def rank_states(run: Run, writers: Mapping[int, list[WriterPart]], line: LiveLine) -> list[RankState]:
    """How each rank stands; the writers by rank, the oldest first."""
    last_steps = {rank: _last_step(parts, line) for rank, parts in writers.items()}
    furthest = max((step for step in last_steps.values() if step is not None), default=0)
    step_s, late_s = _times(run)
    states = []
    for rank, parts in sorted(writers.items()):
        own = next((part for part in reversed(parts) if part.role == ("attached" if rank else "main")), parts[-1])
        process = own.facts.get("process")
        facts: Mapping[str, Any] = process if isinstance(process, Mapping) else {}
        pid, last_step = facts.get("pid"), last_steps[rank]
        states.append(
            RankState(
                rank=rank,
                host=str(facts.get("host", "")),
                pid=pid if isinstance(pid, int) else None,
                status=_status(run, rank, parts),
                last_step=last_step,
                last_s=max(part.last_s for part in parts),
                behind=0 if last_step is None else furthest - last_step,
                step_s=step_s.get(rank),
                late_s=late_s.get(rank),
            )
        )
    return states


def _status(run: Run, rank: int, parts: list[WriterPart]) -> RunStatus:
    if rank == 0 and any(part.role == "main" for part in parts):
        return run.status
    if any(part.is_at_work for part in parts):
        return RunStatus.RUNNING
    return RunStatus.FINISHED if parts[-1].closed else RunStatus.KILLED


def _last_step(parts: list[WriterPart], line: LiveLine) -> int | None:
    return max((step for part in parts for _, step, _ in part.latest(line).values()), default=None)


def _times(run: Run) -> tuple[dict[int, float], dict[int, float]]:
    """Time of a step and lateness of each rank, by the metric that most of them have most points of."""
    import numpy as np

    shared = [name for name in run.names(MetricType.SCALAR) if len(run.ranks_of(name)) > 1]
    if not shared:
        return {}, {}
    reference = max(shared, key=lambda name: (len(run.ranks_of(name)), len(run.series(name))))
    times: dict[int, dict[int, float]] = {}
    for rank in run.ranks_of(reference):
        series = run.live(reference, rank)
        times[rank] = dict(zip(series.steps[-_STEPS:].tolist(), series.times_s[-_STEPS:].tolist(), strict=True))
    step_s = {rank: found_s for rank in times if (found_s := _step_s(times[rank])) is not None}
    common = sorted(set.intersection(*map(set, times.values())))
    if not common:
        return step_s, {}
    table = np.array([[by_step[step] for step in common] for by_step in times.values()])
    late = np.median(table - table.min(axis=0), axis=1)
    return step_s, dict(zip(times, late.tolist(), strict=True))


def _step_s(times: dict[int, float]) -> float | None:
    import numpy as np

    steps, times_s = np.array(sorted(times)), np.array([times[step] for step in sorted(times)])
    return float(np.median(np.diff(times_s) / np.diff(steps))) if len(steps) > 1 else None


def _last_of_steps(series: Series) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The steps, each once and ascending, with the value that was logged last."""
    import numpy as np

    steps, at = np.unique(series.steps[::-1], return_index=True)
    return steps, series.values[::-1][at]
