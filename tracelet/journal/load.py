"""Runs as a person or a notebook reads them: whole, as numpy arrays, from the files alone.

Called on the reader's own thread, on runs that are running, ended, killed or damaged; nothing here writes. A `Run` reads
`run.json` when it is made, the logs when parameters, tags, texts or the status are asked for, and the segments when a
series is. What was read is kept: make a new `Run` to see what has come since.
"""

from __future__ import annotations

import difflib
import functools
import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

from tracelet.core.records import DEFINE_PREFIX, STATUS_NAME, TAG_PREFIX, MetricData, MetricType
from tracelet.errors import CorruptJournalError, JournalError, RunNotFoundError
from tracelet.journal.directory import RunDirectory
from tracelet.journal.format import (
    HEADER_BYTES,
    IDENTITY_FILE,
    RECORD_BYTES,
    SegmentHeader,
    decode_records,
    log_name,
    segment_name,
    writer_of_log,
    writer_of_segment,
)
from tracelet.journal.reader import Damage, WriterReader, first_line, place_of
from tracelet.journal.status import ProcessIdentity, RunStatus

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

LATEST: Final = "latest"
_TAIL_SLOTS: Final = 4096
_UNKNOWN: Final = "key#"  # A series whose definition was lost goes by its key.
_SCALARS: Final = (MetricType.SCALAR, MetricType.SYSTEM)
_STATUS_VALUES: Final = frozenset(status.value for status in RunStatus)


@final
@dataclass(frozen=True, slots=True)
class Series:
    """One metric over the run, in the order in which it was logged.

    Attributes:
        name: The metric's name.
        steps: int64, shape (n,).
        values: float64, shape (n,); NaN and infinities as they were logged.
        times_s: float64, shape (n,): Unix time in seconds.
    """

    name: str
    steps: NDArray[np.int64]
    values: NDArray[np.float64]
    times_s: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.steps)


@final
@dataclass(slots=True)
class _Writer:
    """What one writer's log says."""

    id: str
    facts: Mapping[str, Any]  # Its first line.
    segments: Sequence[int]
    records: list[tuple[tuple[int, int], MetricData]]  # With the position of the scalars before it.
    keys: Mapping[int, tuple[str, MetricType, str | None]]
    lost: int = 0
    closed: bool = False
    columns: _Columns | None = None

    @property
    def role(self) -> str:
        return str(self.facts.get("role"))

    @property
    def born_ns(self) -> int:
        born = self.facts.get("time_ns")
        return born if isinstance(born, int) else 0


@final
class Run:
    """A recorded run. See the module docstring for what is read when."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open the run whose directory is `path`.

        Raises:
            CorruptJournalError: It is no run, or its identity is damaged.
            UnsupportedVersionError: A newer Tracelet wrote it.
        """
        self._directory = RunDirectory.open(Path(path))
        self.damage = Damage()
        """What could not be read, as far as it has been tried."""

    def __repr__(self) -> str:
        return f"<Run {self.id} {self.name!r} in {self.project!r}: {self.status.value}>"

    # -- who it is -----------------------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """The run id."""
        return self._directory.identity.run_id

    @property
    def uuid(self) -> str:
        """32 hex digits that no other run has."""
        return self._directory.identity.uuid

    @property
    def name(self) -> str:
        """The experiment's name, as it was given."""
        return self._directory.identity.name

    @property
    def project(self) -> str:
        """The project, as it was given."""
        return self._directory.identity.project

    @property
    def path(self) -> Path:
        """The run directory."""
        return self._directory.path

    @property
    def created_s(self) -> float:
        """When it was started: Unix time in seconds."""
        return self._directory.identity.created_ns / 1e9

    # -- how it stands -------------------------------------------------------------------------------------------------

    @functools.cached_property
    def status(self) -> RunStatus:
        """Whether it runs, ended, or was killed. Told without a daemon: see `journal.status`."""
        main = self._main_writer
        if main is None:
            return RunStatus.KILLED
        for _, record in reversed(main.records):
            if record.name == STATUS_NAME and record.type is MetricType.CUSTOM:
                return RunStatus(record.value) if record.value in _STATUS_VALUES else RunStatus.FINISHED
        process = main.facts.get("process")
        identity = ProcessIdentity.from_fields(process) if isinstance(process, Mapping) else None
        if not main.closed and identity is not None and identity.is_alive(self._heartbeat_age_s(main)):
            return RunStatus.RUNNING
        return RunStatus.KILLED

    @property
    def error(self) -> str | None:
        """What ended a failed run: the text of the exception."""
        return self._status_detail("error")

    @functools.cached_property
    def ended_s(self) -> float | None:
        """When it ended, or was last heard of if it was killed: Unix time in seconds. None while it runs."""
        if self.status is RunStatus.RUNNING:
            return None
        return self._last_time_s()

    @property
    def duration_s(self) -> float:
        """How long it ran, or has been running. By the monotonic clock where the run could say so itself."""
        told = self._status_detail("duration_s")
        if isinstance(told, (int, float)):
            return float(told)
        end_s = time.time() if self.ended_s is None else self.ended_s
        return max(0.0, end_s - self.created_s)

    @property
    def lost(self) -> int:
        """Records that the disk did not take, as far as the run could say so."""
        return sum(writer.lost for writer in self._writers)

    # -- what it holds -------------------------------------------------------------------------------------------------

    @functools.cached_property
    def params(self) -> dict[str, Any]:
        """The parameters, nested names joined with `/`; the value that was logged last."""
        return {record.name: record.value for record in self._of_type(MetricType.PARAMETER)}

    @functools.cached_property
    def tags(self) -> dict[str, str]:
        """The tags; the value that was set last."""
        custom = self._of_type(MetricType.CUSTOM)
        return {r.name.removeprefix(TAG_PREFIX): str(r.value) for r in custom if r.name.startswith(TAG_PREFIX)}

    @functools.cached_property
    def step_metrics(self) -> dict[str, str]:
        """Which series is the x-axis of which, as `define_metric` said."""
        defined = (r for r in self._of_type(MetricType.CUSTOM) if r.name.startswith(DEFINE_PREFIX))
        return {r.name.removeprefix(DEFINE_PREFIX): str(r.value["step"]) for r in defined if _has_step(r.value)}

    def names(self, *types: MetricType) -> list[str]:
        """The names of the series, sorted.

        Args:
            types: SCALAR and SYSTEM where none is given; of any other type, the names of its records.
        """
        wanted = set(types or (MetricType.SCALAR, MetricType.SYSTEM))
        found = {record.name for record in self._records if record.type in wanted}
        for writer in self._writers:
            found |= {name for name, kind, _ in writer.keys.values() if kind in wanted}
        return sorted(found)

    def series(self, name: str) -> Series:
        """A metric, over all writers of the run.

        Raises:
            KeyError: The run has no such metric; the text names near ones.
        """
        import numpy as np

        if name not in self.names() and not name.startswith(_UNKNOWN):
            raise KeyError(f"the run {self.id} has no series {name!r}{did_you_mean(name, self.names())}")
        parts = [self._series_of(writer, name) for writer in self._writers]
        columns = parts[0] if len(parts) == 1 else _Columns(*(np.concatenate(c) for c in zip(*parts, strict=True)))
        return Series(name, columns.steps, columns.values, columns.times_ns / 1e9)

    def latest(self) -> dict[str, tuple[int, float]]:
        """The last step and value of the series that were logged lately: quick, also in a run of millions of points.

        Series with no record among the last few thousand are left out.
        """
        found: dict[str, tuple[int, float]] = {}
        for writer in self._writers:
            for _, record in writer.records:
                if record.type is MetricType.SCALAR and record.iteration is not None:
                    found[record.name] = (record.iteration, record.value)
            data = self._tail(writer)
            if data:
                records, whole = decode_records(data)
                for value, step, _, key, _ in records[whole].tolist():
                    name, kind, _ = writer.keys.get(key, (f"key#{key}", MetricType.SCALAR, None))
                    if kind is MetricType.SCALAR:
                        found[name] = (step, value)
        return dict(sorted(found.items()))

    @property
    def last_step(self) -> int | None:
        """The highest step among `latest()`; None where no metric was logged."""
        return max((step for step, _ in self.latest().values()), default=None)

    def texts(self, name: str) -> list[tuple[int | None, str]]:
        """The texts logged under a name, with their steps."""
        return [(r.iteration, str(r.value)) for r in self._of_type(MetricType.TEXT) if r.name == name]

    def records(self, *types: MetricType) -> list[MetricData]:
        """The records of these types that are no plain scalars (images, tables, artifacts, …), as they were logged."""
        return [record for record in self._records if record.type in types]

    def frame(self, *names: str) -> pd.DataFrame:
        """The series as one table with the columns `name`, `step`, `value`, `time_s`, a row a point.

        Args:
            names: All series where none is given.

        Raises:
            MissingDependencyError: pandas is not installed.
            KeyError: The run has no such series.
        """
        from tracelet.utils.imports import require

        pandas = require("pandas", "Run.frame()", extra="parquet")
        parts = [
            pandas.DataFrame({"name": s.name, "step": s.steps, "value": s.values, "time_s": s.times_s})
            for s in map(self.series, names or self.names())
        ]
        columns = ["name", "step", "value", "time_s"]
        frame: pd.DataFrame = pandas.concat(parts, ignore_index=True) if parts else pandas.DataFrame(columns=columns)
        return frame

    # -- reading -------------------------------------------------------------------------------------------------------

    @functools.cached_property
    def _writers(self) -> list[_Writer]:
        names = os.listdir(self.path)
        segments: dict[str, list[int]] = {writer: [] for name in names if (writer := writer_of_log(name))}
        for found in filter(None, map(writer_of_segment, names)):
            segments.setdefault(found[0], []).append(found[1])
        writers = (self._read_log(writer, indices) for writer, indices in segments.items())
        return sorted(writers, key=lambda writer: writer.born_ns)

    @property
    def _main_writer(self) -> _Writer | None:
        return next((writer for writer in reversed(self._writers) if writer.role == "main"), None)

    @property
    def _records(self) -> list[MetricData]:
        return [record for writer in self._writers for _, record in writer.records]

    def _of_type(self, kind: MetricType) -> list[MetricData]:
        return [record for record in self._records if record.type is kind]

    def _read_log(self, writer_id: str, segments: Sequence[int]) -> _Writer:
        reader = WriterReader(self.path, writer_id)
        facts = first_line(self.path / log_name(writer_id)) or {}
        writer = _Writer(writer_id, facts, sorted(segments), [], reader.series)
        for fields, record in reader.lines():
            if record is not None:
                writer.records.append((place_of(fields), record))
            elif fields.get("kind") == "gap":
                writer.lost += int(fields.get("lost", 0))
            elif fields.get("kind") == "close":
                writer.closed = True
        self.damage.lines += reader.damage.lines
        return writer

    def _series_of(self, writer: _Writer, name: str) -> _Columns:
        """One writer's part of a series, scalars of segments and of lines in their order."""
        import numpy as np

        columns = self._columns(writer)
        keys = [key for key, (known, _, _) in writer.keys.items() if known == name]
        if not keys and name.startswith(_UNKNOWN) and name[len(_UNKNOWN) :].isdigit():
            keys = [int(name[len(_UNKNOWN) :])]
        mine = np.isin(columns.keys, keys) if len(keys) != 1 else columns.keys == keys[0]
        if not mine.all():
            columns = _Columns(*(column[mine] for column in columns))
        lines = [(at, record) for at, record in writer.records if record.name == name and record.type in _SCALARS]
        if not lines:
            return columns
        extra = _Columns(
            np.array([record.value for _, record in lines], np.float64),
            np.array([record.iteration or 0 for _, record in lines], np.int64),
            np.array([round((record.timestamp or 0.0) * 1e9) for _, record in lines], np.int64),
            np.zeros(len(lines), np.uint32),
            np.array([_place(*at) for at, _ in lines], np.int64) - 1,  # Before the scalar of that place.
        )
        joined = _Columns(*(np.concatenate(pair) for pair in zip(columns, extra, strict=True)))
        order = np.argsort(joined.places, kind="stable")
        return _Columns(*(column[order] for column in joined))

    def _columns(self, writer: _Writer) -> _Columns:
        """All scalars in a writer's segments, read once."""
        import numpy as np

        if writer.columns is None:
            parts = []
            for index in writer.segments:
                data = self._segment_data(writer.id, index)
                records, whole = decode_records(data)
                used = -(-len(data.rstrip(b"\0")) // RECORD_BYTES)
                slots = np.arange(used)
                if not whole[:used].all():
                    slots = np.flatnonzero(whole)
                    empty = records["crc"][:used] == 0
                    self.damage.holes += int(np.count_nonzero(empty & ~whole[:used]))
                    self.damage.records += int(np.count_nonzero(~empty & ~whole[:used]))
                fields = records[:used] if len(slots) == used else records[slots]
                parts.append((*(fields[name] for name in ("value", "step", "time_ns", "key")), slots * 2 + _place(index, 0)))
            types = (np.float64, np.int64, np.int64, np.uint32, np.int64)
            columns = zip(*parts, strict=True) if parts else [()] * len(types)
            writer.columns = _Columns(
                *(np.concatenate([np.empty(0, kind), *column]) for kind, column in zip(types, columns, strict=True))
            )
        return writer.columns

    def _segment_data(self, writer_id: str, index: int) -> bytes:
        """The slots of a segment as bytes; empty, and noted, where it can't be read."""
        path = self.path / segment_name(writer_id, index)
        try:
            with open(path, "rb", buffering=0) as file:
                SegmentHeader.decode(file.read(HEADER_BYTES), os.fspath(path))
                return file.read()
        except (OSError, CorruptJournalError) as error:
            logger.warning("a segment is left out: %s", error)
            self.damage.files.append(path.name)
            return b""

    def _tail(self, writer: _Writer) -> bytes:
        """The last few thousand records of a writer."""
        tail = b""
        for index in reversed(writer.segments):
            data = self._segment_data(writer.id, index)
            data = data[: -(-len(data.rstrip(b"\0")) // RECORD_BYTES) * RECORD_BYTES]
            tail = data[-_TAIL_SLOTS * RECORD_BYTES :] + tail
            if len(tail) >= _TAIL_SLOTS * RECORD_BYTES:
                break
        return tail

    # -- times ---------------------------------------------------------------------------------------------------------

    def _status_detail(self, name: str) -> Any:
        main = self._main_writer
        for _, record in reversed(main.records if main is not None else ()):
            if record.name == STATUS_NAME and record.metadata is not None:
                return record.metadata.get(name)
        return None

    def _heartbeat_age_s(self, writer: _Writer) -> float:
        try:
            return time.time() - os.stat(self.path / log_name(writer.id)).st_mtime
        except FileNotFoundError:
            return float("inf")

    def _last_time_s(self) -> float:
        """When a record was written last."""
        latest_ns = [self._directory.identity.created_ns]
        for writer in self._writers:
            latest_ns.append(writer.born_ns)
            latest_ns += [round((record.timestamp or 0.0) * 1e9) for _, record in writer.records[-1:]]
            records, whole = decode_records(self._tail(writer)[-RECORD_BYTES * 64 :])
            latest_ns += records["time_ns"][whole].tolist()[-1:]
        return max(latest_ns) / 1e9


class _Columns(NamedTuple):
    """Scalars, a row each, in the order in which they were logged."""

    values: NDArray[np.float64]
    steps: NDArray[np.int64]
    times_ns: NDArray[np.int64]
    keys: NDArray[np.uint32]
    places: NDArray[np.int64]


def _place(segment: int, slot: int) -> int:
    """A number that sorts as (segment, slot), with a free one before each for the line that came in between."""
    return (segment << 40) + slot * 2 + 1


def _has_step(value: Any) -> bool:
    return isinstance(value, Mapping) and "step" in value


# -- finding runs ------------------------------------------------------------------------------------------------------


def list_runs(directory: str | os.PathLike[str], project: str | None = None) -> list[Run]:
    """The runs below a directory, the newest first. What can't be read is left out and logged.

    Args:
        directory: As the setting `dir`.
        project: Only this project's.
    """
    runs = []
    for file in Path(directory).glob(f"*/*/{IDENTITY_FILE}"):
        try:
            runs.append(Run(file.parent))
        except JournalError as error:
            logger.warning("a run is left out: %s", error)
    chosen = (run for run in runs if project is None or run.project == project)
    return sorted(chosen, key=lambda run: run.created_s, reverse=True)


def find_run(reference: str, directory: str | os.PathLike[str], project: str | None = None) -> Run:
    """The run that a reference means: a path, an id, the beginning of one, a name, or `latest`.

    Raises:
        RunNotFoundError: None answers to it, or several do; the text lists them.
        CorruptJournalError: It is a path, and what is there can't be read.
    """
    if (Path(reference) / IDENTITY_FILE).is_file():
        return Run(reference)
    runs = list_runs(directory, project)
    place = f"in {os.fspath(directory)!r}" + (f", project {project!r}" if project is not None else "")
    if not runs:
        raise RunNotFoundError(f"there are no runs {place}. Name another directory with --dir or TRACELET_DIR")
    if reference == LATEST:
        return runs[0]
    exact = [run for run in runs if run.id == reference]
    found = exact or [run for run in runs if run.id.startswith(reference)] if reference else []
    found = found or [run for run in runs if run.name == reference]
    if len(found) == 1:
        return found[0]
    if found:
        several = ", ".join(f"{run.id} ({run.name})" for run in found[:5])
        raise RunNotFoundError(f"{len(found)} runs answer to {reference!r} {place}: {several}. Name one by its id")
    hint = did_you_mean(reference, [run.id for run in runs] + [run.name for run in runs])
    raise RunNotFoundError(f"no run {reference!r} {place}{hint}. `tracelet runs` lists them")


def load_run(reference: str | os.PathLike[str] = LATEST, dir: str | os.PathLike[str] | None = None) -> Run:  # noqa: A002
    """Load a run for analysis.

    Args:
        reference: A run directory, an id, the beginning of one, a name, or `latest`.
        dir: Where the runs are; the setting `dir` where it is not given. (Named as the setting is.)

    Raises:
        RunNotFoundError: No run answers to the reference, or several do.
    """
    from tracelet.settings import TraceletSettings

    return find_run(os.fspath(reference), TraceletSettings.load(dir=dir).dir)


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """`; did you mean 'x'?` for the end of an error, or nothing."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
