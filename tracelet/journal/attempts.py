"""The attempts of a run: each process that led it, one after the other. Called by `Run`, on the reader's own thread.

An attempt has a writer, and its forked children, its ranks and whoever else joins it have others. The clock may go back
from one attempt to the next, which may be on another host: so what counts is the attempt first, then the time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, final

from tracelet.journal.status import RunStatus

_APART_S: Final = 1.0  # A mark may be older than the journal of its attempt, by the moment that it took to open it.


@final
@dataclass(frozen=True, slots=True)
class Attempt:
    """One process's part of a run. A run that was resumed has several.

    Attributes:
        number: From 1.
        status: How it ended; `killed` where it could not say so.
        began_s: Unix time in seconds.
        last_s: When its last record was written.
        rewound_to: The last step that it left standing of those before it; None where it superseded nothing.
    """

    number: int
    status: RunStatus
    began_s: float
    last_s: float
    rewound_to: int | None


def delays_s(attempts: Iterable[Attempt]) -> dict[int, float]:
    """By how much the times of an attempt have to be later so that it comes after those before it: mostly 0."""
    delays: dict[int, float] = {}
    end_s = float("-inf")
    for attempt in attempts:
        is_late = attempt.began_s > end_s
        delay_s = delays[attempt.number] = 0.0 if is_late else end_s - attempt.began_s + _APART_S
        end_s = max(end_s, attempt.last_s + delay_s)
    return delays
