"""Runs as a person or a notebook reads them: whole, as numpy arrays, from the files alone.

Called on the reader's own thread, on runs that are running, ended, killed or damaged; nothing here writes. A `Run`
reads `run.json` when it is made, the logs when parameters, tags, texts or the status are asked for, and the segments
when a series is. What was read is kept: make a new `Run` to see what has come since.
"""

from __future__ import annotations

import functools
import logging
import os
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

from tracelet.core.records import (
    DEFINE_PREFIX,
    DESCRIPTION_NAME,
    GIT_COMMIT_NAME,
    REWIND_NAME,
    STATUS_NAME,
    TAG_PREFIX,
    MetricData,
    MetricType,
    is_status,
)
from tracelet.errors import JournalError, RunNotFoundError
from tracelet.journal.artifacts import Artifact, find_artifact, list_artifacts, used_artifacts
from tracelet.journal.attempts import Attempt
from tracelet.journal.columns import Columns, joined
from tracelet.journal.directory import RunDirectory, own_files
from tracelet.journal.figures import Shown
from tracelet.journal.format import IDENTITY_FILE, log_name, segments_by_writer
from tracelet.journal.part import SCALARS, UNKNOWN, WriterPart, keep_later
from tracelet.journal.reader import Damage
from tracelet.journal.spread import Ranked
from tracelet.journal.status import RunStatus, tell_status
from tracelet.journal.summary import RunSummary
from tracelet.journal.written import in_order, spans_s
from tracelet.utils.text import did_you_mean

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

LATEST: Final = "latest"


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
class Run(Ranked, Shown):
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
        if self._summary is not None:
            return RunStatus(self._summary.status)
        return self._status_of(self._mains[-1]) if self._mains else RunStatus.KILLED

    @property
    def is_written(self) -> bool:
        """Whether a process of it, leading or not, may still record."""
        return any(writer.is_at_work for writer in self._writers)

    @functools.cached_property
    def attempts(self) -> list[Attempt]:
        """The processes that led the run, one after the other: one more for each time that it was resumed."""
        marks = self.by_attempt(REWIND_NAME) if REWIND_NAME in self.names(MetricType.SYSTEM) else {}
        spans = spans_s(self._writers)
        return [
            Attempt(
                main.attempt,
                self._status_of(main),
                main.born_ns / 1e9,
                spans[main.attempt][1],
                int(marks[main.attempt].values.min()) if main.attempt in marks else None,
            )
            for main in self._mains
        ]

    @property
    def error(self) -> str | None:
        """What ended a failed run: the text of the exception."""
        error = self._status_detail("error") if self._summary is None else self._summary.error
        return None if error is None else str(error)

    @functools.cached_property
    def ended_s(self) -> float | None:
        """When it ended, or was last heard of if it was killed: Unix time in seconds. None while it runs."""
        if self.status is RunStatus.RUNNING:
            return None
        return self._last_time_s() if self._summary is None else self._summary.ended_s

    @property
    def duration_s(self) -> float:
        """How long it ran, or has been running; of a run that was resumed, all attempts that led to its end.

        By the monotonic clock where the run could say so itself.
        """
        if self._summary is not None:
            return self._summary.duration_s
        told = self._status_detail("duration_s")
        if isinstance(told, (int, float)):
            earlier = (max(0.0, main.last_s - main.born_ns / 1e9) for main in self._mains[:-1])
            return float(told) + sum(earlier)
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
        if self._summary is not None:
            return dict(self._summary.params)
        return {record.name: record.value for record in self._of_type(MetricType.PARAMETER)}

    @functools.cached_property
    def tags(self) -> dict[str, str]:
        """The tags; the value that was set last."""
        if self._summary is not None:
            return dict(self._summary.tags)
        custom = self._of_type(MetricType.CUSTOM)
        return {r.name.removeprefix(TAG_PREFIX): str(r.value) for r in custom if r.name.startswith(TAG_PREFIX)}

    @property
    def description(self) -> str | None:
        """What the run is about, as `set_description` said last."""
        return self._custom(DESCRIPTION_NAME)

    @property
    def git_commit(self) -> str | None:
        """The commit that was checked out when the last attempt began."""
        return self._custom(GIT_COMMIT_NAME)

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
        wanted = types or SCALARS
        return sorted(name for name, kinds in self._kinds.items() if not kinds.isdisjoint(wanted))

    def series(self, name: str, rank: int | None = None) -> Series:
        """A metric: the run's main line, or what one of several processes has recorded.

        Args:
            name: The metric's name.
            rank: Of the process. None: the first one that has the metric; most often 0.

        Raises:
            KeyError: The run, or the rank, has no such metric; the text names near ones.
        """
        return Series(name, *joined([writer.columns(name) for writer in self._writers_of(name, rank)]))

    def live(self, name: str, rank: int | None = None) -> Series:
        """A metric without the points that are superseded: a run that resumed from a checkpoint computed them again.

        It goes by the marks that `Experiment.rewind` leaves: see `REWIND_NAME`. Without any, all points hold.

        Args:
            name: As for `series`.
            rank: As for `series`.

        Raises:
            KeyError: As `series`.
        """
        return Series(name, *self._live_line.columns(name, self._writers_of(name, rank)))

    def by_attempt(self, name: str, rank: int | None = None) -> dict[int, Series]:
        """A metric with all of its points, apart by the attempt that logged them.

        Args:
            name: As for `series`.
            rank: As for `series`.

        Raises:
            KeyError: As `series`.
        """
        parts: dict[int, list[Columns]] = {}
        for writer in self._writers_of(name, rank):
            parts.setdefault(writer.attempt, []).append(writer.columns(name))
        found = {number: Series(name, *joined(parts[number])) for number in sorted(parts)}
        return {number: series for number, series in found.items() if len(series)}

    def latest(self) -> dict[str, tuple[int, float]]:
        """The last step and value of the series that were logged lately: quick, also in a run of millions of points.

        Series with no record among the last few thousand are left out, and points that are superseded: see `live()`.
        """
        if self._summary is not None:
            return dict(self._summary.latest)
        found: dict[str, tuple[float, int, float]] = {}
        for writer in self._writers:
            for name, point in writer.latest(self._live_line).items():
                if writer.rank == self._first_rank(name):
                    keep_later(found, name, point)
        return {name: (step, value) for name, (_, step, value) in sorted(found.items())}

    @property
    def last_step(self) -> int | None:
        """The highest step among `latest()`; None where no metric was logged."""
        return max((step for step, _ in self.latest().values()), default=None)

    def texts(self, name: str, *, live: bool = False) -> list[tuple[int | None, str]]:
        """The texts logged under a name, with their steps; with `live`, those that are not superseded."""
        return [(r.iteration, str(r.value)) for r in self.records(MetricType.TEXT, live=live) if r.name == name]

    def records(self, *types: MetricType, live: bool = False) -> list[MetricData]:
        """The records of these types that are no plain scalars (images, tables, artifacts, …), as they were logged.

        Args:
            types: One or more.
            live: Whether those of superseded steps are left out: see `live()`. Artifacts are versions, and stay.
        """
        found = []
        for writer in self._main_line_last:
            chosen = [record for record in writer.records if record.type in types]
            found += self._live_line.records(writer.attempt, chosen) if live else chosen
        return found

    def artifacts(self, type: str | None = None) -> list[Artifact]:
        """The artifacts by name and version, those of a `type` or all; see `journal.artifacts`."""
        return list_artifacts(self._records, self.path, self._directory.identity, type)

    def artifact(self, reference: str) -> Artifact:
        """The one that `name`, `name:v3` or `name:best` means.

        Raises:
            ArtifactNotFoundError: There is none.
        """
        return find_artifact(self.artifacts(), reference, self.id)

    def used_artifacts(self) -> list[Mapping[str, Any]]:
        """What it said that it used: `name`, `version`, `type`, `digest`, `reference`, `run_id`, `run_uuid` of each."""
        return used_artifacts(self._records)

    def frame(self, *names: str, live: bool = False) -> pd.DataFrame:
        """The series as one table with the columns `name`, `step`, `value`, `time_s`, a row a point.

        Args:
            names: All series where none is given.
            live: Whether superseded points are left out: see `live()`.

        Raises:
            MissingDependencyError: pandas is not installed.
            KeyError: The run has no such series.
        """
        from tracelet.utils.imports import require

        pandas = require("pandas", "Run.frame()", extra="parquet")
        parts = [
            pandas.DataFrame({"name": s.name, "step": s.steps, "value": s.values, "time_s": s.times_s})
            for s in map(self.live if live else self.series, names or self.names())
        ]
        columns = ["name", "step", "value", "time_s"]
        frame: pd.DataFrame = pandas.concat(parts, ignore_index=True) if parts else pandas.DataFrame(columns=columns)
        return frame

    # -- reading -------------------------------------------------------------------------------------------------------

    @functools.cached_property
    def _summary(self) -> RunSummary | None:
        """Of a run that has ended; saves the reading of its journal."""
        return RunSummary.read(self.path)

    @functools.cached_property
    def _writers(self) -> list[WriterPart]:
        segments = segments_by_writer(own_files(self.path))
        writers = (WriterPart(self.path, writer, indices, self.damage) for writer, indices in segments.items())
        return in_order(writers)

    def _writers_of(self, name: str, rank: int | None) -> list[WriterPart]:
        if self._kinds.get(name, set()).isdisjoint(SCALARS) and not name.startswith(UNKNOWN):
            raise KeyError(f"the run {self.id} has no series {name!r}{did_you_mean(name, self.names())}")
        wanted = self._first_rank(name) if rank is None else rank
        found = [writer for writer in self._writers if writer.rank == wanted]
        if rank is not None and not name.startswith(UNKNOWN) and not any(writer.has(name) for writer in found):
            raise KeyError(f"rank {rank} of the run {self.id} has no points of {name!r}")
        return found

    @functools.cached_property
    def _mains(self) -> list[WriterPart]:
        """The writer of each attempt."""
        return [writer for writer in self._writers if writer.role == "main"]

    def _status_of(self, writer: WriterPart) -> RunStatus:
        told = next((record.value for record in reversed(writer.records) if is_status(record)), None)
        return tell_status(told, writer.facts, self.path / log_name(writer.id), closed=writer.closed)

    @property
    def _main_line_last(self) -> list[WriterPart]:
        """The first rank comes last: of parameters and tags its word counts."""
        return sorted(self._writers, key=lambda writer: -writer.rank)

    @property
    def _records(self) -> list[MetricData]:
        return [record for writer in self._main_line_last for record in writer.records]

    @functools.cached_property
    def _kinds(self) -> dict[str, set[MetricType]]:
        """The types that were logged under each name."""
        kinds: dict[str, set[MetricType]] = defaultdict(set)
        for record in self._records:
            kinds[record.name].add(record.type)
        for writer in self._writers:
            for name, kind, _ in writer.series.values():
                kinds[name].add(kind)
        return dict(kinds)

    def _of_type(self, kind: MetricType) -> list[MetricData]:
        return [record for record in self._records if record.type is kind]

    def _custom(self, name: str) -> str | None:
        found = [record.value for record in self._of_type(MetricType.CUSTOM) if record.name == name]
        return str(found[-1]) if found else None

    # -- times ---------------------------------------------------------------------------------------------------------

    def _status_detail(self, name: str) -> Any:
        for record in reversed(self._mains[-1].records if self._mains else ()):
            if record.name == STATUS_NAME and record.metadata is not None:
                return record.metadata.get(name)
        return None

    def _last_time_s(self) -> float:
        """When a record was written last."""
        return max([self.created_s, *(writer.last_s for writer in self._writers)])


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
    raise RunNotFoundError(f"no run {reference!r}{hint} {place}. `tracelet runs` lists them")


def load_run(reference: str | os.PathLike[str] = LATEST, dir: str | os.PathLike[str] | None = None) -> Run:
    """Load a run for analysis.

    Args:
        reference: A run directory, an id, the beginning of one, a name, or `latest`.
        dir: Where the runs are; the setting `dir` where it is not given. (Named as the setting is.)

    Raises:
        RunNotFoundError: No run answers to the reference, or several do.
    """
    from tracelet.settings import TraceletSettings

    return find_run(os.fspath(reference), TraceletSettings.load(dir=dir).dir)
