"""What a tracker does to records that it can't take as they are, and what it holds: for `plan` and `verify`.

Plain values without behaviour, made on whichever thread asks a backend.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple, final


@final
class ChangeKind(enum.Enum):
    """What becomes of a record, or of a part of it."""

    RENAMED = "renamed"  # The name is escaped or shortened; the true one is kept beside it where there is room.
    CUT = "cut"  # A part of the value is missing.
    CHANGED = "changed"  # The value is stored as another value or type.
    DROPPED = "dropped"  # The tracker gets nothing of it.


@final
@dataclass(frozen=True, slots=True)
class Change:
    """One way in which a tracker does not hold a record as it was logged.

    Attributes:
        kind: What happens.
        why: The tracker's limit, for people: `MLflow has no infinity`.
        becomes: What is stored instead, as a text; None where that is nothing, or goes without saying.
    """

    kind: ChangeKind
    why: str
    becomes: str | None = None


class StoredPoint(NamedTuple):
    """One point of a series, as a tracker holds it.

    Attributes:
        step: None where the tracker has none for it.
        value: NaN and infinities included.
        time_s: Unix time in seconds; None where the tracker does not keep the record's own.
    """

    step: int | None
    value: float
    time_s: float | None
