"""From a checkpoint to an artifact of the run: for the callbacks that save some, on the thread that trains.

Guarantee: a checkpoint that can't be kept stops no training; the first one of a callback is logged.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import keras  # type: ignore[import-untyped]  # Keras ships no types.

from tracelet.core.experiment import Experiment
from tracelet.core.records import MetricData, MetricType
from tracelet_keras import facts
from tracelet_keras.callback import TraceletCallback
from tracelet_keras.resuming import note_run

logger = logging.getLogger(__name__)


def experiment_of(callback: TraceletCallback | None) -> Experiment | None:
    """The experiment that records a training: that of the callback, or the one that was started last."""
    experiment = Experiment.active() if callback is None else callback.experiment
    return experiment if experiment is not None and experiment.is_running else None


@final
class CheckpointRecorder:
    """Records the checkpoints of one callback of Keras. See the module docstring."""

    def __init__(self, monitor: keras.callbacks.Callback, callback: TraceletCallback | None) -> None:
        """Prepare.

        Args:
            monitor: The callback that saves; it knows which value of its metric is better.
            callback: As for `experiment_of`.
        """
        self._monitor, self._callback = monitor, callback
        self._best: float | None = None
        self._has_warned = False

    def facts(self, epoch: int | None, logs: Mapping[str, Any] | None) -> dict[str, Any]:
        """What is known of a checkpoint as it is saved.

        Returns:
            `type`, `aliases` (`latest`, and `best` if it is the best one so far), `step`, `epoch`, and the value of the
            metric that is monitored.
        """
        monitor, score = self._monitor, (logs or {}).get(self._monitor.monitor)
        known = {"type": "model", "aliases": ["latest"], "step": facts.steps_taken(monitor.model)}
        if epoch is not None:
            known["epoch"] = epoch
        if isinstance(score, float):
            known[monitor.monitor] = score
            if self._is_best(score):
                self._best, known["aliases"] = score, ["latest", "best"]
        return known

    def record(self, path: str, known: Mapping[str, Any]) -> None:
        """Keep a checkpoint with the run."""
        experiment = experiment_of(self._callback)
        if experiment is None:
            self._warn(path, "no experiment is running. Put a TraceletCallback() into the list of callbacks")
        elif not os.path.exists(path):
            self._warn(path, "it is not on this machine's disk")
        else:
            name = f"checkpoints/{os.path.basename(path)}"
            experiment.emit_metric(MetricData(name, path, MetricType.ARTIFACT, known["step"], metadata=known))
            if os.path.isfile(path):
                self.note_run(path)

    def note_run(self, path: str) -> None:
        """Say which run a checkpoint is from."""
        experiment = experiment_of(self._callback)
        if experiment is not None:
            try:
                note_run(Path(path), experiment)
            except OSError as error:
                self._warn(path, f"which run it is from can't be noted: {error}")

    def _warn(self, path: str, why: str) -> None:
        if not self._has_warned:
            logger.warning("The checkpoint %s is not kept with the run: %s", path, why)
        self._has_warned = True

    def _is_best(self, score: float) -> bool:
        monitor = self._monitor
        if monitor.save_best_only or self._best is None:
            return True
        # Which direction is better, Keras finds out at the end of the first epoch.
        return monitor.monitor_op is not None and bool(monitor._is_improvement(score, self._best))  # noqa: SLF001 - the rule of Keras


def make_way(path: str) -> None:
    """Before a file is written anew: Keras writes into the one that is there, and so into the run if it is linked."""
    if os.path.isfile(path) and os.stat(path).st_nlink > 1:
        os.unlink(path)
