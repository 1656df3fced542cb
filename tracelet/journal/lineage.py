"""Which runs have used a run's artifacts: told by the logs of the runs beside it. On the reader's own thread.

A log is parsed only where its bytes name the run, so that thousands of runs are looked through in a second or so.
"""

from __future__ import annotations

import logging
import mmap
from collections.abc import Iterator
from pathlib import Path

from tracelet.core.records import USED_NAME
from tracelet.errors import JournalError
from tracelet.journal.load import Run

logger = logging.getLogger(__name__)


def users_of(run: Run) -> dict[tuple[str, str], list[str]]:
    """The ids of the runs in the same directory that used an artifact, by its name and version; the oldest first."""
    found: dict[tuple[str, str], dict[str, None]] = {}
    for user in sorted(_naming(run.path.parent.parent, run.uuid), key=lambda user: user.created_s):
        for used in user.used_artifacts():
            if used.get("run_uuid") == run.uuid:
                found.setdefault((str(used.get("name")), str(used.get("version"))), {})[user.id] = None
    return {key: list(ids) for key, ids in found.items()}


def _naming(directory: Path, run_uuid: str) -> Iterator[Run]:
    """The runs whose logs name another run's artifacts."""
    for path in {log.parent for log in directory.glob("*/*/*.log") if _holds(log, USED_NAME, run_uuid)}:
        try:
            yield Run(path)
        except JournalError as error:
            logger.warning("a run is left out: %s", error)


def _holds(log: Path, *words: str) -> bool:
    try:
        with open(log, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return all(data.find(word.encode()) >= 0 for word in words)
    except (OSError, ValueError):  # It can't be read, or is empty.
        return False
