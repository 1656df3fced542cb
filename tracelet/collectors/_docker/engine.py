"""What the engine tells about a container: Docker, and Podman, which answers in the same form with other gaps.

A reading asks for one sample (`one_shot`); else the engine would take two, a second apart. So shares are computed from
our own two last samples, by the engine's clock, and not by `percpu_usage`, which cgroup v2 and Podman do not have.
"""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, Final, final

from tracelet.collectors._docker.reading import ContainerReading
from tracelet.utils.imports import require

_NANOSECONDS: Final = 1e9
_NANOSECOND_DIGITS: Final = re.compile(r"(\.\d{6})\d+")  # Python reads microseconds.


@final
class EngineSource:
    """A `ContainerSource` that asks the engine."""

    def __init__(self, container: str, timeout_s: float) -> None:
        """Connect, as `DOCKER_HOST` says.

        Args:
            container: Id or name.
            timeout_s: How long one answer may take.

        Raises:
            MissingDependencyError: The SDK is not installed.
            ConnectionError: There is no engine, or it has no such container.
        """
        address = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
        if address.startswith("unix://") and not os.path.exists(address.removeprefix("unix://")):
            raise ConnectionError(f"there is no {address}")  # So in most containers: the SDK need not be imported.
        docker = require("docker", "The docker collector")
        try:
            self._client = docker.DockerClient.from_env(timeout=timeout_s)
        except docker.errors.DockerException as error:
            raise ConnectionError(str(error)) from error
        try:
            self._inspected = self._client.api.inspect_container(container)
        except (docker.errors.DockerException, OSError) as error:
            self._client.close()
            raise ConnectionError(str(error)) from error
        self._id = self._inspected["Id"]
        self._has_one_shot = docker.utils.version_gte(self._client.api.api_version, "1.41")

    def facts(self) -> Iterable[tuple[str, Any]]:
        """Name, image, limits. Not the variables and labels."""
        config, host = self._inspected.get("Config") or {}, self._inspected.get("HostConfig") or {}
        yield "docker/name", str(self._inspected.get("Name", "")).lstrip("/") or None
        yield "docker/image", config.get("Image")
        yield "docker/image_id", self._inspected.get("Image")
        yield "docker/image_digest", self._digest()
        yield "docker/restart_count", self._inspected.get("RestartCount")
        yield "docker/memory_limit_bytes", host.get("Memory") or None
        yield "docker/cpu_limit_cores", _cores(host)
        yield "docker/runtime", host.get("Runtime") or None
        yield "docker/network_mode", host.get("NetworkMode") or None
        with suppress(Exception):  # A proxy before the socket may not let it through.
            version = self._client.version()
            yield "docker/engine", version.get("Version")

    def read(self) -> ContainerReading:
        """One sample."""
        return reading_of(self._client.api.stats(self._id, stream=False, **self._options), self._inspected)

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()

    @property
    def _options(self) -> dict[str, bool]:
        return {"one_shot": True} if self._has_one_shot else {}

    def _digest(self) -> str | None:
        """What names the image in its registry; one that was built here has none."""
        image = self._inspected.get("Image")
        if not image:
            return None
        with suppress(Exception):  # The image may have been removed meanwhile.
            digests = self._client.api.inspect_image(image).get("RepoDigests") or []
            return str(digests[0]) if digests else None
        return None


def reading_of(stats: Mapping[str, Any], inspected: Mapping[str, Any]) -> ContainerReading:
    """Understand a sample of either version of cgroups, of Docker or Podman; each part may be missing.

    Args:
        stats: The engine's answer to `/containers/ID/stats`.
        inspected: Its answer to `/containers/ID/json`.
    """
    cpu, memory = stats.get("cpu_stats") or {}, stats.get("memory_stats") or {}
    used, limit = memory.get("usage"), memory.get("limit")
    details = memory.get("stats") or {}
    cache = details.get("total_inactive_file", details.get("inactive_file", 0))  # Version 1 or 2.
    pids, networks = stats.get("pids_stats") or {}, stats.get("networks")
    blocks = (stats.get("blkio_stats") or {}).get("io_service_bytes_recursive")
    taken_ns, throttled_ns = (cpu.get("cpu_usage") or {}).get("total_usage"), None
    cores = _cores(inspected.get("HostConfig") or {})
    if cores is not None:
        throttled_ns = (cpu.get("throttling_data") or {}).get("throttled_time")
    return ContainerReading(
        time_s=_time_s(stats.get("read")),
        cpu_s=None if taken_ns is None else taken_ns / _NANOSECONDS,
        throttled_s=None if throttled_ns is None else throttled_ns / _NANOSECONDS,
        cpu_limit_cores=cores,
        memory_bytes=None if used is None else max(0, used - cache),
        memory_limit_bytes=limit if limit and limit < 1 << 60 else None,
        pids=pids.get("current"),
        pids_limit=pids.get("limit") if 0 < (pids.get("limit") or 0) < 1 << 60 else None,
        read_bytes=_blocks(blocks, "read"),
        written_bytes=_blocks(blocks, "write"),
        received_bytes=None if networks is None else sum(net.get("rx_bytes", 0) for net in networks.values()),
        sent_bytes=None if networks is None else sum(net.get("tx_bytes", 0) for net in networks.values()),
    )


def _blocks(entries: Any, operation: str) -> int | None:
    """The operations are `Read` with version 1, and `read` with version 2."""
    if entries is None:
        return None
    return sum(int(entry["value"]) for entry in entries if str(entry.get("op", "")).lower() == operation)


def _cores(host: Mapping[str, Any]) -> float | None:
    """`--cpus`, or a quota and its period."""
    nano, quota = host.get("NanoCpus") or 0, host.get("CpuQuota") or 0
    if nano > 0:
        return float(nano) / _NANOSECONDS
    return float(quota) / float(host.get("CpuPeriod") or 100_000) if quota > 0 else None


def _time_s(text: Any) -> float | None:
    """A time of the engine's, with nanoseconds and `Z` or an offset, as Unix time; None where it is none."""
    try:
        return datetime.datetime.fromisoformat(_NANOSECOND_DIGITS.sub(r"\1", str(text))).timestamp()
    except ValueError:
        return None
