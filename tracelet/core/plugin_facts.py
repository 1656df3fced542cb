"""What a plug-in says of itself, and where it stands. Plain values; import them from `tracelet.core.plugins`."""

from __future__ import annotations

import enum
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import final


@final
class PluginType(enum.Enum):
    """The kinds of plug-in."""

    BACKEND = "backend"
    COLLECTOR = "collector"
    FRAMEWORK = "framework"
    IMPORTER = "importer"  # Reads runs of another tracker: see `core.importer`.
    PROCESSOR = "processor"


@final
class PluginState(enum.Enum):
    """Where a plug-in stands in its life."""

    REGISTERED = "registered"  # Known; nothing of it has been called yet.
    INITIALIZED = "initialized"  # `initialize` has returned.
    RUNNING = "running"  # `start` has returned.
    STOPPED = "stopped"  # `stop` has returned.
    FAILED = "failed"  # It cannot go on before the user acts; `error` says why.


@final
@dataclass(frozen=True)
class PluginMetadata:
    """What a plug-in says of itself.

    Attributes:
        name: Lower case, unique: what users write in `backend=[…]`.
        version: The plug-in's own version.
        type: Its kind.
        description: One line.
        author: Who wrote it.
        dependencies: Python packages that it needs, as requirements (`"neptune"`, `"mlflow>=3"`). They are looked up,
            not imported, before `initialize`.
        capabilities: Free words, for people who choose among plug-ins.
    """

    name: str
    version: str
    type: PluginType
    description: str = ""
    author: str = ""
    dependencies: Sequence[str] = ()
    capabilities: Collection[str] = frozenset()
