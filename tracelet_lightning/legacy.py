"""`TraceletLogger` for `pytorch_lightning`, whose classes are none of `lightning`'s; it is called as `base` says.

The `Trainer` of either package takes either logger. Only its `LightningCLI` insists on a class of its own.
"""

from __future__ import annotations

from typing import Any, final

from tracelet.errors import MissingDependencyError

try:
    from pytorch_lightning.loggers.logger import DummyLogger, Logger
except ModuleNotFoundError as error:
    raise MissingDependencyError(
        f"tracelet_lightning.legacy needs pytorch_lightning: {error}. Install it with: pip install pytorch-lightning"
    ) from error

from tracelet_lightning.base import LoggerBase


@final
class TraceletLogger(LoggerBase, Logger):
    """Records a training with Tracelet: `Trainer(logger=TraceletLogger(project="digits"))`."""

    @staticmethod
    def _dummy_experiment() -> Any:
        return DummyLogger().experiment
