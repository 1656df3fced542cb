"""What a backend would not hold of a run as it was logged: told before anything is sent, without a connection.

Called on the thread of whoever asks. Scalars are asked for by series and kind of value, not one by one, so that ten
million points take no longer than their reading; where there are processors, each of them sees every record.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from tracelet.core.changes import Change, ChangeKind
from tracelet.core.foreseeing import Foreseen
from tracelet.core.plugins import BackendPlugin
from tracelet.core.records import MetricData, MetricType
from tracelet.core.sync import make_orchestrator
from tracelet.journal.directory import RunDirectory
from tracelet.journal.load import Run
from tracelet.settings import TraceletSettings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SCALARS: Final = (MetricType.SCALAR, MetricType.SYSTEM)
_OTHERS: Final = tuple(kind for kind in MetricType if kind not in _SCALARS)


@final
@dataclass(slots=True)
class PlannedChange:
    """One kind of change, over all records that it happens to.

    Attributes:
        kind: What happens.
        why: The tracker's limit.
        records: How many records it happens to.
        names: Their names, in the order in which they were found, and what becomes of each where the plug-in says so.
    """

    kind: ChangeKind
    why: str
    records: int = 0
    names: dict[str, str | None] = field(default_factory=dict)


def plan_run(path: Path, backend: str, settings: TraceletSettings) -> list[PlannedChange]:
    """What would be renamed, cut, changed or dropped on the way of a run to a backend; the worst first.

    Raises:
        PluginNotFoundError, MissingDependencyError, SettingsError, PluginContractError: The backend can't be used.
        CorruptJournalError: There is no run, or it can't be read.
    """
    run = Run(path)
    orchestrator, plugins = make_orchestrator(path, [backend], settings)
    orchestrator.check()
    plugin = plugins.load(backend).plugin
    assert isinstance(plugin, BackendPlugin)
    found: dict[tuple[ChangeKind, str], PlannedChange] = {}
    steps = orchestrator.steps(backend)
    foreseen = Foreseen(RunDirectory.open(path), steps)
    for record, count in _grouped(foreseen) if steps or run.has_ranks else _examples(run):
        for change in plugin.plan(record):
            _add(found, record.name, change, count)
    for name, change, count in foreseen.changes():
        _add(found, name, change, count)
    worst_first = list(reversed(ChangeKind))
    return sorted(found.values(), key=lambda planned: (worst_first.index(planned.kind), -planned.records))


def _add(found: dict[tuple[ChangeKind, str], PlannedChange], name: str, change: Change, count: int) -> None:
    planned = found.setdefault((change.kind, change.why), PlannedChange(change.kind, change.why))
    planned.records += count
    planned.names.setdefault(name, change.becomes)


def changes_of(plugin: BackendPlugin, record: MetricData) -> dict[ChangeKind, Change]:
    """What becomes of one record, by kind."""
    return {change.kind: change for change in plugin.plan(record)}


def _examples(run: Run) -> Iterator[tuple[MetricData, int]]:
    """Records, and how many of their kind there are."""
    for kind in _SCALARS:
        for name in run.names(kind):
            series = run.series(name)
            for chosen in kinds_of_values(series.values):
                if len(chosen):
                    step, value = int(series.steps[chosen[0]]), float(series.values[chosen[0]])
                    yield MetricData(name, value, kind, step, float(series.times_s[chosen[0]])), len(chosen)
    for record in run.records(*_OTHERS):
        yield record, 1


def _grouped(records: Iterable[MetricData]) -> Iterator[tuple[MetricData, int]]:
    """The same of records that come one by one."""
    scalars: dict[tuple[str, MetricType, str], tuple[MetricData, int]] = {}
    for record in records:
        if record.type in _SCALARS:
            kind = "finite" if math.isfinite(record.value) else str(record.value)
            first, count = scalars.get((record.name, record.type, kind), (record, 0))
            scalars[record.name, record.type, kind] = first, count + 1
        else:
            yield record, 1
    yield from scalars.values()


def kinds_of_values(values: NDArray[np.float64]) -> list[NDArray[np.intp]]:
    """Where the finite values, the NaN, and the two infinities are."""
    import numpy as np

    masks = (np.isfinite(values), np.isnan(values), values == np.inf, values == -np.inf)
    return [np.flatnonzero(mask) for mask in masks]
