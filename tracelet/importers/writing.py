"""Makes a run of Tracelet of what an importer reads.

Called by `tracelet import` on the main thread, a run after the other. The run has an identity that follows from the
source's, and the source's own times. Only what it does not hold yet is written, so that the same import again adds
nothing, one of a source that has grown adds the rest, and one that was killed goes on; of two at once the second one
is refused. The points pass through in blocks: the memory does not grow with the run. Its status comes last.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, final

from tracelet.core.importer import Item, Omitted, Points, SourceRun
from tracelet.core.intake import Intake
from tracelet.core.records import STATUS_NAME, TAG_PREFIX, MetricData, MetricType, is_status
from tracelet.delivery.lease import Lease
from tracelet.errors import JournalError, UsageError
from tracelet.importers.holdings import Holdings, Name, counted_as
from tracelet.journal.directory import RunDirectory, RunIdentity, run_id_of
from tracelet.journal.format import IDENTITY_FILE
from tracelet.journal.summary import write_summary
from tracelet.journal.writer import JournalWriter
from tracelet.settings import TraceletSettings
from tracelet.utils.media import encode_audio, encode_figure, encode_image, encode_tensor, encode_video
from tracelet.utils.values import json_like

_ENCODERS: Final[Mapping[MetricType, Callable[[Any], Any]]] = {
    MetricType.IMAGE: encode_image,
    MetricType.FIGURE: encode_figure,
    MetricType.AUDIO: lambda value: encode_audio(value, 44_100),
    MetricType.VIDEO: lambda value: encode_video(value, 4.0),
    MetricType.TENSOR: encode_tensor,
}
_FACTS: Final = (MetricType.PARAMETER, MetricType.CUSTOM)
_CHUNK: Final = 65_536

Progress = Callable[[int], None]
"""Called now and then with the number of points and records that have been read since."""


@final
@dataclass(slots=True)
class Imported:
    """What became of one run.

    Attributes:
        key: The source's identity of it.
        name: For people.
        project: Where it is kept.
        run_id: Its id here, the same for every import of it.
        path: Its directory.
        points: Points that were added.
        records: Parameters, tags, texts, files and the like that were added.
        known: Points and records that were there already.
        omitted: What could not be carried over, with how often.
    """

    key: str
    name: str
    project: str
    run_id: str
    path: Path
    points: int = 0
    records: int = 0
    known: int = 0
    omitted: Counter[Omitted] = field(default_factory=Counter)


def import_run(
    source: SourceRun,
    kind: str,
    root: Path,
    project: str | None,
    settings: TraceletSettings,
    *,
    dry_run: bool = False,
    progress: Progress = lambda _: None,
) -> Imported:
    """Import one run.

    Args:
        source: What to import.
        kind: The importer's name.
        root: The directory that holds the runs.
        project: Where to put it. None: the source's own project, or else the setting.
        settings: Of the journal, and what is redacted.
        dry_run: Read all of it, and write nothing.
        progress: See `Progress`.

    Raises:
        UsageError: Another import of it is under way, or another run is in its place.
        JournalError: It can't be written, or what is there can't be read.
    """
    project = project or source.project or settings.project
    digest = hashlib.sha256(f"{kind}\n{source.key}".encode()).digest()
    run_id, uuid = run_id_of(digest), digest[-16:].hex()
    run = RunDirectory.at(root, project, run_id, source.name)
    if not os.path.exists(run.path / IDENTITY_FILE):
        created_s = time.time() if source.created_s is None else source.created_s
        run = RunDirectory(run.path, RunIdentity(uuid, run_id, source.name, project, _ns(created_s)))
    elif run.identity.uuid != uuid:
        raise UsageError(f"{run.path} is in the place of the run to be imported. Import into another --project")
    result = Imported(source.key, source.name, project, run.identity.run_id, run.path)
    if dry_run:
        _Writing(run, settings, result, dry_run=True).take(source, kind, progress)
        return result
    run.ensure()
    lease = Lease(run.path / "import")
    if not lease.acquire():
        raise UsageError(f"another process imports the run {source.name!r} into {run.path} at this moment")
    try:
        _Writing(run, settings, result, dry_run=False).take(source, kind, progress)
    finally:
        lease.release()
    write_summary(run.path)
    return result


@final
class _Writing:
    """One import of one run."""

    def __init__(self, run: RunDirectory, settings: TraceletSettings, result: Imported, *, dry_run: bool) -> None:
        self._held = Holdings(run.path)
        self._left = self._held.counts.copy()
        """How many of each name are to be passed over, as they are in the journal already."""
        self._last_ns = self._held.last_ns
        self._created_s: float | None = None
        self._end: MetricData | None = None
        self._result = result
        self._dry_run = dry_run
        self._facts: dict[Name, MetricData] = {}
        """The last of each parameter, tag and the like. Written at the end: the ones before it may have changed."""
        self._redactor = settings.redactor()
        self._writer = JournalWriter(
            run,
            mode=settings.journal_mode,
            max_segment_bytes=settings.segment_bytes,
            sync_interval_s=settings.sync_interval_s,
            redactor=self._redactor,
        )
        self._intake = Intake(self._writer, run)

    def take(self, source: SourceRun, kind: str, progress: Progress) -> None:
        """Write what is new."""
        self._created_s = source.created_s
        try:
            for name, value in (("imported_from", kind), ("imported_id", source.key)):
                self._record(MetricData(TAG_PREFIX + name, value, MetricType.CUSTOM))
            for item in source.records():
                progress(self._take(item))
                if self._writer.lost:
                    raise JournalError(
                        f"{self._result.path} can't be written: the import ends here. Run it again later"
                    )
            self._write_facts()
            if not self._dry_run:
                self._finish()
        finally:
            self._intake.resolver.close()
            self._intake.hashing.close(60.0)
            self._writer.close()

    def _take(self, item: Item) -> int:
        match item:
            case Omitted():
                self._result.omitted[item] += 1
                return 0
            case Points():
                self._points(item)
                return len(item.steps)
            case _ if is_status(item):
                self._end = item
            case _:
                if item.timestamp is not None:
                    self._last_ns = max(self._last_ns, _ns(item.timestamp))
                self._record(item)
        return 1

    def _points(self, points: Points) -> None:
        """Write the rows that are new."""
        import numpy as np

        total = len(points.steps)
        is_new = np.ones(total, bool)
        for place, count in enumerate(np.bincount(points.places, minlength=len(points.names)).tolist()):
            name = points.type, points.names[place], points.source
            if count and (known := min(self._left[name], count)):
                self._left[name] -= known
                is_new[np.flatnonzero(points.places == place)[:known]] = False
        if total:
            self._last_ns = max(self._last_ns, int(points.times_ns.max()))
        rows = np.flatnonzero(is_new)
        self._result.known += total - len(rows)
        self._result.points += len(rows)
        if self._dry_run:
            return
        plain = points.type is MetricType.SCALAR and points.source is None
        used = set(np.unique(points.places[rows]).tolist())
        series = [
            self._writer.define(name if plain else (name, points.type, points.source)) if place in used else None
            for place, name in enumerate(points.names)
        ]
        for start in range(0, len(rows), _CHUNK):
            chunk = rows[start : start + _CHUNK]
            columns = (points.places[chunk], points.steps[chunk], points.values[chunk], points.times_ns[chunk])
            for place, step, value, time_ns in zip(*(column.tolist() for column in columns), strict=True):
                if (one := series[place]) is not None:
                    self._writer.append(one.key, step, value, time_ns)
                else:  # One series too many: see `MAX_SERIES`.
                    name, source = points.names[place], points.source
                    self._writer.write_record(name, value, points.type, step=step, time_ns=time_ns, source=source)

    def _record(self, metric: MetricData) -> None:
        """Write a record that is new."""
        name = counted_as(metric)
        if metric.type in _FACTS:
            self._facts[name] = metric
        elif self._left[name] > 0:
            self._left[name] -= 1
            self._result.known += 1
        else:
            self._write(metric)

    def _write(self, metric: MetricData) -> None:
        self._result.records += 1
        encode = _ENCODERS.get(metric.type)
        if self._dry_run:
            return
        if metric.timestamp is None:  # Else it would be the time of the import, and the run's end with it.
            metric = replace(metric, timestamp=self._created_s or self._last_ns / 1e9 or None)
        if encode is None:
            self._intake.emit(metric)
        else:
            time_ns = None if metric.timestamp is None else _ns(metric.timestamp)
            given = (metric.iteration, metric.metadata, time_ns, metric.source)
            self._intake.encoded(metric.name, metric.value, metric.type, encode, *given)

    def _write_facts(self) -> None:
        """Write those that have another value than in the journal, where they are without credentials."""
        for name, metric in self._facts.items():
            _, value, _ = self._redactor.record(metric.name, json_like(metric.value), metric.type, None)
            if name in self._held.facts and self._held.facts[name] == value:
                self._result.known += 1
            else:
                self._write(metric)

    def _finish(self) -> None:
        """The status: as the source has it, or `finished` where it says nothing. Last, wherever anything was added."""
        last_s = self._last_ns / 1e9 or self._created_s
        end = self._end or MetricData(STATUS_NAME, "finished", MetricType.CUSTOM, metadata={"assumed": True})
        end = replace(end, timestamp=end.timestamp or last_s)
        told = self._held.facts.get((MetricType.CUSTOM, STATUS_NAME, None))
        if told == end.value and not (self._result.points or self._result.records):
            return
        if self._created_s is not None and end.timestamp is not None:
            duration = {"duration_s": max(0.0, end.timestamp - self._created_s)}
            end = replace(end, metadata={**duration, **(end.metadata or {})})
        self._intake.emit(end)


def _ns(time_s: float) -> int:
    return min(max(round(time_s * 1e9), 1), (1 << 63) - 1)
