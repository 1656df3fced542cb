"""`OrbaxCheckpoint` whose checkpoints are kept with the run. Keras calls it on the thread that trains.

Orbax writes in the background. So a checkpoint is kept when it is whole: before the next one is begun, which waits for
it anyway, or at the end of the training.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal, final

import keras  # type: ignore[import-untyped]  # Keras ships no types.

from tracelet_keras.callback import TraceletCallback
from tracelet_keras.recording import CheckpointRecorder


@final
class TraceletOrbaxCheckpoint(keras.callbacks.OrbaxCheckpoint):  # type: ignore[misc]  # Keras ships no types.
    """`keras.callbacks.OrbaxCheckpoint`, which also keeps each checkpoint as an artifact of the run.

    The artifacts are those of `TraceletModelCheckpoint`; each is a directory.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        mode: Literal["auto", "min", "max"] = "auto",
        save_freq: Literal["epoch"] | int = "epoch",
        initial_value_threshold: float | None = None,
        max_to_keep: int | None = 1,
        save_on_background: bool = True,
        save_weights_only: bool = False,
        *,
        callback: TraceletCallback | None = None,
    ) -> None:
        """Prepare, as `keras.callbacks.OrbaxCheckpoint` does.

        Args:
            directory: Where checkpoints are saved; for each argument see Keras.
            monitor: The metric that tells which checkpoint is the best.
            verbose: 1 for messages.
            save_best_only: Whether to save only what is better than all before.
            mode: Whether less or more is better.
            save_freq: `epoch`, or a number of batches.
            initial_value_threshold: What the first checkpoint has to beat.
            max_to_keep: How many Orbax keeps in `directory`; the run keeps all.
            save_on_background: Whether the training goes on meanwhile.
            save_weights_only: Whether to leave out the architecture and the optimizer.
            callback: Whose run gets the checkpoints. None: that of the experiment that was started last.

        Raises:
            ImportError: Orbax is not installed.
            ValueError: What Keras raises.
        """
        super().__init__(
            os.path.abspath(directory), monitor, verbose, save_best_only, mode, save_freq, initial_value_threshold,
            max_to_keep, save_on_background, save_weights_only,
        )  # fmt: skip
        self.async_safe = save_freq == "epoch"  # As for `TraceletModelCheckpoint`.
        self._recorder = CheckpointRecorder(self, callback)
        self._pending: tuple[str, dict[str, Any]] | None = None
        self._epoch: int | None = None

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Remember the epoch, which Keras's own class does not need."""
        super().on_epoch_begin(epoch, logs)
        self._epoch = epoch

    def on_train_end(self, logs: Any = None) -> None:
        """Wait for the last checkpoint, as Keras does, and keep it."""
        super().on_train_end(logs)
        self._record_pending()

    def _save_checkpoint(self, step: int, logs: Mapping[str, Any] | None = None) -> None:
        if self._pending is not None:
            self.wait_until_finished()
            self._record_pending()
        super()._save_checkpoint(step, logs)
        self._recorder.note_run(self.directory)
        self._pending = os.path.join(self.directory, str(step)), self._recorder.facts(self._epoch, logs)

    def _record_pending(self) -> None:
        if self._pending is not None:
            self._recorder.record(*self._pending)
        self._pending = None
