"""The Lightning integration: a native logger, and a callback that goes with it or alone.

    from lightning.pytorch import Trainer
    from tracelet_lightning import TraceletLogger

    trainer = Trainer(logger=TraceletLogger(project="digits"))

They are those of `lightning`; where only `pytorch_lightning` is installed, those of `tracelet_lightning.legacy`. They
are loaded when they are asked for: importing this package alone imports no framework.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tracelet_lightning.callback import TraceletCallback
    from tracelet_lightning.logger import TraceletLogger

__all__ = ["TraceletCallback", "TraceletLogger"]

_HOMES = {"TraceletCallback": "callback", "TraceletLogger": "logger"}


def __getattr__(name: str) -> Any:
    """Load a class of the namespace that is installed (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module 'tracelet_lightning' has no attribute {name!r}")
    from tracelet.utils.imports import missing

    is_legacy = missing(["lightning"]) and not missing(["pytorch-lightning"])
    home = importlib.import_module(f"tracelet_lightning.{'legacy' if is_legacy else _HOMES[name]}")
    return getattr(home, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
