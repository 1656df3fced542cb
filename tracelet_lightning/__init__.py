"""The Lightning integration: one native logger.

    from lightning.pytorch import Trainer
    from tracelet_lightning import TraceletLogger

    trainer = Trainer(logger=TraceletLogger(project="digits"))

The logger is that of `lightning`; where only `pytorch_lightning` is installed, that of `tracelet_lightning.legacy`. It
is loaded when it is asked for: importing this package alone imports no framework.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tracelet_lightning.logger import TraceletLogger

__all__ = ["TraceletLogger"]


def __getattr__(name: str) -> Any:
    """Load the logger of the namespace that is installed (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module 'tracelet_lightning' has no attribute {name!r}")
    from tracelet.utils.imports import missing

    if missing(["lightning"]) and not missing(["pytorch-lightning"]):
        from tracelet_lightning.legacy import TraceletLogger as Legacy

        return Legacy
    from tracelet_lightning.logger import TraceletLogger as Current

    return Current


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
