"""Which runs there are, and what the table says of each; the answer to "which run is meant".

Called on the server's threads. Of thousands of runs only `run.json` is read; the rest of a run when it is shown, sorted
or filtered by, and again when one of its files has changed. A run that has not ended is looked at each time: its
process may have been killed a second ago.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast, final

from tracelet.cli.filters import Row
from tracelet.errors import JournalError, RunNotFoundError
from tracelet.journal.format import IDENTITY_FILE
from tracelet.journal.load import Run
from tracelet.journal.status import RunStatus
from tracelet.utils.text import did_you_mean

logger = logging.getLogger(__name__)

_MAX_AGE_S: Final = 1.0  # Of the list of directories: a page asks several times at once.
_Signature = frozenset[tuple[str, int, int]]


@final
class Snapshot:
    """What the table says of a run, as it was when it was read: little enough to keep thousands of."""

    def __init__(self, run: Run) -> None:
        self.id = run.id
        self.uuid = run.uuid
        self.name = run.name
        self.project = run.project
        self.path = run.path
        self.created_s = run.created_s
        self.status = run.status
        self.params: Mapping[str, Any] = run.params
        self.tags: Mapping[str, str] = run.tags
        self.duration_s = run.duration_s
        self._latest = run.latest()

    def latest(self) -> dict[str, tuple[int, float]]:
        """As `Run.latest`."""
        return self._latest


@final
class Entry:
    """A run in the catalog."""

    def __init__(self, run: Run) -> None:
        self.run_id = run.id
        self.uuid = run.uuid
        self.path = run.path
        self.created_s = run.created_s
        self.key = run.id
        """What addresses call it: the id, or the uuid where another run has the same id."""
        self._lock = threading.Lock()
        self._signature: _Signature = frozenset()
        self._snapshot: Snapshot | None = None

    @property
    def snapshot(self) -> Snapshot:
        """How the run stands now.

        Raises:
            JournalError: It can't be read.
            OSError: It has gone.
        """
        with self._lock:
            signature = _signature(self.path)
            old = self._snapshot
            if old is None or old.status is RunStatus.RUNNING or signature != self._signature:
                self._snapshot = Snapshot(Run(self.path))
                self._signature = signature
            return cast(Snapshot, self._snapshot)

    @property
    def row(self) -> Row:
        """The run for `cli.filters`, which asks nothing of it that a snapshot has not."""
        return Row(cast(Run, self.snapshot))


@final
@dataclass(frozen=True, slots=True)
class _Listing:
    entries: Mapping[Path, Entry]
    unreadable: Mapping[str, str]  # Directory and reason.
    made_s: float  # By the monotonic clock.


@final
class Catalog:
    """The runs below a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = Path(os.path.abspath(directory))
        self._lock = threading.Lock()
        self._listing = _Listing({}, {}, -_MAX_AGE_S)

    @property
    def entries(self) -> list[Entry]:
        """All runs, the newest first."""
        return sorted(self._current().entries.values(), key=lambda entry: entry.created_s, reverse=True)

    @property
    def unreadable(self) -> Mapping[str, str]:
        """Directories of runs whose identity can't be read, and why."""
        return self._current().unreadable

    def find(self, key: str) -> Entry:
        """The run that an address means.

        Raises:
            RunNotFoundError: There is none.
        """
        for max_age_s in (_MAX_AGE_S, 0.0):  # It may have begun since the last look.
            for entry in self._current(max_age_s).entries.values():
                if key in (entry.key, entry.uuid):
                    return entry
        hint = did_you_mean(key[:100], [entry.key for entry in self.entries])
        raise RunNotFoundError(f"no run {key[:100]!r}{hint} in {str(self.directory)!r}")

    def _current(self, max_age_s: float = _MAX_AGE_S) -> _Listing:
        with self._lock:
            if time.monotonic() - self._listing.made_s >= max_age_s:
                self._listing = self._listed()
            return self._listing

    def _listed(self) -> _Listing:
        entries: dict[Path, Entry] = {}
        unreadable: dict[str, str] = {}
        for file in self.directory.glob(f"*/*/{IDENTITY_FILE}"):
            known = self._listing.entries.get(file.parent)
            try:
                entries[file.parent] = known or Entry(Run(file.parent))
            except JournalError as error:
                unreadable[os.fspath(file.parent.relative_to(self.directory))] = str(error)
        ids = [entry.run_id for entry in entries.values()]
        several = {run_id for run_id in ids if ids.count(run_id) > 1} if len(set(ids)) < len(ids) else set()
        for entry in entries.values():
            entry.key = entry.uuid if entry.run_id in several else entry.run_id
        return _Listing(entries, unreadable, time.monotonic())


def _signature(path: Path) -> _Signature:
    """Changes when a file of the run does. Segments are of one size from the start, so their time counts."""
    with os.scandir(path) as entries:
        stats = ((entry.name, entry.stat(follow_symlinks=False)) for entry in entries)
        return frozenset((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)
