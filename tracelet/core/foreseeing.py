"""What the processors in front of a backend make of a run: for `plan` and `verify`, without a connection.

Called on the thread of whoever asks. The whole run goes through new processors, record by record; since they go by the
records alone, the same comes out as on the way to the backend.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import final

from tracelet.core.changes import Change, ChangeKind
from tracelet.core.records import MetricData, is_status
from tracelet.delivery.processing import ProcessorChain
from tracelet.journal.delivered import DeliveryReader
from tracelet.journal.directory import RunDirectory


@final
@dataclass(slots=True)
class _Tally:
    """What a processor has made of the records of one name."""

    came: int = 0
    changed: int = 0
    went: Counter[str] = field(default_factory=Counter)  # By the names that they have then.


@final
class Foreseen:
    """The records of a run as a backend gets them. What the processors did is known when all of them have been read."""

    def __init__(self, run: RunDirectory, steps: Sequence[ProcessorChain]) -> None:
        """Prepare it.

        Args:
            run: The run.
            steps: The processors, each in a chain of its own, started.
        """
        self._run = run
        self._steps = steps
        self._tallies: list[defaultdict[str, _Tally]] = [defaultdict(_Tally) for _ in steps]

    def __iter__(self) -> Iterator[MetricData]:
        records: Iterator[MetricData] = _records(self._run)
        for chain, tallies in zip(self._steps, self._tallies, strict=True):
            records = _through(chain, records, tallies)
        return (record for record in records if not is_status(record))

    def changes(self) -> Iterator[tuple[str, Change, int]]:
        """The name of the records, what a processor does to them, and to how many."""
        for chain, tallies in zip(self._steps, self._tallies, strict=True):
            for name, tally in tallies.items():
                yield from ((name, change, count) for change, count in _changes(chain.description, name, tally))


def _records(run: RunDirectory) -> Iterator[MetricData]:
    return (entry.record for _, entry in DeliveryReader(run) if entry.record is not None)


def _through(
    chain: ProcessorChain, records: Iterable[MetricData], tallies: defaultdict[str, _Tally]
) -> Iterator[MetricData]:
    for record in records:
        if is_status(record):  # The end of an attempt, for those behind too.
            yield from _tallied(chain.finish(), None, tallies)
            yield record
        else:
            tallies[record.name].came += 1
            yield from _tallied(chain.apply(record), record, tallies)
    yield from _tallied(chain.finish(), None, tallies)


def _tallied(
    made: Sequence[MetricData], record: MetricData | None, tallies: defaultdict[str, _Tally]
) -> Sequence[MetricData]:
    for one in made:
        is_same_point = record is not None and (one.iteration, one.timestamp) == (record.iteration, record.timestamp)
        if record is not None and is_same_point:
            tally = tallies[record.name]
            tally.changed += one.value is not record.value and repr(one.value) != repr(record.value)
            tally.went[one.name] += 1
        else:  # Of an earlier record: it has kept its name, or what stands in front of a `/`.
            name = one.name if one.name in tallies else one.name.rpartition("/")[0]
            tallies[name].went[one.name] += 1
    return made


def _changes(processor: str, name: str, tally: _Tally) -> Iterator[tuple[Change, int]]:
    others = sorted(other for other in tally.went if other != name)
    most = max(tally.went.values(), default=0)
    if most < tally.came:
        becomes = f"{most:,} of {tally.came:,}" + (f": {', '.join(others)}" if others else "") if most else None
        yield Change(ChangeKind.DROPPED, processor, becomes), tally.came - most
    elif others:
        yield Change(ChangeKind.RENAMED, processor, ", ".join(others)), tally.came
    if tally.changed:
        yield Change(ChangeKind.CHANGED, processor), tally.changed
