"""Which run a training's records go to: a new one, or that of the checkpoint that it resumes from.

Called on the training thread of rank zero, by the logger and by the companion callback. Lightning reads `experiment` of
each logger as it sets up a stage, and only then loads the checkpoint that names the run. So the companion says
`expect_checkpoint` before, then `resume` with what the checkpoint has, and `begin_training` when the step is known.

Guarantee: nothing is written before the run is chosen, unless the user records something meanwhile.
"""

from __future__ import annotations

import functools
import sys
import traceback
from collections.abc import Mapping
from typing import Any, Final, final

from tracelet.core.experiment import Experiment
from tracelet.core.resuming import resumed
from tracelet.errors import UsageError

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
        # By the user: then no checkpoint wins.
        self._is_chosen = (
            experiment is not None or options["run_id"] is not None or isinstance(options["resume"], Mapping)
        )
        self._experiment = experiment or Experiment(**options)
        self._is_ours = False  # Whether it was started here, and so ends here.
        self._reads_to_come = 0
        self._trainings = 0  # In this attempt of the run.

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
            self._experiment, self._is_ours, self._trainings = self._experiment.reopen(), True, 0
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

    def resume(self, saved: Mapping[str, Any]) -> None:
        """Go on with the run of a checkpoint, which has its `resume_state()`.

        A `run_id` or an experiment of the user's wins. A run that has begun meanwhile ends.
        """
        run = self._experiment
        if self._is_chosen or (saved["run_id"], saved["project"]) == (run.run_id, run.project):
            return
        found = resumed(functools.partial(Experiment, **self._options), saved)
        if found is not None:
            if self._is_ours:
                run.stop("finished")
            self._experiment, self._is_ours, self._trainings = found, False, 0

    def begin_training(self, step: int, *, is_resumed: bool) -> None:
        """Mark where a training goes on, or begins once more.

        Args:
            step: The first one that will be recorded.
            is_resumed: Whether it goes on from a checkpoint. Where it does not and `step` is above 0, the trainer goes
                on with what it has in memory, and there is nothing to mark.
        """
        if is_resumed:
            self.experiment.rewind(step - 1)
        elif step == 0:
            self.experiment.begin_training(0, self._trainings)
        elif self._trainings > 0:
            return
        self._trainings += 1

    def stage_ended(self, *, is_failed: bool) -> None:
        """End the run after an exception, the one that is being handled; else nobody waits for the backends.

        An experiment that the user has started is ended only after Ctrl-C, since Lightning ends the program then.
        """
        error = sys.exception()
        if is_failed and (self._is_ours or isinstance(error, KeyboardInterrupt)):
            self._experiment.stop("failed", None if error is None else "".join(traceback.format_exception(error)))
        else:
            self._experiment.flush(timeout=0)
