"""What the backends of trackers share: the facts of the run, and settings that are checked before training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self, final

from tracelet.core.plugin_settings import PluginSettings


@final
@dataclass(frozen=True, slots=True)
class RunFacts:
    """What `initialize` is told of the run; see `PluginBase.initialize`."""

    run_name: str
    run_id: str
    run_uuid: str
    run_project: str
    run_created_s: float
    run_dir: Path
    state_dir: Path
    run_program: str | None = None

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Self:
        """The run's facts among all that `initialize` is given."""
        return cls(**{field.name: config[field.name] for field in fields(cls) if field.name in config})


class BackendSettings(PluginSettings):
    """The base of a backend's own settings."""

    kind = "backend"
