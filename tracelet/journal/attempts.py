"""The attempts of a run: each process that led it, one after the other. Called by `Run`, on the reader's own thread.

An attempt has a writer, and its forked children, its ranks and whoever else joins it have others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from tracelet.journal.status import RunStatus


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
