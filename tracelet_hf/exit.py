"""Notices a training that never came to its end. Called on the training thread, and at the end of the program."""

from __future__ import annotations

import atexit
import functools
import sys
import traceback
import weakref
from collections.abc import Callable
from typing import Final, final

from tracelet.core.experiment import Experiment

INTERRUPTED: Final = "The training ended before its end: by an exception or an interrupt that the program handled."


@final
class ExitGuard:
    """Ends the run as `failed` where the program ends between `arm` and `disarm`. A copy is not armed."""

    def __init__(self) -> None:
        """Make one that guards nothing."""
        self._at_exit: Callable[[], None] | None = None

    def __reduce__(self) -> tuple[type[ExitGuard], tuple[()]]:
        return ExitGuard, ()

    def arm(self, experiment: Experiment) -> None:
        """A training begins. Once more for the next one, so that this comes before the experiment's own end."""
        self.disarm()
        self._at_exit = functools.partial(_fail, weakref.ref(experiment))
        atexit.register(self._at_exit)

    def disarm(self) -> None:
        """It has come to its end."""
        if self._at_exit is not None:
            atexit.unregister(self._at_exit)
        self._at_exit = None


def _fail(reference: weakref.ref[Experiment]) -> None:
    experiment, error = reference(), sys.exception() or getattr(sys, "last_value", None)
    if experiment is not None:
        experiment.stop("failed", INTERRUPTED if error is None else "".join(traceback.format_exception(error)))
