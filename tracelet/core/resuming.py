"""Going on with a run: what a checkpoint says of it, and what going back to an earlier step makes of the record.

Called by users and adapters on the thread that trains. A checkpoint carries what `resume_state` gives; `resume=` takes
it. Guarantee: nothing that was recorded is taken away. A mark says which of it is superseded (`REWIND_NAME`), and
`Run.live` goes by the marks.
"""

from __future__ import annotations

import logging
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from tracelet.core.arguments import Resume
from tracelet.core.intake import Intake, Journal
from tracelet.core.records import REWIND_NAME, SEGMENT_NAME, MetricData, MetricType
from tracelet.errors import JournalError
from tracelet.journal.directory import RunDirectory, new_run_id
from tracelet.journal.format import IDENTITY_FILE
from tracelet.journal.reader import first_lines
from tracelet.journal.status import RunStatus

logger = logging.getLogger(__name__)

_DRAIN_S: Final = 60.0
_Experiment = TypeVar("_Experiment", bound="Resumable")


class Resumable(ABC):
    """See the module docstring. `Experiment` adds the life cycle."""

    _began_s: float
    _intake: Intake
    _journal: Journal
    _resume: Resume
    _run: RunDirectory

    @abstractmethod
    def emit_metric(self, metric: MetricData) -> None:
        """Record what a source hands over."""

    def rewind(self, step: int) -> None:
        """Say that the training has gone back: what the run has recorded above `step` so far is superseded.

        It stays in the record; `Run.live`, and with it each view, leaves it out. What is recorded from now on holds.

        Args:
            step: The last step that holds, that of the checkpoint. -1: none does, the training begins anew.

        Raises:
            ExperimentStateError: The experiment is not running.
        """
        self._mark(REWIND_NAME, int(step), int(step))

    def resume_state(self, step: int | None = None) -> dict[str, Any]:
        """What a checkpoint has to carry so that `Experiment(…, resume=…)` goes on with this run.

        First waits for what devices still compute, at most a minute: the record has all that the checkpoint has.

        Args:
            step: The last step that is in the checkpoint. The resumed experiment then begins with `rewind(step)`.

        Returns:
            Texts and whole numbers: for JSON, msgpack, Orbax, and `torch.load(weights_only=True)`.
        """
        self._intake.resolver.drain(_DRAIN_S)
        identity = self._run.identity
        state = {
            "run_id": identity.run_id,
            "project": identity.project,
            "dir": os.fspath(self._run.path.parent.parent),
            "attempt": attempts_so_far(self._run.path),
        }
        return state if step is None else state | {"step": int(step)}

    def begin_training(self, step: int, earlier: int = 0) -> None:
        """Mark where a training goes on, or begins once more: for adapters, as they begin to record it.

        One that begins at step 0 supersedes a training that was broken off with the last attempt. Where that ended
        well, or in an attempt that had another training, it is one more training of the run: both hold.

        Args:
            step: The last step that the training has made already.
            earlier: How many trainings this attempt of the run has had.

        Raises:
            ExperimentStateError: The experiment is not running.
        """
        if step > 0:
            has_metrics = any(isinstance(series, str) for series in list(self._journal.series))
            if has_metrics or attempts_so_far(self._run.path) > 1:
                self.rewind(step)
            return
        before = None if earlier else self._attempt_before()
        if before in (RunStatus.FAILED, RunStatus.KILLED):  # From the beginning of this one: it may have evaluated.
            self._mark(REWIND_NAME, -1, -1, time.time() - (time.monotonic() - self._began_s))
        elif earlier or before is RunStatus.FINISHED:
            self._mark(SEGMENT_NAME, earlier + 1, 0)

    def _go_back(self) -> None:
        """As the run starts: go back to the step of the checkpoint."""
        if isinstance(self._resume, Mapping) and "step" in self._resume:
            self.rewind(self._resume["step"])

    def _attempt_before(self) -> RunStatus | None:
        """How the attempt before this one ended; None without one, or where it may still run."""
        from tracelet.journal.load import Run  # Nobody needs it but a training that begins once more.

        if attempts_so_far(self._run.path) < 2:
            return None
        attempts = Run(self._run.path).attempts
        return attempts[-2].status if len(attempts) > 1 else None

    def _mark(self, name: str, value: int, step: int, time_s: float | None = None) -> None:
        self.emit_metric(MetricData(name, float(value), MetricType.SYSTEM, step, time_s))


def run_to_record(
    resume: Resume, run_id: str | None, project: str | None, root: Path, name: str, default_project: str
) -> RunDirectory:
    """The run of an experiment: as it is named, or else that of a checkpoint.

    That one is looked for where it was recorded, then where runs are kept now.

    Args:
        resume: As `resume_mode` gave it.
        run_id: As the user gave it; wins over the checkpoint's.
        project: As the user gave it; wins over the checkpoint's.
        root: Where runs are kept now.
        name: Of a new run.
        default_project: Where nobody names one.

    Raises:
        CorruptJournalError: The run is there, and can't be read.
    """
    if not isinstance(resume, Mapping) or run_id is not None:
        project = default_project if project is None else project
        return RunDirectory.at(root, project, new_run_id() if run_id is None else run_id, name)
    place = (resume["project"] if project is None else project, resume["run_id"], name)
    there, here = RunDirectory.at(Path(resume["dir"]), *place), RunDirectory.at(root, *place)
    if _exists(there):
        return there
    if not _exists(here):
        logger.warning(
            "the run %s that the checkpoint belongs to is neither %s nor %s: its record begins anew there",
            here.identity.run_id, there.path, here.path,
        )  # fmt: skip
    return here


def resumed(make: Callable[..., _Experiment], state: Mapping[str, Any]) -> _Experiment | None:
    """The experiment that goes on with the run of a checkpoint: for adapters, whose users have not named a run.

    Args:
        make: Makes an experiment; takes `resume` and `project`.
        state: What the checkpoint has of `resume_state()`.

    Returns:
        None where the run is there and can't be read; the log says so.
    """
    try:
        return make(resume=state, project=state["project"])
    except JournalError as error:
        logger.warning("the run of the checkpoint can't go on, this one is new: %s", error)
        return None


def attempts_so_far(directory: Path) -> int:
    """How many attempts a run has had."""
    # Only those who lead it count: other ranks may come before the first one.
    found = (line.get("attempt") for line in first_lines(directory) if line.get("role") == "main")
    return max((attempt for attempt in found if isinstance(attempt, int)), default=0)


def _exists(run: RunDirectory) -> bool:
    return os.path.exists(run.path / IDENTITY_FILE)
