"""Collectors: each records something about what surrounds a training, on a thread of its own."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from tracelet.core.plugins import CollectorPlugin, PluginManager, PluginMetadata, PluginType
from tracelet.core.records import MetricData

if TYPE_CHECKING:
    from tracelet.settings import TraceletSettings

DEFAULTS: Final[Mapping[str, tuple[str, str | None]]] = {
    "environment": ("environment_collector:EnvironmentCollector", None),
    "git": ("git_collector:GitCollector", "git"),
    "system": ("system_collector:SystemCollector", "psutil"),
}
"""What every run starts unless it is told otherwise: where it is, and the module without which it is left out."""


def register_defaults(plugins: PluginManager, settings: TraceletSettings) -> None:
    """Register the collectors of `DEFAULTS` that can run here, and of whose name the user has none.

    Called on the thread that starts an experiment, so it imports nothing, and only looks for the modules.
    """
    allow, deny = settings.plugins_allow, settings.plugins_deny
    for name, (target, module) in DEFAULTS.items():
        is_allowed = name not in deny and (allow is None or name in allow)
        if name not in plugins and is_allowed and (module is None or find_spec(module) is not None):
            plugins.register_plugin(_late(name, target))


def _late(name: str, target: str) -> CollectorPlugin:
    """A collector that its own thread imports: that takes some 20 ms, for which no training should wait."""

    class LateCollector(CollectorPlugin):
        """Stands for the collector until it is initialised, and hands everything on to it."""

        _made: CollectorPlugin

        @classmethod
        def get_metadata(cls) -> PluginMetadata:
            return PluginMetadata(name, "1.0.0", PluginType.COLLECTOR)

        def initialize(self, config: dict[str, Any]) -> None:
            module, _, class_name = target.partition(":")
            self._made = getattr(importlib.import_module(f"{__name__}.{module}"), class_name)()
            self._made.initialize(config)

        def start(self) -> None:
            self._made.start()

        def stop(self) -> None:
            self._made.stop()

        def get_status(self) -> dict[str, Any]:
            return self._made.get_status() if "_made" in vars(self) else {}

        def collect(self) -> Sequence[MetricData]:
            return self._made.collect()

    return LateCollector()
