"""The machine as a whole: CPU, memory, swap, disks, network. What else runs on it is in these figures, too."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, final

from tracelet.collectors._base import Rates


@final
class MachineProbe:
    """A `Probe` of the machine."""

    name = "the machine"

    def __init__(self, psutil: ModuleType, place: Path) -> None:
        """Make one.

        Args:
            psutil: The module.
            place: The run directory: the filesystem that it is on is watched.
        """
        self._psutil = psutil
        self._place = place
        self._rates = Rates()
        self._cpu_before: tuple[float, float] | None = None

    def facts(self) -> Iterable[tuple[str, Any]]:
        """Sizes."""
        yield "cpu/count", self._psutil.cpu_count()
        yield "cpu/physical_count", self._psutil.cpu_count(logical=False)
        yield "memory/total_bytes", self._psutil.virtual_memory().total

    def read(self, now_s: float) -> Iterable[tuple[str, float]]:
        """`cpu/machine_percent` is of all cores together: 100 is the whole machine."""
        busy_s, total_s = _busy_and_total_s(self._psutil.cpu_times())
        if self._cpu_before is not None and (passed_s := total_s - self._cpu_before[1]) > 0:
            yield "cpu/machine_percent", 100 * min(1.0, max(0.0, busy_s - self._cpu_before[0]) / passed_s)
        self._cpu_before = busy_s, total_s
        memory, swap = self._psutil.virtual_memory(), self._psutil.swap_memory()
        yield "memory/machine_used_bytes", memory.total - memory.available
        yield "memory/machine_percent", memory.percent
        if swap.total:
            yield "memory/swap_used_bytes", swap.used
        usage = self._psutil.disk_usage(str(self._place))
        yield "disk/used_percent", usage.percent
        yield "disk/free_bytes", usage.free
        yield from self._rates.of(now_s, self._counters()).items()

    def close(self) -> None:
        """Nothing is open."""

    def _counters(self) -> dict[str, float]:
        counters = {}
        # Not `nowrap`: its state belongs to the whole process, and `Rates` knows of counters that went back.
        disks = self._psutil.disk_io_counters(nowrap=False)
        if disks is not None:  # A container may see none.
            counters["disk/read_bytes_per_s"] = disks.read_bytes
            counters["disk/written_bytes_per_s"] = disks.write_bytes
        cards = self._psutil.net_io_counters(pernic=True, nowrap=False)
        outside = [card for name, card in cards.items() if not name.startswith("lo")]
        counters["network/received_bytes_per_s"] = sum(card.bytes_recv for card in outside)
        counters["network/sent_bytes_per_s"] = sum(card.bytes_sent for card in outside)
        return counters


def _busy_and_total_s(times: Any) -> tuple[float, float]:
    """Seconds of all cores since the start. Linux counts guests among the users already."""
    guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
    total_s = sum(times) - guests
    return total_s - times.idle - getattr(times, "iowait", 0.0), total_s
