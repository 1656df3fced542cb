"""What a table of runs shows of a run that has ended, in one small file, so that nobody reads thousands of journals.

Written where a run's last writer ends, on its thread; read by `Run`. The guarantee: it says what the journal says. It
lists the journal's files with their sizes, and is believed only where exactly these are there. No writer writes without
a file growing or another one appearing: all of those here have ended or are dead. Where it is missing, damaged or out
of date, as with a run that was killed or goes on, the journal is read.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self, final

from tracelet.errors import JournalError
from tracelet.journal.directory import write_atomically
from tracelet.journal.format import FORMAT_VERSION, writer_of_log, writer_of_segment
from tracelet.journal.status import RunStatus

logger = logging.getLogger(__name__)

SUMMARY_FILE: Final = "summary.json"
_LARGEST_BYTES: Final = 256 << 10
_LARGEST_LOGS_BYTES: Final = 16 << 20  # What is read at a run's end: a third of a second.


@final
@dataclass(frozen=True, slots=True)
class RunSummary:
    """Attributes as `Run` has them; `latest` with a list of step and value for each metric."""

    status: str
    error: str | None
    ended_s: float
    duration_s: float
    params: Mapping[str, Any]
    tags: Mapping[str, str]
    latest: Mapping[str, tuple[int, float]]

    @classmethod
    def read(cls, directory: Path) -> Self | None:
        """The summary of the run in a directory; None where there is none that is as new as the journal."""
        try:
            with open(directory / SUMMARY_FILE, "rb") as file:
                fields = json.loads(file.read(_LARGEST_BYTES + 1))
            if fields.pop("format") != FORMAT_VERSION or fields.pop("files") != journal_files(directory):
                return None
            points = {str(name): (int(step), float(value)) for name, (step, value) in fields.pop("latest").items()}
            found = cls(**fields, latest=points)
            return found if found.status in _ENDED else None
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            logger.debug("a summary is left out: %s", error)
            return None


_ENDED: Final = tuple(status.value for status in RunStatus if status is not RunStatus.RUNNING)


def journal_files(directory: Path) -> dict[str, int]:
    """The sizes of a journal's files in bytes, by name.

    Raises:
        OSError: They can't be looked at.
    """
    with os.scandir(directory) as entries:
        ours = (entry for entry in entries if writer_of_log(entry.name) or writer_of_segment(entry.name))
        return {entry.name: entry.stat(follow_symlinks=False).st_size for entry in ours}


def write_summary(directory: Path) -> None:
    """Write it, where all writers of a run have ended. Never raises because of the disk, nor of what is there."""
    from tracelet.journal.load import Run  # Which reads summaries.

    try:
        files = journal_files(directory)
        if sum(size for name, size in files.items() if writer_of_log(name)) > _LARGEST_LOGS_BYTES:
            return
        run = Run(directory)
        ended_s = run.ended_s
        if ended_s is None or run.is_written:
            return
        latest = {name: (step, value if math.isfinite(value) else str(value)) for name, (step, value) in
                  run.latest().items()}  # fmt: skip
        told = RunSummary(run.status.value, run.error, ended_s, run.duration_s, run.params, run.tags, {})
        text = json.dumps({"format": FORMAT_VERSION, "files": files, **asdict(told), "latest": latest})
        if len(text) <= _LARGEST_BYTES:
            write_atomically(directory / SUMMARY_FILE, text)
    except (OSError, JournalError, ValueError, TypeError) as error:
        logger.debug("the run %s has no summary: %s", directory, error)
