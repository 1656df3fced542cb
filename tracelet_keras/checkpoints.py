"""`ModelCheckpoint` whose checkpoints are kept with the run. Keras calls it on the thread that trains.

Guarantee: each checkpoint that Keras has saved is linked or copied into the run directory before the training goes on,
and stays there as it was when Keras overwrites the file or somebody deletes it. What Keras itself raises is raised.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal, final

import keras  # type: ignore[import-untyped]  # Keras ships no types.

from tracelet_keras.callback import TraceletCallback
from tracelet_keras.recording import CheckpointRecorder, make_way


@final
class TraceletModelCheckpoint(keras.callbacks.ModelCheckpoint):  # type: ignore[misc]  # Keras ships no types.
    """`keras.callbacks.ModelCheckpoint`, which also keeps each checkpoint as an artifact of the run.

    The artifact's metadata has `aliases` (`latest`, and `best` if it was the best one so far), `step`, `epoch`, and the
    value of the metric that is monitored.
    """

    def __init__(
        self,
        filepath: str | os.PathLike[str],
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        save_weights_only: bool = False,
        mode: Literal["auto", "min", "max"] = "auto",
        save_freq: Literal["epoch"] | int = "epoch",
        initial_value_threshold: float | None = None,
        *,
        callback: TraceletCallback | None = None,
    ) -> None:
        """Prepare, as `keras.callbacks.ModelCheckpoint` does.

        Args:
            filepath: Where the checkpoint is saved, for each argument see Keras.
            monitor: The metric that tells which checkpoint is the best.
            verbose: 1 for messages.
            save_best_only: Whether to save only what is better than all before.
            save_weights_only: Whether to leave out the architecture.
            mode: Whether less or more is better.
            save_freq: `epoch`, or a number of batches.
            initial_value_threshold: What the first checkpoint has to beat.
            callback: Whose run gets the checkpoints. None: that of the experiment that was started last.

        Raises:
            ValueError: What Keras raises.
        """
        super().__init__(
            filepath, monitor, verbose, save_best_only, save_weights_only, mode, save_freq, initial_value_threshold
        )
        # Its hook for batches does nothing then. Without this, Keras would call all others on the thread that trains.
        self.async_safe = save_freq == "epoch"
        self._recorder = CheckpointRecorder(self, callback)
        self._saved: list[str] = []  # By one call of `_save_model`: none or one.

    def _should_save_model(self, epoch: int, batch: int | None, logs: Mapping[str, Any] | None, filepath: str) -> bool:
        is_due: bool = super()._should_save_model(epoch, batch, logs, filepath)
        if is_due:
            make_way(filepath)
            self._saved.append(filepath)
        return is_due

    def _save_model(self, epoch: int, batch: int | None, logs: Mapping[str, Any] | None) -> None:
        self._saved.clear()
        super()._save_model(epoch, batch, logs)
        for path in self._saved:
            self._recorder.record(path, self._recorder.facts(epoch, logs))
