"""The Hugging Face integration: a callback for `Trainer`, and a tracker for `Accelerator`.

    from tracelet_hf import TraceletCallback
    from transformers import Trainer

    trainer = Trainer(callbacks=[TraceletCallback(project="reviews")])

The callback is loaded when it is asked for. The tracker is loaded with this package: Accelerate has to know it before
`Accelerator(log_with="tracelet")`, and that needs no transformers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tracelet_hf.tracker import TraceletTracker

if TYPE_CHECKING:
    from tracelet_hf.callback import TraceletCallback

__all__ = ["TraceletCallback", "TraceletTracker"]


def __getattr__(name: str) -> Any:
    """Load the callback (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module 'tracelet_hf' has no attribute {name!r}")
    from tracelet_hf.callback import TraceletCallback as Callback

    return Callback


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
