"""The training process and the processes below it: CPU, memory, threads, open files, bytes read and written.

The processes below are found by the kernel's own list of children where it has one: looking at each process of a large
machine, as `psutil.Process.children` does, takes longer than everything else here together.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final, final

from tracelet.collectors._base import Rates

_MAX_PROCESSES: Final = 1000  # What comes after them is left out of the sums.


@final
class ProcessProbe:
    """A `Probe` of this process and its descendants."""

    name = "the process"

    def __init__(self, psutil: ModuleType, proc: Path = Path("/proc")) -> None:
        self._psutil = psutil
        self._proc = proc
        self._own = psutil.Process()
        self._below: dict[int, Any] = {}
        self._rates = Rates()

    def facts(self) -> Iterable[tuple[str, Any]]:
        """None: they are the environment collector's."""
        return ()

    def read(self, now_s: float) -> Iterable[tuple[str, float]]:
        """Percentages of CPU: 100 is one core."""
        counters = {}
        with self._own.oneshot():
            counters["cpu/process_percent"] = 100 * _own_cpu_s(self._own.cpu_times())
            cpu_s = _family_cpu_s(self._own.cpu_times())
            rss_bytes = tree_rss_bytes = self._own.memory_info().rss
            yield "process/threads", self._own.num_threads()
            yield "process/open_files", self._own.num_fds()
            done = self._own.io_counters() if self._psutil.LINUX else None  # Another system may not count them.
            if done is not None:
                counters["disk/process_read_bytes_per_s"] = done.read_bytes
                counters["disk/process_written_bytes_per_s"] = done.write_bytes
        count = 1
        for process in self._descendants():
            try:
                with process.oneshot():
                    cpu_s += _family_cpu_s(process.cpu_times())
                    tree_rss_bytes += process.memory_info().rss
                    count += 1
            except self._psutil.Error:  # It has ended just now.
                self._below.pop(process.pid, None)
        counters["cpu/tree_percent"] = 100 * cpu_s
        yield "process/count", count
        yield "memory/rss_bytes", rss_bytes
        yield "memory/tree_rss_bytes", tree_rss_bytes
        yield from self._rates.of(now_s, counters).items()

    def pids(self) -> Iterable[int]:
        """This process and, as of the last reading, those below it."""
        return (self._own.pid, *self._below)

    def close(self) -> None:
        """Forget the processes below."""
        self._below.clear()

    def _descendants(self) -> Iterator[Any]:
        """The processes below this one; their objects are kept, for psutil looks up more for a new one."""
        try:
            pids = set(self._pids_below(self._own.pid))
        except FileNotFoundError:  # A kernel without `CONFIG_PROC_CHILDREN`, or another system.
            yield from self._own.children(recursive=True)[:_MAX_PROCESSES]
            return
        self._below = {pid: process for pid, process in self._below.items() if pid in pids}
        for pid in pids:
            try:
                process = self._below.get(pid)
                if process is None or not process.is_running():  # The pid may be another process's now.
                    process = self._below[pid] = self._psutil.Process(pid)
                yield process
            except self._psutil.Error:
                self._below.pop(pid, None)

    def _pids_below(self, root: int) -> Iterator[int]:
        waiting, found = [root], 0
        while waiting and found < _MAX_PROCESSES:
            pid = waiting.pop()
            for child in self._children(pid, is_root=pid == root):
                waiting.append(child)
                found += 1
                yield child

    def _children(self, pid: int, *, is_root: bool) -> list[int]:
        """Each thread has a list of the children that it made."""
        children: list[int] = []
        tasks = f"{self._proc}/{pid}/task"  # No `Path`: it is ten times as slow, which counts for a hundred threads.
        try:
            for task in os.listdir(tasks):
                with open(f"{tasks}/{task}/children", "rb") as file:
                    children += map(int, file.read().split())
        except (FileNotFoundError, ProcessLookupError):
            # A thread or a process has ended just now, unless the kernel has no such lists.
            if is_root and not os.path.exists(f"{tasks}/{pid}/children"):
                raise
        return children


def _own_cpu_s(times: Any) -> float:
    return float(times.user + times.system)


def _family_cpu_s(times: Any) -> float:
    """With the children that have ended: what they took must not vanish from the sum."""
    return float(times.user + times.system + times.children_user + times.children_system)
