"""What the callbacks of both Lightning namespaces have in common: all but the base class.

Called by a `Trainer` as `stages` and `training` say. Fabric has no trainer and no hooks of its own for what is logged:
it calls `on_after_setup`, and the user's loop calls `fabric.call("log_metrics", …)` and `fabric.call("stop")`.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Self

from tracelet.core.experiment import Backends, Experiment, Resume
from tracelet_lightning.base import LoggerBase
from tracelet_lightning.checkpoints import LogModel
from tracelet_lightning.progress import Progress
from tracelet_lightning.training import TrainingHooks


class CallbackBase(TrainingHooks, ABC):
    """Records with Tracelet what a Lightning logger does not get; alone, the whole training.

    Beside a `TraceletLogger` it records into the run of that one, and Lightning attaches it by itself. Without one it
    is made by the user, and begins a run of its own, with tensors in place of floats: nothing waits for the device.
    """

    def __init__(
        self,
        name: str = "lightning",
        backend: Backends | None = None,
        config: Any = None,
        tags: Mapping[str, str] | Sequence[str] | None = None,
        project: str | None = None,
        run_id: str | None = None,
        resume: Resume | bool | None = None,
        *,
        dir: str | os.PathLike[str] | None = None,
        collectors: Sequence[str] | None = None,
        experiment: Experiment | None = None,
        log_model: LogModel = False,
        log_graph: bool = True,
        prefix: str = "",
        grad_norms: bool = False,
        log_momentum: bool = False,
        log_weight_decay: bool = False,
        peak_flops_per_s: float | None = None,
        all_ranks: bool = False,
    ) -> None:
        """Prepare a callback; nothing is written before the first stage.

        Args:
            name: As of `TraceletLogger`, and so are all up to `prefix`: they are for the run that it begins where the
                trainer has no `TraceletLogger`.
            backend: See there.
            config: See there.
            tags: See there.
            project: See there.
            run_id: See there.
            resume: See there.
            dir: See there.
            collectors: See there.
            experiment: See there.
            log_model: See there.
            log_graph: See there.
            prefix: See there.
            grad_norms: Whether the norm of the gradient before clipping is recorded, as `train/grad_norm`, and that of
                each of the optimizer's groups, if there are several. Costs the device a pass over the gradients.
            log_momentum: Whether the optimizers' momentum is recorded beside the learning rate.
            log_weight_decay: Whether their weight decay is.
            peak_flops_per_s: What one device can do, for `throughput/mfu`. None: what is known of GPUs by their names.
            all_ranks: Whether each process of a distributed training records, and not the first alone. The series of
                the others are `run.series(name, rank=1)` and so on.

        Raises:
            TraceletError: As of `TraceletLogger`.
        """
        super().__init__()
        own = self._make_logger(
            name, backend, config, tags, project, run_id, resume, dir=dir, collectors=collectors,
            experiment=experiment, log_model=log_model, log_graph=log_graph, prefix=prefix,
        )  # fmt: skip
        progress = Progress(
            grad_norms=grad_norms,
            momentum=log_momentum,
            weight_decay=log_weight_decay,
            peak_flops_per_s=peak_flops_per_s,
        )
        self._prepare(own, progress, all_ranks=all_ranks)

    @classmethod
    def automatic(cls) -> Self:
        """One for an entry point: it acts only beside a `TraceletLogger`, and where the user has given none."""
        callback = cls.__new__(cls)
        progress = Progress(grad_norms=False, momentum=False, weight_decay=False, peak_flops_per_s=None)
        callback._prepare(None, progress, all_ranks=False)  # noqa: SLF001  It is one of us.
        return callback

    @staticmethod
    @abstractmethod
    def _make_logger(*args: Any, **kwargs: Any) -> LoggerBase:
        """A logger of this namespace."""

    # -- what users call -----------------------------------------------------------------------------------------------

    @property
    def experiment(self) -> Experiment:
        """The experiment of the run, running: the first use starts the run. On all ranks but zero, Lightning's dummy.

        Raises:
            TraceletError: What `Experiment.start()` raises.
        """
        return self._recorder.experiment

    @property
    def run_id(self) -> str:
        """The id of the run. A training that resumes from a checkpoint changes it to that of the checkpoint."""
        return self._recorder.recording.latest.run_id

    def stop(self, status: str = "finished") -> None:
        """End the run now and not with the program. A later stage goes on with it, as its next attempt.

        Args:
            status: `finished` or `failed`.

        Raises:
            UsageError: `status` is neither.
        """
        own = [] if self._own is None else [self._own]
        for logger in self._loggers or own:
            logger.stop(status)

    # -- Fabric --------------------------------------------------------------------------------------------------------

    def on_after_setup(self, fabric: Any, module: Any) -> None:
        """Find a `TraceletLogger` among Fabric's loggers."""
        if not self._loggers and self.is_first_of(fabric._callbacks):  # noqa: SLF001 - nothing public has them
            self._loggers = [logger for logger in fabric.loggers if isinstance(logger, LoggerBase)]

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Record metrics: `fabric.call("log_metrics", {"train/loss": loss}, step)`.

        `fabric.log_dict` makes floats of tensors first, and so waits for the device. This does not.
        """
        if not self._loggers and self._own is not None:
            self._loggers = [self._own]
        self._record(metrics, step)
