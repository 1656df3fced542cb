"""The callback's part in a training and its evaluations: what is recorded in which hook.

Lightning calls all hooks on the thread that trains, in every process of the training. Guarantee: what was recorded is
on the disk when the hook returns. No hook raises: a fault is logged once, and the training goes on. Nothing waits for a
backend or a device.
"""

from __future__ import annotations

from typing import Any

from tracelet.utils.guarding import safely
from tracelet_lightning.stages import StageHooks, step_of


class TrainingHooks(StageHooks):
    """See the module docstring."""

    @safely
    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin to measure."""
        if self._loggers:
            has_monitor = any(
                kind.__name__ == "LearningRateMonitor" for one in trainer.callbacks for kind in type(one).__mro__
            )
            self._progress.begin(trainer, has_rates=self._logged is not None or not has_monitor)
            self._global_step = trainer.global_step

    # -- each batch: by hand what `safely` does, since further calls cost microseconds in a training's caches ----------

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Record what the last batch has logged, and note the learning rates."""
        try:
            step = step_of(trainer)
            if not self._has_begun:
                self._begin(trainer, step)
            if self._logged is not None:
                self._logged.next_begins(trainer)
            if self._has_saved:
                self._checkpoint_saved(trainer)
            every = trainer.log_every_n_steps
            self._is_due = every > 0 and (step + 1) % every == 0
            if self._is_due:
                self._progress.step_begins(trainer)
        except Exception as error:  # noqa: BLE001 - as in `safely`
            self.report("on_train_batch_start", error)

    @safely
    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Note the norms of the gradient."""
        if self._is_due and self._progress.wants_norms:
            self._progress.optimizer_steps(optimizer)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Record what is known of the step, if one has been made: not while gradients are accumulated."""
        try:
            self._progress.batch_ended(pl_module, batch)
            made = trainer.global_step
            if made == self._global_step and pl_module.automatic_optimization:
                return
            self._global_step = made
            step, is_due = step_of(trainer), self._is_due or trainer.should_stop
            values = self._progress.step_ended(is_recorded=is_due)
            if self._logged is not None:
                self._logged.step_ended(trainer, step, is_recorded=is_due)
            if values:
                self._record(values, step)
        except Exception as error:  # noqa: BLE001 - as in `safely`
            self.report("on_train_batch_end", error)

    # -- evaluations, and the ends of epochs ---------------------------------------------------------------------------

    @safely
    def on_sanity_check_start(self, trainer: Any, pl_module: Any) -> None:
        """Keep what is logged now apart: `sanity/val/loss`."""
        for logger in self._loggers:
            logger.set_apart("sanity/")

    @safely
    def on_sanity_check_end(self, trainer: Any, pl_module: Any) -> None:
        """Record the metrics of the check, which Lightning gives to no logger."""
        for logger in self._loggers:
            logger.log_metrics(dict(trainer.logged_metrics), step_of(trainer))
            logger.set_apart("")

    @safely
    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Record what the last batch has logged."""
        if trainer.sanity_checking:
            return
        if trainer.state.fn == "fit" and not self._has_begun:  # It resumes in the middle of a validation.
            self._begin(trainer, step_of(trainer))
        self._progress.throughput.step_ended()
        if self._logged is not None:
            self._logged.evaluation_begins(trainer)

    @safely
    def on_validation_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Record the metrics of the data loader before this one."""
        if self._logged is not None and batch_idx == 0 and dataloader_idx > 0 and not trainer.sanity_checking:
            self._logged.read(trainer, step_of(trainer))

    @safely
    def on_validation_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Record what is logged of each batch."""
        if self._logged is not None and not trainer.sanity_checking:
            self._logged.evaluation_batch_ended(trainer, dataloader_idx)

    @safely
    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Record the metrics of the evaluation."""
        if self._logged is not None and not trainer.sanity_checking:
            self._logged.read(trainer, step_of(trainer))
        self._progress.throughput.pause_ended()

    on_test_batch_start = on_validation_batch_start
    on_test_batch_end = on_validation_batch_end
    on_test_end = on_validation_end

    @safely
    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Record the metrics of the last epoch."""
        if self._logged is not None:
            self._logged.read(trainer)

    on_train_epoch_end = on_train_epoch_start

    @safely
    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Record the metrics of the last epoch."""
        if self._logged is not None:
            self._logged.read(trainer)
            self._logged.forget()
