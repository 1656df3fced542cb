"""The logger and the callback for `pytorch_lightning`, whose classes are none of `lightning`'s.

They are called as `base` and `callback_base` say. The `Trainer` of either package takes either of them. Only its
`LightningCLI` insists on classes of its own.
"""

from __future__ import annotations

from typing import Any, final

from tracelet.errors import MissingDependencyError

try:
    from pytorch_lightning.callbacks import Callback
    from pytorch_lightning.loggers.logger import DummyLogger, Logger
except ModuleNotFoundError as error:
    raise MissingDependencyError(
        f"tracelet_lightning.legacy needs pytorch_lightning: {error}. Install it with: pip install pytorch-lightning"
    ) from error

from tracelet_lightning.base import LoggerBase
from tracelet_lightning.callback_base import CallbackBase


@final
class TraceletLogger(LoggerBase, Logger):
    """Records a training with Tracelet: `Trainer(logger=TraceletLogger(project="digits"))`."""

    @staticmethod
    def _dummy_experiment() -> Any:
        return DummyLogger().experiment


@final
class TraceletCallback(CallbackBase, Callback):
    """Records with Tracelet: `Trainer(logger=False, callbacks=[TraceletCallback(project="digits")])`."""

    @staticmethod
    def _make_logger(*args: Any, **kwargs: Any) -> LoggerBase:
        return TraceletLogger(*args, **kwargs)
