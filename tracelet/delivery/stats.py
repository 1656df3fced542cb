"""How a delivery worker stands. Plain values, for any thread."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import final


@final
class WorkerState(enum.Enum):
    """See `DeliveryWorker`'s module."""

    NEW = "new"  # Made; no thread exists.
    CONNECTING = "connecting"  # The backend's `initialize` and `start` are tried.
    DELIVERING = "delivering"  # The thread reads and delivers.
    DRAINING = "draining"  # `request_stop` was called: what is there is delivered, then the end.
    ENDED = "ended"  # The thread is done; the backend is stopped.


@final
@dataclass(frozen=True, slots=True)
class WorkerStats:
    """How a backend's delivery stands.

    Attributes:
        waiting: Records in the journal that the backend has not got, artifacts on their way included; an estimate while
            records come in.
        lag_s: How far the backend is behind the run, in seconds; 0 where nothing waits.
        errors: Errors of the backend so far: each attempt that found it away, and each record that it rejected.
    """

    state: str
    delivered: int
    rejected: int
    waiting: int
    lag_s: float
    errors: int
    last_error: str | None
    url: str | None
