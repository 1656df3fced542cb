"""`TraceletCallback` for `lightning`; `lightning.pytorch` and `lightning.fabric` call it as `callback_base` says."""

from __future__ import annotations

from typing import Any, final

from lightning.pytorch.callbacks import Callback

from tracelet_lightning.base import LoggerBase
from tracelet_lightning.callback_base import CallbackBase
from tracelet_lightning.logger import TraceletLogger


@final
class TraceletCallback(CallbackBase, Callback):
    """Records with Tracelet: `Trainer(logger=False, callbacks=[TraceletCallback(project="digits")])`."""

    @staticmethod
    def _make_logger(*args: Any, **kwargs: Any) -> LoggerBase:
        return TraceletLogger(*args, **kwargs)
