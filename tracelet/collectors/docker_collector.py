"""Collects what the container that the training runs in uses: CPU, memory, disk, network, processes, limits, image.

Every call comes on the thread `tracelet-docker`. Outside of a container it is quiet. Where the engine can be asked
(its socket is in the container, or `DOCKER_HOST` leads to it), it is: Docker, and Podman by the same interface. Else
the kernel is, which knows all but the image and the name. Nothing is ever changed in the engine, and neither the
container's variables nor its labels are read: they may hold credentials.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from typing import Any, Final, Protocol, final

from tracelet.collectors._base import CollectorSettings, Rates, Sources, curves, facts
from tracelet.collectors._cgroup import Cgroup
from tracelet.collectors._container import container_id
from tracelet.collectors._docker.engine import EngineSource
from tracelet.collectors._docker.kernel import KernelSource
from tracelet.collectors._docker.reading import ContainerReading
from tracelet.core.plugins import CollectorPlugin, PluginMetadata, PluginType
from tracelet.core.records import MetricData
from tracelet.utils.imports import missing

logger = logging.getLogger(__name__)

_SOURCE: Final = "docker_collector"
_DEPENDENCY: Final = "docker>=7"


class ContainerSource(Protocol):
    """Tells about one container. Every call comes on the collector's thread."""

    def facts(self) -> Iterable[tuple[str, Any]]:
        """What does not change; asked once."""

    def read(self) -> ContainerReading:
        """What it has used so far, and uses now."""

    def close(self) -> None:
        """Let go of the connection."""


@final
class DockerSettings(CollectorSettings):
    """What can be set.

    Attributes:
        container: The id or name of another container than this process's own; the engine is asked then.
        timeout_s: How long the engine may take to answer.
    """

    container: str | None = None
    timeout_s: float = 10.0


@final
class DockerCollector(CollectorPlugin):
    """Collects the curves `docker/…` and the parameters `env/docker/…`."""

    def __init__(self) -> None:
        self._settings = DockerSettings()
        self._container_id: str | None = None
        self._source: ContainerSource | None = None
        self._sources = Sources("docker")
        self._rates = Rates()
        self._told = False

    @classmethod
    def get_metadata(cls) -> PluginMetadata:
        """Needs nothing; `docker`, the SDK, to ask the engine."""
        return PluginMetadata(
            name="docker",
            version="1.0.0",
            type=PluginType.COLLECTOR,
            description="CPU, memory, disk, network and limits of the container",
            author="Tracelet",
            capabilities={"system_metrics", "resource_monitoring"},
        )

    def initialize(self, config: dict[str, Any]) -> None:
        """Take the settings, and find the container.

        Raises:
            SettingsError: They are wrong.
        """
        self._settings = DockerSettings.parse("docker", config)
        self._container_id = self._settings.container or container_id()

    def start(self) -> None:
        """Find who tells about the container.

        Raises:
            MissingDependencyError: Another container was named, and the SDK is not installed.
            ConnectionError: Another container was named, and no engine tells of it.
        """
        self.stop()
        self._active, self._told, self._rates = True, False, Rates()
        if self._container_id is not None:
            self._source = self._find(self._container_id)

    def stop(self) -> None:
        """Let go of the engine."""
        self._active = False
        source, self._source = self._source, None
        if source is not None:
            source.close()

    def get_status(self) -> dict[str, Any]:
        """Which container it is, and who tells about it."""
        return {
            "active": self._active,
            "container_id": self._container_id,
            "interval": self._settings.interval,
            "source": None if self._source is None else type(self._source).__name__,
        }

    def collect(self) -> Sequence[MetricData]:
        """One reading; the first one has the facts, too, and no rates yet."""
        if not self._active or self._source is None:
            return []
        records: list[MetricData] = []
        if not self._told:
            self._told = True
            records += facts(_SOURCE, (("docker/container", self._container_id),))
            records += facts(_SOURCE, self._sources.read("the container's facts", self._source.facts))
        return [*records, *curves(_SOURCE, self._sources.read("the container", self._read, self._source))]

    def _find(self, container: str) -> ContainerSource:
        is_own = self._settings.container is None
        cgroup = Cgroup.find() if is_own else None
        if not missing([_DEPENDENCY]) or not is_own:
            try:
                return EngineSource(container, self._settings.timeout_s)
            except ConnectionError as error:
                if cgroup is None:
                    raise
                logger.debug("no engine tells about the container %.12s: %s", container, error)
        return KernelSource(cgroup)

    def _read(self, source: ContainerSource) -> Iterable[tuple[str, float]]:
        reading = source.read()
        values: dict[str, float | None] = {
            "memory_bytes": reading.memory_bytes,
            "memory_limit_bytes": reading.memory_limit_bytes,
            "memory_percent": _percent(reading.memory_bytes, reading.memory_limit_bytes),
            "processes": reading.pids,
            "processes_limit": reading.pids_limit,
            "cpu_limit_cores": reading.cpu_limit_cores,
            "out_of_memory_kills": reading.out_of_memory_kills,
        }
        counters: dict[str, float | None] = {
            "cpu_percent": None if reading.cpu_s is None else 100 * reading.cpu_s,
            "cpu_throttled_percent": None if reading.throttled_s is None else 100 * reading.throttled_s,
            "disk_read_bytes_per_s": reading.read_bytes,
            "disk_written_bytes_per_s": reading.written_bytes,
            "network_received_bytes_per_s": reading.received_bytes,
            "network_sent_bytes_per_s": reading.sent_bytes,
        }
        now_s = time.monotonic() if reading.time_s is None else reading.time_s
        rates = self._rates.of(now_s, {name: value for name, value in counters.items() if value is not None})
        yield from ((f"docker/{name}", float(value)) for name, value in values.items() if value is not None)
        yield from ((f"docker/{name}", value) for name, value in rates.items())


def _percent(part: float | None, whole: float | None) -> float | None:
    return 100 * part / whole if part is not None and whole else None
