"""What a container or a job may use, and what it uses: read from the cgroup of this process, version 1 or 2.

Called on the thread of the system or the docker collector. Inside a container the host's figures mean little: its
memory ends at the limit of the cgroup, and its CPU is throttled by the quota.

A hierarchy is found by `/proc/self/mountinfo` and `/proc/self/cgroup`. In a container the mount usually shows the
container's own cgroup as its root; then the path that `/proc/self/cgroup` tells does not exist below it, and the root
is taken. A limit may be set on any level, so the tightest one up to the root counts.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

_CONTROLLERS: Final[Sequence[str]] = ("cpu", "cpuacct", "memory", "pids", "blkio")
_NO_LIMIT_BYTES: Final = 1 << 60  # Version 1 writes 2**63 less a page where there is none.
_ESCAPED: Final = re.compile(r"\\([0-7]{3})")  # `\040` is a blank in a path of mountinfo.


@final
@dataclass(frozen=True, slots=True)
class Limits:
    """What the cgroup may use; None where nothing is set.

    Attributes:
        cpu_cores: 1.5 is one and a half cores' time.
        memory_bytes: Its end: there the kernel kills.
        pids: Processes and threads.
    """

    cpu_cores: float | None
    memory_bytes: int | None
    pids: int | None


@final
@dataclass(frozen=True, slots=True)
class Usage:
    """What the cgroup has used, or uses now; None where the kernel does not tell.

    Attributes:
        cpu_s: CPU time so far.
        throttled_s: Time for which it had to wait for its quota so far.
        memory_bytes: Now, without the pages that the kernel takes back when it needs room (`inactive_file`).
        pids: Processes and threads now.
        read_bytes, written_bytes: To and from disks so far.
        out_of_memory_kills: Processes that the kernel has killed so far.
    """

    cpu_s: float | None
    throttled_s: float | None
    memory_bytes: int | None
    pids: int | None
    read_bytes: int | None
    written_bytes: int | None
    out_of_memory_kills: int | None


@final
class Cgroup:
    """The cgroup of this process."""

    def __init__(self, folders: Mapping[str, Path], roots: Mapping[str, Path], *, is_v2: bool) -> None:
        """Use `find`.

        Args:
            folders: The folder of each controller that matters; of version 2 it is one and the same.
            roots: Where the levels above end.
            is_v2: Which files to read.
        """
        self._folders = folders
        self._roots = roots
        self.version = 2 if is_v2 else 1

    @classmethod
    def find(cls, proc: Path = Path("/proc/self"), root: Path = Path("/")) -> Cgroup | None:
        """The cgroup of a process; None where there is none that can be read.

        Args:
            proc: Its folder in `/proc`.
            root: Where the paths of its mounts begin.
        """
        try:
            mounts = list(_mounts((proc / "mountinfo").read_text()))
            paths = dict(_paths((proc / "cgroup").read_text()))
        except OSError:
            return None
        folders: dict[str, Path] = {}
        roots: dict[str, Path] = {}
        is_v2 = False
        for controller in _CONTROLLERS:
            for kind, controllers, mounted_root, point in mounts:
                if kind == "cgroup" and controller in controllers and controller in paths:
                    roots[controller] = root / point.lstrip("/")
                    folders[controller] = _folder(roots[controller], mounted_root, paths[controller])
        if not folders and "" in paths:
            is_v2 = True
            for kind, _, mounted_root, point in mounts:
                if kind == "cgroup2":
                    top = root / point.lstrip("/")
                    folders = dict.fromkeys(_CONTROLLERS, _folder(top, mounted_root, paths[""]))
                    roots = dict.fromkeys(_CONTROLLERS, top)
        return cls(folders, roots, is_v2=is_v2) if folders else None

    def limits(self) -> Limits:
        """What it may use: the least over all levels."""
        if self.version == 2:
            return Limits(
                self._least("cpu", _quota_v2),
                _whole(self._least("memory", lambda folder: _limit(folder / "memory.max"))),
                _whole(self._least("pids", lambda folder: _limit(folder / "pids.max"))),
            )
        return Limits(
            self._least("cpu", _quota_v1),
            _whole(self._least("memory", lambda folder: _limit(folder / "memory.limit_in_bytes"))),
            _whole(self._least("pids", lambda folder: _limit(folder / "pids.max"))),
        )

    def usage(self) -> Usage:
        """What it uses."""
        return self._usage_v2() if self.version == 2 else self._usage_v1()

    def _usage_v2(self) -> Usage:
        cpu, memory = self._table("cpu", "cpu.stat"), self._table("memory", "memory.stat")
        used, disks = self._number("memory", "memory.current"), self._disks_v2()
        return Usage(
            cpu_s=_seconds(cpu.get("usage_usec"), 1e6),
            throttled_s=_seconds(cpu.get("throttled_usec"), 1e6),
            memory_bytes=None if used is None else max(0, used - memory.get("inactive_file", 0)),
            pids=self._number("pids", "pids.current"),
            read_bytes=disks.get("rbytes"),
            written_bytes=disks.get("wbytes"),
            out_of_memory_kills=self._table("memory", "memory.events").get("oom_kill"),
        )

    def _usage_v1(self) -> Usage:
        cpu, memory = self._table("cpu", "cpu.stat"), self._table("memory", "memory.stat")
        used, disks = self._number("memory", "memory.usage_in_bytes"), self._disks_v1()
        return Usage(
            cpu_s=_seconds(self._number("cpuacct", "cpuacct.usage"), 1e9),
            throttled_s=_seconds(cpu.get("throttled_time"), 1e9),
            memory_bytes=None if used is None else max(0, used - memory.get("total_inactive_file", 0)),
            pids=self._number("pids", "pids.current"),
            read_bytes=disks.get("Read"),
            written_bytes=disks.get("Write"),
            out_of_memory_kills=self._table("memory", "memory.oom_control").get("oom_kill"),
        )

    def _disks_v2(self) -> dict[str, int]:
        """A line a device: `8:0 rbytes=1 wbytes=2 rios=…`."""
        sums: dict[str, int] = {}
        for line in self._text("blkio", "io.stat").splitlines():
            for word in line.split()[1:]:
                name, _, value = word.partition("=")
                if value.isdigit():
                    sums[name] = sums.get(name, 0) + int(value)
        return sums

    def _disks_v1(self) -> dict[str, int]:
        """A line for a device and an operation: `8:0 Read 1`."""
        sums: dict[str, int] = {}
        for line in self._text("blkio", "blkio.throttle.io_service_bytes").splitlines():
            words = line.split()
            if len(words) == 3 and words[2].isdigit():
                sums[words[1]] = sums.get(words[1], 0) + int(words[2])
        return sums

    def _least(self, controller: str, limit: Callable[[Path], float | None]) -> float | None:
        folder, top = self._folders.get(controller), self._roots.get(controller)
        found: list[float] = []
        while folder is not None and top is not None and folder.is_relative_to(top):
            value = limit(folder)
            if value is not None:
                found.append(value)
            folder = folder.parent
        return min(found, default=None)

    def _text(self, controller: str, file: str) -> str:
        folder = self._folders.get(controller)
        return "" if folder is None else _text(folder / file)

    def _number(self, controller: str, file: str) -> int | None:
        text = self._text(controller, file).strip()
        return int(text) if text.isdigit() else None

    def _table(self, controller: str, file: str) -> dict[str, int]:
        """Lines of a name and a number."""
        pairs = (line.split() for line in self._text(controller, file).splitlines())
        return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def _text(path: Path) -> str:
    """What a file says; nothing where the kernel has no such file, or the controller has gone."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _mounts(text: str) -> Iterator[tuple[str, list[str], str, str]]:
    """(kind, controllers, what is mounted, where) of each cgroup mount. See proc(5)."""
    for line in text.splitlines():
        front, _, back = line.partition(" - ")
        fields, kinds = front.split(), back.split()
        if len(fields) > 4 and len(kinds) > 2 and kinds[0] in ("cgroup", "cgroup2"):
            yield kinds[0], kinds[2].split(","), _unescaped(fields[3]), _unescaped(fields[4])


def _paths(text: str) -> Iterator[tuple[str, str]]:
    """(controller, path) of each line of `/proc/self/cgroup`; the controller of version 2 is `""`."""
    for line in text.splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        for controller in controllers.split(","):
            yield controller, path


def _unescaped(path: str) -> str:
    return _ESCAPED.sub(lambda match: chr(int(match[1], 8)), path)


def _folder(point: Path, mounted_root: str, path: str) -> Path:
    """Where a cgroup is below a mount point that shows the hierarchy from `mounted_root` on."""
    relative = os.path.relpath(path, mounted_root) if mounted_root != "/" else path.lstrip("/")
    found = point / relative
    return found if not relative.startswith("..") and found.is_dir() else point


def _limit(path: Path) -> float | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() and int(text) < _NO_LIMIT_BYTES else None


def _quota_v2(folder: Path) -> float | None:
    quota, _, period = _text(folder / "cpu.max").strip().partition(" ")
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() and int(period) else None


def _quota_v1(folder: Path) -> float | None:
    quota, period = _text(folder / "cpu.cfs_quota_us").strip(), _text(folder / "cpu.cfs_period_us").strip()
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() and int(period) else None


def _seconds(ticks: int | None, ticks_per_s: float) -> float | None:
    return None if ticks is None else ticks / ticks_per_s


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)
