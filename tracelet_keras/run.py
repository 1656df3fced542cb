"""The run that a callback records: begins it, says each fact once, ends it. On the thread that trains.

Keras tells callbacks nothing of an exception. So a run is `failed` if its last training did not end, also where the
program handled the exception and went on to its own end.
"""

from __future__ import annotations

import atexit
import functools
import sys
import weakref
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Self, final

from tracelet.core.experiment import Experiment
from tracelet.core.resuming import resumed
from tracelet.utils.values import flatten
from tracelet_keras.resuming import is_file, note_run, saved_run


@final
class TrainingRun:
    """See the module docstring."""

    def __init__(self, make: Callable[..., Experiment], *, is_chosen: bool, checkpoint: Path | None = None) -> None:
        """Prepare; nothing is written before `begin`.

        Args:
            make: Makes the experiment. May be called with another `resume` and `project`, unless `is_chosen`.
            is_chosen: Whether the user said which run it is, so that it is the same one for every copy.
            checkpoint: What the training may go on from: see `resuming`.

        Raises:
            TraceletError: What `Experiment` raises.
        """
        self.experiment = make()
        self._make, self._is_chosen, self._checkpoint = make, is_chosen, checkpoint
        self._has_begun = False
        self._is_ours = False  # Whether it was started here, and so ends here.
        self._is_training = False  # Also after an exception in it.
        self._is_copy = False
        self._is_marked = False  # Whether the record says where the training of this attempt went on.
        self._known: dict[str, str] = {}  # What has been recorded, to record it again only when it has changed.
        self._at_exit = functools.partial(_stop_at_exit, weakref.ref(self))

    def look_back(self, model: Any) -> None:
        """Before the first `begin`: find the run of the checkpoint that the training goes on from."""
        if self._checkpoint is not None and not (self._has_begun or self._is_chosen):
            saved = saved_run(self._checkpoint, model)
            self.experiment = (saved and resumed(self._make, saved)) or self.experiment

    def begin(self) -> None:
        """Start the run, or go on with it where it has ended.

        Raises:
            TraceletError: What `Experiment.start()` raises: a backend that is not installed, say.
        """
        if not self.experiment.is_running:
            self.experiment, self._is_ours, self._is_marked = self.experiment.reopen(), True, False
        self._has_begun = True

    def begin_training(self) -> None:
        """Note that a training begins."""
        if self._is_ours and not self._is_training:
            atexit.register(self._at_exit)  # After the experiment's own, so before it.
        self._is_training = True
        if self._checkpoint is not None and not is_file(self._checkpoint):
            note_run(self._checkpoint, self.experiment)

    def begin_epoch(self, step: int, reached: int) -> None:
        """Mark where the training goes on, if the record has later steps.

        Args:
            step: Where it stands.
            reached: Where it stood when the last epoch ended, or was broken off.
        """
        if not self._is_marked:
            self.experiment.begin_training(step)
        elif step < reached:
            self.experiment.rewind(step)
        self._is_marked = True

    def end_training(self) -> None:
        """Note that it has ended. The run of a copy ends with it."""
        atexit.unregister(self._at_exit)
        self._is_training = False
        if self._is_copy:
            self.stop()
        else:
            self.experiment.flush(timeout=0)  # The backends are told to catch up, and nobody waits for them.

    def stop(self, status: str | None = None) -> None:
        """End the run, if it was started here.

        Raises:
            UsageError: `status` is neither `finished` nor `failed`.
        """
        atexit.unregister(self._at_exit)
        if not self._is_ours:
            return
        if status is None and self._is_training:
            self.experiment.stop("failed", "The training did not end: an exception or Ctrl-C came.")
        else:
            self.experiment.stop(status or "finished")

    def say(self, facts: Iterable[tuple[str, Any]]) -> None:
        """Record parameters, nested as deep as you like: those that are new or have changed."""
        leaves = flatten(dict(facts))
        self.experiment.log_params({name: value for name, value in leaves if self._is_news(name, value)})

    def say_text(self, name: str, text: str) -> None:
        """Record a text, if it is new or has changed."""
        if self._is_news(name, text):
            self.experiment.log_text(name, text)

    def _is_news(self, name: str, value: Any) -> bool:
        before, self._known[name] = self._known.get(name), repr(value)
        return before != self._known[name]

    # -- copies --------------------------------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        state = {**self.__dict__, "_known": dict(self._known)}
        del state["_at_exit"]
        if not (self._has_begun or self._is_chosen):  # KerasTuner copies a callback for each trial: a run for each.
            state |= {"experiment": None, "_is_copy": True}
        return state

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)
        self._at_exit = functools.partial(_stop_at_exit, weakref.ref(self))
        if state["experiment"] is None:
            self.experiment = self._make()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        twin = type(self).__new__(type(self))
        twin.__setstate__(self.__getstate__())  # Backends that were given as instances are not copied.
        return twin


def _stop_at_exit(reference: weakref.ref[TrainingRun]) -> None:
    """Stop a run whose training did not end. An exception that ends the program is told by the experiment itself."""
    run = reference()
    if run is not None and sys.exception() is None and getattr(sys, "last_value", None) is None:
        run.stop()
