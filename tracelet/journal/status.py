"""Whether a run is running, ended or was killed, told from its files alone: no daemon, no server.

Called by readers, on their own thread. A writer notes who it is (`ProcessIdentity`) in the first line of its log. A
reader that finds no end record either proves that this process is gone (same host: pid, start time and boot id), or,
on another host or in another container, goes by the heartbeat: the keeper touches the log every few seconds.
"""

from __future__ import annotations

import enum
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, final

HEARTBEAT_LIMIT_S: Final = 120.0
"""Without a proof, a writer whose log is older than this counts as gone: a dozen missed heartbeats."""


@final
class RunStatus(enum.Enum):
    """How a run stands."""

    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"  # An exception, Ctrl-C, or `stop("failed")`.
    KILLED = "killed"  # The process is gone and never said that it ended.


@final
@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """What tells one process from every other, also after its pid has been given to another.

    Attributes:
        pid: As the process itself sees it.
        start_ticks: When the kernel started it, in clock ticks since boot; None where that can't be told.
        boot: The kernel's boot id; empty where there is none.
        pid_space: The pid namespace: two containers of one host can have the same pid.
        host: The host's name.
    """

    pid: int
    start_ticks: int | None
    boot: str
    pid_space: str
    host: str

    @classmethod
    def own(cls) -> ProcessIdentity:
        """The identity of the process that calls."""
        pid = os.getpid()
        found = _stat(pid)
        return cls(pid, found[1] if found else None, _boot_id(), _pid_space(), socket.gethostname())

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> ProcessIdentity | None:
        """Read `fields()` back; None where they are not what they should be."""
        pid, ticks, rest = fields.get("pid"), fields.get("start_ticks"), ("boot", "pid_space", "host")
        if not isinstance(pid, int) or not 0 < pid < 1 << 31 or not (ticks is None or isinstance(ticks, int)):
            return None
        return cls(pid, ticks, *(str(fields.get(name, "")) for name in rest))

    def fields(self) -> dict[str, Any]:
        """The identity as JSON-like fields."""
        return asdict(self)

    def is_alive(self, heartbeat_age_s: float) -> bool:
        """Whether the process still runs.

        Args:
            heartbeat_age_s: How long ago its log was touched; decides where the process can't be looked up.
        """
        if self.host != socket.gethostname() or self.pid_space != _pid_space():
            return heartbeat_age_s < HEARTBEAT_LIMIT_S
        if self.boot != _boot_id():
            return False  # The host was started anew.
        found = _stat(self.pid)
        if found is None:  # No such process; or it is hidden from us (`hidepid`), or there is no /proc at all.
            return _exists(self.pid) and heartbeat_age_s < HEARTBEAT_LIMIT_S
        state, start_ticks = found
        # A zombie has ended; only its parent has not asked yet.
        return state not in ("Z", "X") and self.start_ticks in (None, start_ticks)


def tell_status(told: Any, facts: Mapping[str, Any], log: Path, *, closed: bool) -> RunStatus:
    """How a run stands, by its main writer.

    Args:
        told: The value of its last status record; None where there is none.
        facts: The first line of its log.
        log: The log, whose age is the heartbeat.
        closed: Whether the log has been closed.
    """
    if told is not None:
        return RunStatus(told) if told in _VALUES else RunStatus.FINISHED
    process = facts.get("process")
    identity = ProcessIdentity.from_fields(process) if isinstance(process, Mapping) else None
    if not closed and identity is not None and identity.is_alive(_age_s(log)):
        return RunStatus.RUNNING
    return RunStatus.KILLED


_VALUES: Final = tuple(status.value for status in RunStatus)


def _age_s(file: Path) -> float:
    try:
        return time.time() - os.stat(file).st_mtime
    except FileNotFoundError:
        return float("inf")


def _stat(pid: int) -> tuple[str, int] | None:
    """State and start time of a process: fields 3 and 22 of proc(5)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="latin-1")
    except OSError:
        return None
    after_name = stat.rpartition(")")[2].split()  # The name may hold blanks and brackets itself.
    return after_name[0], int(after_name[19])


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _pid_space() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # Somebody else's, but there.
        return True
    return True
