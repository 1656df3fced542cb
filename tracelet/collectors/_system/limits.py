"""What the container or job may use, and how near to it this run is. On a machine without limits it gives nothing."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, final

from tracelet.collectors._base import Rates
from tracelet.collectors._cgroup import Cgroup


@final
class LimitsProbe:
    """A `Probe` of the cgroup that this process is in."""

    name = "the cgroup"

    def __init__(self, cgroup: Cgroup | None) -> None:
        self._cgroup = cgroup
        self._rates = Rates()

    def facts(self) -> Iterable[tuple[str, Any]]:
        """The limits, and how many cores this process may run on."""
        yield "cpu/available_count", _available_cores()
        if self._cgroup is not None:
            limits = self._cgroup.limits()
            yield "cpu/limit_cores", limits.cpu_cores
            yield "memory/limit_bytes", limits.memory_bytes
            yield "process/limit", limits.pids

    def read(self, now_s: float) -> Iterable[tuple[str, float]]:
        """Each figure where there is a limit for it; limits may change while a run goes on."""
        if self._cgroup is None:
            return
        limits, usage = self._cgroup.limits(), self._cgroup.usage()
        counters = {}
        if limits.cpu_cores is not None and usage.cpu_s is not None:
            counters["cgroup/cpu_percent_of_limit"] = 100 * usage.cpu_s / limits.cpu_cores
        if limits.cpu_cores is not None and usage.throttled_s is not None:
            counters["cgroup/cpu_throttled_percent"] = 100 * usage.throttled_s
        if limits.memory_bytes is not None and usage.memory_bytes is not None:
            yield "cgroup/memory_bytes", usage.memory_bytes
            yield "cgroup/memory_percent_of_limit", 100 * usage.memory_bytes / limits.memory_bytes
        if usage.out_of_memory_kills:
            yield "cgroup/out_of_memory_kills", usage.out_of_memory_kills
        yield from self._rates.of(now_s, counters).items()

    def close(self) -> None:
        """Nothing is open."""


def _available_cores() -> int | None:
    """What the affinity of this process allows: SLURM and `taskset` set it."""
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # Not on macOS.
        return None
