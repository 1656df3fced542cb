"""How the callback's part in a stage of a trainer begins and ends: whom it records for, which run, and how that ends.

Lightning calls, on the thread that runs the stage and in every process of the training, in this order:
    `log` is set                              then it reads every logger's `experiment`
    `setup`                                   then it loads the checkpoint
    `on_load_checkpoint`, `on_fit_start`      the run is chosen, and begins
    the hooks of `training`
    `on_save_checkpoint`                      meanwhile: the checkpoint gets the identity of the run
    `on_exception`, or `on_fit_end` and `teardown`

Guarantee: `setup` and `on_fit_start` raise what the user has to mend; no other hook raises: a fault is logged once, and
the training goes on. Nothing waits for a backend, but for the end of a run after an exception.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable, Mapping
from typing import Any, Final

from tracelet.core.experiment import Experiment
from tracelet.errors import TraceletError, UsageError
from tracelet.utils.guarding import Guarded, reported, safely
from tracelet_lightning.base import LoggerBase
from tracelet_lightning.logged import LoggedMetrics
from tracelet_lightning.progress import Progress

_KEY: Final = "tracelet"
"""What a checkpoint has of us. Of a callback's `state_dict`, Lightning would warn where the callback is missing."""


class StageHooks(Guarded):
    """See the module docstring."""

    _own: LoggerBase | None
    """Where it records without a `TraceletLogger`. None: nowhere."""
    _progress: Progress
    _all_ranks: bool

    @property
    def is_given(self) -> bool:
        """Whether the user has made it, and not Lightning by an entry point."""
        return self._own is not None

    def is_first_of(self, callbacks: Iterable[Any]) -> bool:
        """Whether it is the one that acts beside a logger of ours: the first that the user gave, else the first."""
        ours = [one for one in callbacks if isinstance(one, StageHooks)]
        return self is next(iter([one for one in ours if one.is_given] or ours), None)

    def _prepare(self, own: LoggerBase | None, progress: Progress, *, all_ranks: bool) -> None:
        """Take what a callback is made of."""
        self._own = own
        self._progress = progress
        self._all_ranks = all_ranks
        self._clear()

    @property
    def _recorder(self) -> LoggerBase:
        """The logger whose run it is."""
        logger = next(iter(self._loggers), self._own)
        if logger is None:
            raise UsageError("this callback records nothing: the trainer has no TraceletLogger")
        return logger

    def _clear(self) -> None:
        """Forget the last stage."""
        self._loggers: list[LoggerBase] = []  # Those that it records into.
        self._rank: Experiment | None = None  # Another rank's part of the run.
        self._logged: LoggedMetrics | None = None
        self._is_resumed = self._has_begun = self._is_due = self._has_saved = False
        self._global_step = 0

    def __getstate__(self) -> dict[str, Any]:
        """Without the module, which Lightning gives to each callback by `log` and `log_dict`."""
        return {name: value for name, value in self.__dict__.items() if name not in ("log", "log_dict")}

    # -- a stage begins ------------------------------------------------------------------------------------------------

    @property
    def log(self) -> Any:
        """The module's, which Lightning gives to each callback: as a stage begins, before any hook."""
        return self.__dict__.get("log")

    @log.setter
    def log(self, log: Any) -> None:
        self.__dict__["log"] = log
        self._expect_checkpoint(log)

    @safely
    def _expect_checkpoint(self, log: Any) -> None:
        trainer = log.__self__.trainer
        if trainer.state.fn == "fit" and self._is_wanted(trainer):
            for logger in _loggers_of(trainer):
                logger.recording.expect_checkpoint()

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Find out whom to record for; leave the trainer where it is nobody.

        Raises:
            TraceletError: What `Experiment.start()` raises.
        """
        self._clear()
        loggers = _loggers_of(trainer)
        for logger in loggers:
            logger.recording.setup_ended()
            logger.set_apart("")
        if not self._is_wanted(trainer):
            trainer.callbacks = [callback for callback in trainer.callbacks if callback is not self]
            return
        self._loggers = loggers
        if not loggers and self._own is not None:
            self._loggers = [self._own]
            self._logged = LoggedMetrics(self._record)
            if stage != "fit":
                self._describe(trainer, pl_module)

    @safely
    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: Mapping[str, Any]) -> None:
        """Choose the run that the checkpoint belongs to."""
        if trainer.state.fn != "fit" or not self._loggers:
            return
        self._is_resumed = True
        before = _checkpoint_directory(trainer)
        with reported("the run of the checkpoint"):  # The other ranks wait for what comes then.
            if trainer.is_global_zero and _KEY in checkpoint:
                for logger, saved in zip(self._loggers, checkpoint[_KEY]["runs"], strict=False):
                    logger.resume(saved)
        after = _checkpoint_directory(trainer)
        for callback in trainer.checkpoint_callbacks:  # They have asked for it already, and take up their state next.
            found = getattr(callback, "dirpath", None)
            if found is not None:
                callback.dirpath = trainer.strategy.broadcast(after if found == before else found)

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin the run.

        Raises:
            TraceletError: What `Experiment.start()` raises.
        """
        path = None
        try:
            if trainer.is_global_zero:
                for logger in self._loggers:
                    path = os.fspath(logger.experiment.run_dir)
        finally:  # Also where the first rank can't: the others wait for it.
            if self._all_ranks and self._loggers and trainer.world_size > 1:
                self._join(trainer, trainer.strategy.broadcast(path))
        if self._logged is not None:
            self._describe(trainer, pl_module)

    # -- checkpoints, and the end --------------------------------------------------------------------------------------

    @safely
    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Put the identity of the run into the checkpoint."""
        if self._loggers and trainer.is_global_zero:
            checkpoint[_KEY] = {"runs": [logger.recording.latest.resume_state() for logger in self._loggers]}
        if not self._has_saved:
            self._progress.throughput.step_ended()
        self._has_saved = True

    @safely
    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Keep the last checkpoints."""
        self._checkpoint_saved(trainer)

    @safely
    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """End the run; beside a `TraceletLogger` that one does, after the checkpoint that may be saved now."""
        if self._logged is not None and self._own is not None:
            if trainer.world_size == 1:  # Else the other ranks would have to read as well.
                self._logged.next_begins(trainer)
            self._checkpoint_saved(trainer)
            self._own.finalize("failed")

    @safely
    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Note the end of the stage."""
        if self._logged is not None and self._own is not None:
            self._own.finalize("success")

    # -- inside --------------------------------------------------------------------------------------------------------

    def _is_wanted(self, trainer: Any) -> bool:
        """Whether this one acts: one that the user gave, else one beside a logger of ours; never two of them."""
        is_first = self.is_first_of(trainer.callbacks) if _loggers_of(trainer) else self.is_given
        return is_first and not trainer.fast_dev_run  # Which replaces all loggers.

    def _describe(self, trainer: Any, module: Any) -> None:
        """What Lightning tells each logger as a stage begins."""
        if self._own is not None:
            for source in (trainer.datamodule, module):
                if source is not None and source._log_hyperparams:  # noqa: SLF001 - nothing public has it
                    self._own.log_hyperparams(source.hparams_initial)
            self._own.log_graph(module)

    def _join(self, trainer: Any, path: str | None) -> None:
        """Record this rank's part of the run."""
        if trainer.is_global_zero or path is None:
            return
        try:
            self._rank = Experiment.attach(path, rank=trainer.global_rank)
        except TraceletError as error:  # It can't be seen from another host, say.
            self.report("all_ranks", error)

    def _begin(self, trainer: Any, step: int) -> None:
        """The first step of a training is known."""
        self._has_begun = True
        if trainer.is_global_zero:
            for logger in self._loggers:
                logger.recording.begin_training(step, is_resumed=self._is_resumed)

    def _record(self, values: Mapping[str, Any], step: int | None) -> None:
        for logger in self._loggers:  # On other ranks they do nothing.
            logger.log_metrics(values, step)
        if self._rank is not None:
            self._rank.log_metrics(values, step)

    def _checkpoint_saved(self, trainer: Any) -> None:
        """A checkpoint has been written since the last call."""
        if self._has_saved:
            self._has_saved = False
            self._progress.throughput.pause_ended()
            if self._logged is not None and self._own is not None:
                for callback in trainer.checkpoint_callbacks:
                    self._own.after_save_checkpoint(weakref.proxy(callback))


def step_of(trainer: Any) -> int:
    """The step that Lightning gives its loggers."""
    return int(trainer.fit_loop.epoch_loop._batches_that_stepped)  # noqa: SLF001 - nothing public has it


def _loggers_of(trainer: Any) -> list[LoggerBase]:
    return [logger for logger in trainer.loggers if isinstance(logger, LoggerBase)]


def _checkpoint_directory(trainer: Any) -> str | None:
    """Where Lightning puts checkpoints for a logger of ours, which is another place for another run."""
    first = next(iter(trainer.loggers), None)
    if not isinstance(first, LoggerBase) or first.save_dir is None:
        return None
    return os.path.join(first.save_dir, first.name, first.version, "checkpoints")
