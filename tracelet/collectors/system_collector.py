"""Collects what the machine and the process are doing: CPU, memory, disk, network, limits of the container, GPUs.

Every call comes on the thread `tracelet-system`. A source that fails costs only its own records. What a reading costs
is itself a series, `system/collector/cpu_ms`.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, final

from tracelet.collectors._base import CollectorSettings, Sources, curves, facts
from tracelet.collectors._cgroup import Cgroup
from tracelet.collectors._system.amd import AmdProbe
from tracelet.collectors._system.limits import LimitsProbe
from tracelet.collectors._system.machine import MachineProbe
from tracelet.collectors._system.nvidia import NvidiaProbe
from tracelet.collectors._system.probe import Probe
from tracelet.collectors._system.process import ProcessProbe
from tracelet.core.plugins import CollectorPlugin, PluginMetadata, PluginType
from tracelet.core.records import MetricData
from tracelet.utils.imports import require

logger = logging.getLogger(__name__)

_SOURCE: Final = "system_collector"


@final
class SystemSettings(CollectorSettings):
    """What can be set.

    Attributes:
        gpu: Whether GPUs are looked for.
    """

    gpu: bool = True


@final
class SystemCollector(CollectorPlugin):
    """Collects the curves `system/…`, and as parameters `env/cpu/…`, `env/memory/…` and `env/gpu/…`."""

    def __init__(self) -> None:
        self._settings = SystemSettings()
        self._place = Path()
        self._sources = Sources("system")
        self._probes: list[Probe] = []
        self._open = ExitStack()
        self._facts_told = False

    @classmethod
    def get_metadata(cls) -> PluginMetadata:
        """Needs `psutil`; GPUs need `nvidia-ml-py` or `amdsmi` besides."""
        return PluginMetadata(
            name="system",
            version="1.0.0",
            type=PluginType.COLLECTOR,
            description="CPU, memory, disk, network, limits of the container, GPUs",
            author="Tracelet",
            dependencies=["psutil>=5.9"],
            capabilities={"system_metrics", "resource_monitoring", "gpu"},
        )

    def initialize(self, config: dict[str, Any]) -> None:
        """Take the settings.

        Raises:
            SettingsError: They are wrong.
        """
        self._settings = SystemSettings.parse("system", config)
        self._place = Path(config["run_dir"]) if "run_dir" in config else Path.cwd()

    def start(self) -> None:
        """Find the sources.

        Raises:
            MissingDependencyError: psutil is not installed.
        """
        self.stop()
        psutil = require("psutil", "The system collector", extra="system")
        process = ProcessProbe(psutil)
        self._probes = [process, MachineProbe(psutil, self._place), LimitsProbe(Cgroup.find())]
        if self._settings.gpu:
            self._probes += self._sources.read("GPUs", _gpus, process)
        for probe in self._probes:
            self._open.callback(probe.close)
        self._active, self._facts_told = True, False

    def stop(self) -> None:
        """Let go of the sources."""
        self._active, self._probes = False, []
        self._open.close()

    def get_status(self) -> dict[str, Any]:
        """Which sources there are, and which have failed."""
        return {
            "active": self._active,
            "interval": self._settings.interval,
            "sources": [probe.name for probe in self._probes],
            "failed": self._sources.failed,
        }

    def collect(self) -> Sequence[MetricData]:
        """One reading; the first one has the facts, too, and no rates yet."""
        if not self._active:
            return []
        began_ns, now_s = time.thread_time_ns(), time.monotonic()
        records: list[MetricData] = []
        if not self._facts_told:
            self._facts_told = True
            for probe in self._probes:
                records += facts(_SOURCE, self._sources.read(probe.name, probe.facts))
        values: list[tuple[str, float]] = []
        for probe in self._probes:
            values += self._sources.read(probe.name, probe.read, now_s)
        values.append(("collector/cpu_ms", (time.thread_time_ns() - began_ns) / 1e6))
        return [*records, *curves(_SOURCE, ((f"system/{name}", float(value)) for name, value in values))]


def _gpus(process: ProcessProbe) -> Iterable[Probe]:
    """The GPUs of the first vendor that has some here."""
    if _is_installed("pynvml"):
        try:
            return [NvidiaProbe(require("pynvml", "The system collector"), process.pids)]
        except LookupError as error:
            logger.debug("no GPU of NVIDIA's: %s", error)
    elif os.path.exists("/dev/nvidiactl"):
        logger.info("there is a GPU of NVIDIA's. To record its curves: pip install 'tracelet[gpu]'")
    if os.path.exists("/dev/kfd") and _is_installed("amdsmi"):
        try:
            return [AmdProbe(require("amdsmi", "The system collector"))]
        except LookupError as error:
            logger.debug("no GPU of AMD's: %s", error)
    return []


def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
