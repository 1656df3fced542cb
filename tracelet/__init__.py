"""Tracelet records machine-learning experiments: on the local disk first, then in any tracker.

    import tracelet

    with tracelet.Experiment("digits", config={"lr": 1e-3}) as experiment:
        experiment.log_metric("train/loss", 0.5, 0)

Importing this package imports nothing else of it, and no framework and no SDK: each name is loaded when it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tracelet.core.active import get_active_experiment, start_logging, stop_logging
    from tracelet.core.experiment import Experiment
    from tracelet.core.orchestrator import RoutingRule
    from tracelet.core.plugins import (
        BackendPlugin,
        CollectorPlugin,
        FrameworkPlugin,
        PluginBase,
        PluginMetadata,
        PluginType,
        ProcessorPlugin,
    )
    from tracelet.core.ranks import shared_experiment
    from tracelet.core.records import MetricData, MetricType
    from tracelet.journal.artifacts import Artifact
    from tracelet.journal.load import Run, load_run
    from tracelet.journal.status import RunStatus
    from tracelet.models.saving import load_model
    from tracelet.settings import TraceletSettings

__version__ = "0.1.0"

_HOMES: Final = {
    "Artifact": "tracelet.journal.artifacts",
    "BackendPlugin": "tracelet.core.plugins",
    "CollectorPlugin": "tracelet.core.plugins",
    "Experiment": "tracelet.core.experiment",
    "FrameworkPlugin": "tracelet.core.plugins",
    "MetricData": "tracelet.core.records",
    "MetricType": "tracelet.core.records",
    "PluginBase": "tracelet.core.plugins",
    "PluginMetadata": "tracelet.core.plugins",
    "PluginType": "tracelet.core.plugins",
    "ProcessorPlugin": "tracelet.core.plugins",
    "RoutingRule": "tracelet.core.orchestrator",
    "Run": "tracelet.journal.load",
    "RunStatus": "tracelet.journal.status",
    "TraceletSettings": "tracelet.settings",
    "get_active_experiment": "tracelet.core.active",
    "load_model": "tracelet.models.saving",
    "load_run": "tracelet.journal.load",
    "shared_experiment": "tracelet.core.ranks",
    "start_logging": "tracelet.core.active",
    "stop_logging": "tracelet.core.active",
}

__all__ = [
    "Artifact",
    "BackendPlugin",
    "CollectorPlugin",
    "Experiment",
    "FrameworkPlugin",
    "MetricData",
    "MetricType",
    "PluginBase",
    "PluginMetadata",
    "PluginType",
    "ProcessorPlugin",
    "RoutingRule",
    "Run",
    "RunStatus",
    "TraceletSettings",
    "get_active_experiment",
    "load_model",
    "load_run",
    "shared_experiment",
    "start_logging",
    "stop_logging",
]


def __getattr__(name: str) -> Any:
    """Load a public name when it is used (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'tracelet' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
