"""The Keras 3 integration: a callback, and others that keep checkpoints and predictions.

    from tracelet_keras import TraceletCallback

    model.fit(x, y, callbacks=[TraceletCallback(project="digits")])

Each name is loaded when it is asked for: importing this package alone imports no framework, and nothing in it imports
TensorFlow.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tracelet_keras.callback import TraceletCallback
    from tracelet_keras.checkpoints import TraceletModelCheckpoint
    from tracelet_keras.orbax import TraceletOrbaxCheckpoint
    from tracelet_keras.predictions import TraceletPredictions

_HOMES: Final = {
    "TraceletCallback": "tracelet_keras.callback",
    "TraceletModelCheckpoint": "tracelet_keras.checkpoints",
    "TraceletOrbaxCheckpoint": "tracelet_keras.orbax",
    "TraceletPredictions": "tracelet_keras.predictions",
}

__all__ = ["TraceletCallback", "TraceletModelCheckpoint", "TraceletOrbaxCheckpoint", "TraceletPredictions"]


def __getattr__(name: str) -> Any:
    """Load a public name when it is used (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'tracelet_keras' has no attribute {name!r}")
    from tracelet.utils.imports import require

    require("keras", name)
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
