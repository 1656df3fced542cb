"""What the kernel tells the container about itself, without an engine."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, final

from tracelet.collectors._cgroup import Cgroup
from tracelet.collectors._docker.reading import ContainerReading


@final
class KernelSource:
    """A `ContainerSource` of the container that this process is in."""

    def __init__(self, cgroup: Cgroup | None, proc: Path = Path("/proc/self")) -> None:
        self._cgroup = cgroup
        self._network = proc / "net" / "dev"

    def facts(self) -> Iterable[tuple[str, Any]]:
        """Which version of cgroups it is."""
        if self._cgroup is not None:
            yield "docker/cgroup_version", self._cgroup.version

    def read(self) -> ContainerReading:
        """The cgroup's figures, and the network's: that is the container's own, unless it shares the host's."""
        received, sent = self._traffic()
        if self._cgroup is None:
            return ContainerReading(received_bytes=received, sent_bytes=sent)
        usage, limits = self._cgroup.usage(), self._cgroup.limits()
        return ContainerReading(
            cpu_s=usage.cpu_s,
            throttled_s=usage.throttled_s if limits.cpu_cores is not None else None,
            cpu_limit_cores=limits.cpu_cores,
            memory_bytes=usage.memory_bytes,
            memory_limit_bytes=limits.memory_bytes,
            pids=usage.pids,
            pids_limit=limits.pids,
            read_bytes=usage.read_bytes,
            written_bytes=usage.written_bytes,
            received_bytes=received,
            sent_bytes=sent,
            out_of_memory_kills=usage.out_of_memory_kills,
        )

    def close(self) -> None:
        """Nothing is open."""

    def _traffic(self) -> tuple[int | None, int | None]:
        """Bytes received and sent on all devices but the loopback."""
        try:
            lines = self._network.read_text(encoding="ascii", errors="replace").splitlines()[2:]
        except OSError:
            return None, None
        devices = (line.partition(":") for line in lines)
        rows = [numbers.split() for name, _, numbers in devices if name.strip() != "lo"]
        return sum(int(row[0]) for row in rows), sum(int(row[8]) for row in rows)
