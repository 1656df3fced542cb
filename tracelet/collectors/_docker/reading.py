"""What can be told about a container at one moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerReading:
    """One reading; None where it is not known.

    Attributes:
        time_s: When it was taken, by any clock that does not jump; None: now.
        cpu_s, throttled_s: CPU time that it has used, and time for which it had to wait for its quota, so far.
        cpu_limit_cores: 1.5 is the time of one and a half cores.
        memory_bytes: Now, without what the kernel takes back when it needs room.
        memory_limit_bytes: Where it ends; for a container without a limit, of its own or its host's.
        pids, pids_limit: Processes and threads.
        read_bytes, written_bytes: From and to disks so far.
        received_bytes, sent_bytes: On all networks so far.
        out_of_memory_kills: Processes that the kernel has killed so far.
    """

    time_s: float | None = None
    cpu_s: float | None = None
    throttled_s: float | None = None
    cpu_limit_cores: float | None = None
    memory_bytes: int | None = None
    memory_limit_bytes: int | None = None
    pids: int | None = None
    pids_limit: int | None = None
    read_bytes: int | None = None
    written_bytes: int | None = None
    received_bytes: int | None = None
    sent_bytes: int | None = None
    out_of_memory_kills: int | None = None
