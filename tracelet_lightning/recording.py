"""Which run a training's records go to: a new one, or that of the checkpoint that it resumes from.

Called on the training thread of rank zero, by the logger and by the companion callback. Lightning reads `experiment` of
each logger as it sets up a stage, and only then loads the checkpoint that names the run. So the companion says
`expect_checkpoint` before, then `resume` with what the checkpoint has, and `begin_training` when the step is known.

Guarantee: nothing is written before the run is chosen, unless the user records something meanwhile.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Mapping
from typing import Any, Final, final

from tracelet.core.experiment import Experiment
from tracelet.core.records import REWIND_NAME, SEGMENT_NAME, MetricData, MetricType
from tracelet.errors import JournalError, UsageError
from tracelet.journal.format import IDENTITY_FILE

logger = logging.getLogger(__name__)

_READS_IN_SETUP: Final = 2  # Lightning asks whether a logger has an `experiment`, and reads it.


@final
class Recording:
    """See the module docstring."""

    def __init__(self, options: Mapping[str, Any], experiment: Experiment | None) -> None:
        """Prepare; nothing is written.

        Args:
            options: What `Experiment` is made with.
            experiment: In place of one that is made here.

        Raises:
            TraceletError: As `Experiment`; or `experiment` comes with options of another one.
        """
        if experiment is not None and any(value is not None for key, value in options.items() if key != "name"):
            raise UsageError("TraceletLogger(experiment=…) records into that experiment: give the rest to Experiment()")
        self._options = dict(options)
        self._is_chosen = experiment is not None or options["run_id"] is not None  # By the user: no checkpoint wins.
        self._experiment = experiment or Experiment(**options)
        self._is_ours = False  # Whether it was started here, and so ends here.
        self._reads_to_come = 0
        self._trainings = 0

    @property
    def latest(self) -> Experiment:
        """The experiment as it is: not begun, running or stopped."""
        return self._experiment

    @property
    def experiment(self) -> Experiment:
        """The experiment, started. One that was stopped goes on as the run's next attempt.

        Raises:
            TraceletError: What `Experiment.start()` raises.
        """
        self._reads_to_come = 0
        if not self._experiment.is_running:
            self._experiment, self._is_ours = self._experiment.reopen(), True
        return self._experiment

    def for_lightning(self) -> Experiment:
        """As `experiment`; not started where Lightning only asks for it before it loads a checkpoint."""
        if self._reads_to_come > 0:
            self._reads_to_come -= 1
            return self._experiment
        return self.experiment

    def expect_checkpoint(self) -> None:
        """A stage begins that may resume from a checkpoint, which is not loaded yet."""
        self._reads_to_come = 0 if self._experiment.is_running else _READS_IN_SETUP

    def setup_ended(self) -> None:
        """Lightning has read `experiment`; whoever reads it now wants to record."""
        self._reads_to_come = 0

    @property
    def identity(self) -> dict[str, Any]:
        """What finds the run again, for a checkpoint: texts and numbers."""
        experiment = self._experiment
        root = os.fspath(experiment.run_dir.parent.parent)
        return {"run_id": experiment.run_id, "project": experiment.project, "dir": root, "trainings": self._trainings}

    def resume(self, saved: Mapping[str, Any]) -> None:
        """Go on with the run of a checkpoint: where it was, or where runs are kept now.

        A `run_id` or an experiment of the user's wins. A run that has begun meanwhile ends.
        """
        if self._is_chosen or (saved["run_id"], saved["project"]) == (
            self._experiment.run_id,
            self._experiment.project,
        ):
            return
        found = self._found(saved)
        if found is not None:
            if self._is_ours:
                self._experiment.stop("finished")
            self._experiment, self._is_ours, self._trainings = found, False, saved["trainings"]

    def begin_training(self, step: int, *, is_resumed: bool) -> None:
        """Mark where a training goes on, or begins once more.

        Args:
            step: The first one that will be recorded.
            is_resumed: Whether it goes on from a checkpoint.
        """
        if is_resumed:
            self._mark(REWIND_NAME, step - 1, step - 1)
        elif step == 0 and self._trainings > 0:
            self._mark(SEGMENT_NAME, self._trainings + 1, 0)
        self._trainings = max(self._trainings, 1) if is_resumed or step > 0 else self._trainings + 1

    def stop(self, status: str) -> None:
        """End the run."""
        self._experiment.stop(status)

    def stage_ended(self, *, is_failed: bool) -> None:
        """End the run after an exception, the one that is being handled; else nobody waits for the backends.

        An experiment that the user has started is ended only after Ctrl-C, since Lightning ends the program then.
        """
        error = sys.exception()
        if is_failed and (self._is_ours or isinstance(error, KeyboardInterrupt)):
            self._experiment.stop("failed", None if error is None else "".join(traceback.format_exception(error)))
        else:
            self._experiment.flush(timeout=0)

    # -- inside --------------------------------------------------------------------------------------------------------

    def _found(self, saved: Mapping[str, Any]) -> Experiment | None:
        fixed = self._options | {"run_id": saved["run_id"], "project": saved["project"], "resume": None}
        try:
            there, here = Experiment(**fixed | {"dir": saved["dir"]}), Experiment(**fixed)
        except JournalError as error:
            logger.warning("the run of the checkpoint can't go on, this one is new: %s", error)
            return None
        if _is_there(there):
            return there
        if not _is_there(here):
            logger.warning(
                "the run %s that the checkpoint belongs to is neither %s nor %s: its record begins anew there",
                here.run_id, there.run_dir, here.run_dir,
            )  # fmt: skip
        return here

    def _mark(self, name: str, value: int, step: int) -> None:
        self.experiment.emit_metric(MetricData(name, float(value), MetricType.SYSTEM, step))


def _is_there(experiment: Experiment) -> bool:
    return os.path.exists(experiment.run_dir / IDENTITY_FILE)
