"""The callbacks that Lightning attaches by itself. Its entry points call these as each `Trainer` or `Fabric` is made.

Guarantee: a program that has not imported one of our loggers pays a look into `sys.modules`; nothing is imported.
"""

from __future__ import annotations

import sys
from typing import Any


def lightning_callbacks() -> list[Any]:
    """For `lightning.pytorch` and `lightning.fabric`."""
    if "tracelet_lightning.base" not in sys.modules:  # Then no logger is one of ours.
        return []
    from tracelet_lightning.callback import TraceletCallback

    return [TraceletCallback.automatic()]


def legacy_callbacks() -> list[Any]:
    """For `pytorch_lightning`."""
    if "tracelet_lightning.base" not in sys.modules:
        return []
    from tracelet_lightning.legacy import TraceletCallback

    return [TraceletCallback.automatic()]
