"""Compares what a tracker holds with what was logged, series by series, and sends what is missing.

Called on the thread of whoever asks; the backend runs on one thread of its own. A point is the same where its step and
its value are; a value that the tracker can't hold is compared as far as the backend's `plan` says. What processors
leave out is no gap: what should be there is what comes out of them.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar, final

from tracelet.core.changes import ChangeKind, StoredPoint
from tracelet.core.foreseeing import Foreseen
from tracelet.core.orchestrator import facts_of
from tracelet.core.planning import changes_of, kinds_of_values
from tracelet.core.plugins import BackendPlugin, ManagedPlugin
from tracelet.core.records import MetricData, MetricType
from tracelet.core.sync import make_orchestrator, refuse_if_leased, sync_run
from tracelet.delivery.lease import Lease
from tracelet.delivery.retry import Verdict, judge
from tracelet.errors import RetryableError, TraceletError, UsageError
from tracelet.journal.directory import RunDirectory, delivery_directory
from tracelet.journal.load import Run
from tracelet.journal.watch import RunWatch
from tracelet.settings import TraceletSettings

T = TypeVar("T")
OnWorker = Callable[[Callable[[], T]], T]


@final
@dataclass(frozen=True, slots=True)
class SeriesCheck:
    """A series, here and there.

    Attributes:
        recorded: Points that the tracker should hold.
        stored: Points that it holds.
        missing: Points that it should hold and did not.
        unexpected: Points that it holds and that were never logged, or not as often.
        repaired: How many of the missing ones are there now.
    """

    name: str
    recorded: int
    stored: int
    missing: int
    unexpected: int
    repaired: int = 0

    @property
    def is_complete(self) -> bool:
        """Whether the tracker holds all that was logged."""
        return self.missing == self.repaired


def verify_run(path: Path, backend: str, settings: TraceletSettings, *, repair: bool = True) -> list[SeriesCheck]:
    """Compare all series of a run that has ended.

    Args:
        path: The run directory.
        backend: The name of an installed backend.
        settings: What is configured for it.
        repair: First send what waits, and then what is found missing.

    Raises:
        UsageError: The run is running, or is being delivered, or the tracker can't be asked.
        RetryableError: The tracker is away.
        TraceletError: As `sync_run`.
    """
    run = RunDirectory.open(path)
    if RunWatch(run).look() is None:
        raise UsageError(f"the run {run.identity.run_id} is still running; verify it when it has ended")
    if repair:
        sync_run(path, [backend], settings)
    refuse_if_leased(run, backend)
    orchestrator, plugins = make_orchestrator(path, [backend], settings)
    orchestrator.check()
    managed = plugins.load(backend)
    with _connected(run, managed) as on_worker:
        steps = orchestrator.steps(backend)
        logged = Run(path)
        recorded = _Foreseen(Foreseen(run, steps)) if steps or logged.has_ranks else _Recorded(logged)
        check = _Check(recorded, managed, on_worker)
        return [check.series(name, kind, repair) for name, kind in check.all_series()]


@contextmanager
def _connected(run: RunDirectory, managed: ManagedPlugin) -> Iterator[OnWorker[Any]]:
    """The backend while it runs, on a thread of its own, which what is yielded calls a function on."""
    plugin = managed.plugin
    assert isinstance(plugin, BackendPlugin)
    lease = Lease(delivery_directory(run.path, managed.name))
    lease.acquire()
    with ThreadPoolExecutor(1, thread_name_prefix=f"tracelet-{managed.name}") as worker:

        def on_worker(call: Callable[[], T]) -> T:
            try:
                return worker.submit(call).result()
            except TraceletError:
                raise
            except Exception as error:
                if judge(error) is not Verdict.RETRY:
                    raise
                raise RetryableError(f"{managed.name!r} can't be asked: {type(error).__name__}: {error}") from error

        try:
            on_worker(lambda: managed.initialize(facts_of(run, managed.name)))
            on_worker(managed.start)
            yield on_worker
            end = RunWatch(run).look()
            if end is not None:
                on_worker(lambda: plugin.handle_batch([end]))
        finally:
            on_worker(managed.stop)
            lease.release()


class _Expected(NamedTuple):
    """A point that the tracker should hold; `value` is None where it holds another one in its place."""

    record: MetricData
    value: float | str | None


class _Points(Protocol):
    """The points that a tracker should hold, if it had no limits."""

    def names(self, kind: MetricType) -> Iterable[str]:
        """The series of a type."""

    def by_kind_of_value(self, name: str, kind: MetricType) -> Iterator[Iterable[MetricData]]:
        """The points of a series: the finite ones, the NaN, and the two infinities."""


@final
class _Recorded:
    """The points as they were logged."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def names(self, kind: MetricType) -> Iterable[str]:
        return self._run.names(kind)

    def by_kind_of_value(self, name: str, kind: MetricType) -> Iterator[Iterable[MetricData]]:
        series = self._run.series(name)
        for chosen in kinds_of_values(series.values):
            yield (
                MetricData(name, float(value), kind, int(step), float(time_s))
                for value, step, time_s in zip(
                    series.values[chosen], series.steps[chosen], series.times_s[chosen], strict=True
                )
            )


@final
class _Foreseen:
    """The points as the processors in front of the tracker make them."""

    def __init__(self, records: Iterable[MetricData]) -> None:
        self._series: dict[tuple[str, MetricType], list[MetricData]] = defaultdict(list)
        for record in records:
            if record.type in (MetricType.SCALAR, MetricType.SYSTEM):
                self._series[record.name, record.type].append(record)

    def names(self, kind: MetricType) -> Iterable[str]:
        return sorted(name for name, found in self._series if found is kind)

    def by_kind_of_value(self, name: str, kind: MetricType) -> Iterator[Iterable[MetricData]]:
        kinds: dict[str, list[MetricData]] = defaultdict(list)
        for record in self._series[name, kind]:
            kinds["finite" if math.isfinite(record.value) else str(record.value)].append(record)
        yield from kinds.values()


@final
class _Check:
    """The comparison of one run with one tracker."""

    def __init__(self, recorded: _Points, managed: ManagedPlugin, on_worker: OnWorker[Any]) -> None:
        assert isinstance(managed.plugin, BackendPlugin)
        self._points = recorded
        self._name = managed.name
        self._backend = managed.plugin
        self._stores_once = "idempotent" in managed.metadata.capabilities
        self._one_a_step = "one_value_a_step" in managed.metadata.capabilities
        self._on_worker = on_worker

    def all_series(self) -> Iterator[tuple[str, MetricType]]:
        """Names and types."""
        for kind in (MetricType.SCALAR, MetricType.SYSTEM):
            yield from ((name, kind) for name in self._points.names(kind))

    def series(self, name: str, kind: MetricType, repair: bool) -> SeriesCheck:
        """Compare one, and send what is missing."""
        recorded = self._recorded(name, kind)
        stored = self._stored(name)
        missing, unexpected = _difference(recorded, stored)
        repaired = 0
        if missing and repair:
            for start in range(0, len(missing), self._backend.max_batch):
                batch = missing[start : start + self._backend.max_batch]
                self._on_worker(functools.partial(self._backend.handle_batch, batch))
            self._on_worker(self._backend.flush)
            still_missing, _ = _difference(recorded, self._stored(name))
            repaired = len(missing) - len(still_missing)
        return SeriesCheck(name, len(recorded), len(stored), len(missing), unexpected, repaired)

    def _stored(self, name: str) -> Sequence[StoredPoint]:
        points: Sequence[StoredPoint] | None = self._on_worker(lambda: self._backend.read_back(name))
        if points is None:
            raise UsageError(
                f"{self._name!r} can't be asked what it holds: its tracker has no such interface, or is offline"
            )
        return points

    def _identity(self, expected: _Expected, index: int) -> Hashable:
        """Of recorded points that have the same one, the tracker holds the last."""
        record = expected.record
        if self._one_a_step:
            return record.iteration
        return (record.iteration, expected.value, int((record.timestamp or 0) * 1000)) if self._stores_once else index

    def _recorded(self, name: str, kind: MetricType) -> list[_Expected]:
        """The points that the tracker should hold."""
        points: dict[Hashable, _Expected] = {}
        index = itertools.count()
        for records in self._points.by_kind_of_value(name, kind):
            kinds: dict[ChangeKind, Any] | None = None
            for record in records:
                kinds = changes_of(self._backend, record) if kinds is None else kinds
                if ChangeKind.DROPPED in kinds:
                    break
                expected = _Expected(record, None if ChangeKind.CHANGED in kinds else _comparable(record.value))
                points[self._identity(expected, next(index))] = expected
        return list(points.values())


def _difference(recorded: Sequence[_Expected], stored: Sequence[StoredPoint]) -> tuple[list[MetricData], int]:
    """Records that are not stored, and the number of stored points that nobody recorded."""
    left: dict[int | None, Counter[float | str]] = defaultdict(Counter)
    for point in stored:
        left[point.step][_comparable(point.value)] += 1
    missing = []
    # The changed values come last, and take what is left of their step.
    for expected in sorted(recorded, key=lambda expected: expected.value is None):
        values = left[expected.record.iteration]
        found = next(iter(+values), None) if expected.value is None else expected.value
        if found is not None and values[found] > 0:
            values[found] -= 1
        else:
            missing.append(expected.record)
    return missing, sum(values.total() for values in left.values())


def _comparable(value: float) -> float | str:
    return "nan" if math.isnan(value) else value
