"""`TraceletLogger` for `lightning`; `lightning.pytorch` and `lightning.fabric` call it as `base` says."""

from __future__ import annotations

from typing import Any, final

from tracelet.errors import MissingDependencyError

try:
    from lightning.pytorch.loggers.logger import DummyLogger, Logger
except ModuleNotFoundError as error:
    raise MissingDependencyError(
        f"TraceletLogger needs lightning: {error}. Install it with: pip install 'tracelet[lightning]'"
    ) from error

from tracelet_lightning.base import LoggerBase


@final
class TraceletLogger(LoggerBase, Logger):
    """Records a training with Tracelet: `Trainer(logger=TraceletLogger(project="digits"))`."""

    @staticmethod
    def _dummy_experiment() -> Any:
        return DummyLogger().experiment
