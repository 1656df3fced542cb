"""How the delivery of a run to one backend stands, for people and other processes.

The worker of the backend writes `delivery/<backend>/status.json`, when something changes and about once a second; the
commands and the experiment read it, with what the cursor and the journal say themselves. Guarantee: a reader sees a
whole report, and whether its process still delivers.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Self, final
from urllib.parse import unquote

from tracelet.core.records import MetricData
from tracelet.delivery.backlog import backlog
from tracelet.delivery.cursor import CURSOR_FILE, Cursor
from tracelet.delivery.lease import is_leased
from tracelet.journal.delivered import DeliveryReader
from tracelet.journal.directory import RunDirectory, delivery_directory, write_atomically
from tracelet.utils.redaction import cleaned

logger = logging.getLogger(__name__)

STATUS_FILE: Final = "status.json"


@final
@dataclass(frozen=True, slots=True)
class DeliveryReport:
    """What the worker says.

    Attributes:
        state: See `WorkerState`.
        pid: The process that delivers, or delivered last.
        errors: Errors of the backend since that process began.
        last_error: The latest of them.
        url: Where a browser finds the run.
        details: What the plug-in's `get_status` says: remote ids and the like.
        written_s: When this was written: Unix time in seconds.
    """

    state: str = "unknown"
    pid: int | None = None
    errors: int = 0
    last_error: str | None = None
    url: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    written_s: float = 0.0

    def write(self, directory: Path) -> None:
        """Put it where `read` finds it. A disk that does not take it costs an old report."""
        try:
            write_atomically(directory / STATUS_FILE, json.dumps(cleaned(asdict(self)), default=str) + "\n")
        except (OSError, TypeError, ValueError) as error:
            logger.debug("the report in %s can't be written: %s", directory, error)

    @classmethod
    def read(cls, directory: Path) -> Self:
        """The last report; one that knows nothing where there is none that can be read."""
        try:
            found = json.loads((directory / STATUS_FILE).read_bytes())
            return cls(**found)
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError, TypeError, RecursionError) as error:
            logger.debug("the report in %s can't be read: %s", directory, error)
            return cls()


@final
@dataclass(frozen=True, slots=True)
class DeliveryStatus:
    """All that is known of the delivery to one backend.

    Attributes:
        delivered: Records that the backend has taken, over all processes.
        waiting: Records in the journal that it has not got; an estimate while records come in.
        uploads: Artifacts among those that wait: they come one after the other, beside all else.
        rejected: Records that it refused, which are in `rejected.jsonl`.
        lag_s: How old the oldest record is that waits, in seconds; 0 where none does.
        closed: The end of the run that the tracker knows of.
        is_active: Whether a process is delivering at this moment.
    """

    backend: str
    delivered: int
    waiting: int
    uploads: int
    rejected: int
    lag_s: float
    closed: str | None
    is_active: bool
    report: DeliveryReport

    @classmethod
    def of(cls, run: RunDirectory, backend: str, end: MetricData | None = None) -> Self:
        """Look at the files.

        Args:
            run: The run.
            backend: The backend's name.
            end: The end of the run, which the backend has to be told of; None while it runs.
        """
        directory = delivery_directory(run.path, backend)
        cursor = Cursor(directory)
        waiting = backlog(run.path, cursor.positions) + len(cursor.aside)
        lag_s = _age_of_oldest_s(run, cursor) if waiting else 0.0
        is_untold = end is not None and cursor.closed != end.value
        return cls(
            backend=backend,
            delivered=cursor.delivered,
            waiting=waiting + (1 if is_untold and not waiting else 0),
            uploads=len(cursor.aside),
            rejected=cursor.rejected,
            lag_s=lag_s,
            closed=cursor.closed,
            is_active=is_leased(directory),
            report=DeliveryReport.read(directory),
        )


def known_backends(run: Path) -> list[str]:
    """Where a run has been sent so far, sorted."""
    return sorted(unquote(file.parent.name, errors="replace") for file in (run / "delivery").glob(f"*/{CURSOR_FILE}"))


def _age_of_oldest_s(run: RunDirectory, cursor: Cursor) -> float:
    times_s = [item.record.timestamp for item in cursor.aside[:1]]
    for _, entry in DeliveryReader(run, cursor.positions):
        if entry.record is not None and entry.record.timestamp is not None:
            times_s.append(entry.record.timestamp)
            break
    return max([0.0, *(time.time() - time_s for time_s in times_s if time_s is not None)])
