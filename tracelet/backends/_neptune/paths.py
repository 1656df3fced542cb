"""Where the fields of a run are in Neptune, and how far each of its series has come.

Called on the backend's thread; `reserve` on that of its artifacts. Kept in `fields.db` of the backend's directory, so
that a run that is started again goes on as it was, and memory stays flat. SQLite writes in `commit` and `reserve`
alone: no fork meets an open transaction.

Guarantees: two fields never share a path, nor is one the namespace of another (Neptune refuses both). What was noted
since the last `commit` is forgotten by `rollback` and by a kill. So a batch that comes again has the same steps as the
first time, and Neptune, which takes ascending steps only, stores its points once.
"""

from __future__ import annotations

import itertools
import sqlite3
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, final

_TABLES: Final = """
    CREATE TABLE IF NOT EXISTS fields (key TEXT PRIMARY KEY, path TEXT UNIQUE, step INTEGER) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS namespaces (path TEXT PRIMARY KEY) WITHOUT ROWID;
"""


@final
class NeptunePaths:
    """See the module docstring. Each method may raise `sqlite3.Error`, which delivery takes for an outage."""

    def __init__(self, directory: Path) -> None:
        """Open it, and make it where it is not there."""
        self._lock = threading.RLock()
        self._database = sqlite3.connect(directory / "fields.db", check_same_thread=False)  # The lock sees to that.
        self._database.executescript(_TABLES)
        self._noted: dict[str, tuple[str, int | None]] = {}  # Path and last step by key.
        self._paths: set[str] = set()  # Of these.
        self._namespaces: set[str] = set()  # Above these.

    def place(self, key: str, path: str) -> tuple[str, bool]:
        """The path of a field, and whether it is new. Where another one has `path`, a `_` follows the level's name."""
        with self._lock:
            found = self._find(key)
            if found is not None:
                return found[0], False
            free = self._free_path(path)
            self._noted[key] = free, None
            self._paths.add(free)
            self._namespaces.update(_namespaces_of(free))
            return free, True

    def reserve(self, key: str, path: str) -> tuple[str, bool]:
        """As `place`, of a field without points; at once, and for ever. It is new each time: it may have been said."""
        with self._lock:
            found = self._find(key)
            if found is not None:
                return found[0], True
            free = self._free_path(path)
            self._insert({key: (free, None)}, _namespaces_of(free))
            return free, True

    def advance(self, key: str, step: int | None) -> int | None:
        """Count a point of a series.

        Args:
            key: The series, which has a place.
            step: None: one more than the last.

        Returns:
            The point's step; None where it does not ascend.
        """
        with self._lock:
            found = self._find(key)
            assert found is not None
            path, last = found
            if step is None:
                step = 0 if last is None else last + 1
            if last is not None and float(step) <= float(last):  # Neptune compares floats.
                return None
            self._noted[key] = path, step
            return step

    def commit(self) -> None:
        """What was noted has arrived."""
        with self._lock:
            if self._noted:
                self._insert(self._noted, self._namespaces)
                self.rollback()

    def rollback(self) -> None:
        """Forget what was noted since."""
        with self._lock:
            self._noted.clear()
            self._paths.clear()
            self._namespaces.clear()

    def close(self) -> None:
        """What was noted and not committed is forgotten."""
        with self._lock:
            self._database.close()

    def _insert(self, fields: Mapping[str, tuple[str, int | None]], namespaces: Iterable[str]) -> None:
        with self._database:
            rows = ((key, path, step) for key, (path, step) in fields.items())
            self._database.executemany("INSERT OR REPLACE INTO fields VALUES (?, ?, ?)", rows)
            levels = ((path,) for path in namespaces)
            self._database.executemany("INSERT OR IGNORE INTO namespaces VALUES (?)", levels)

    def _free_path(self, path: str) -> str:
        *levels, last = path.split("/")
        parent = ""
        for level in levels:
            parent = self._free(f"{parent}{level}", may_be_namespace=True) + "/"
        return self._free(f"{parent}{last}", may_be_namespace=False)

    def _find(self, key: str) -> tuple[str, int | None] | None:
        noted = self._noted.get(key)
        if noted is not None:
            return noted
        row = self._database.execute("SELECT path, step FROM fields WHERE key = ?", (key,)).fetchone()
        return None if row is None else (row[0], row[1])

    def _free(self, path: str, *, may_be_namespace: bool) -> str:
        while self._is_field(path) or (not may_be_namespace and self._is_namespace(path)):
            path += "_"
        return path

    def _is_field(self, path: str) -> bool:
        query = "SELECT 1 FROM fields WHERE path = ?"
        return path in self._paths or self._database.execute(query, (path,)).fetchone() is not None

    def _is_namespace(self, path: str) -> bool:
        query = "SELECT 1 FROM namespaces WHERE path = ?"
        return path in self._namespaces or self._database.execute(query, (path,)).fetchone() is not None


def _namespaces_of(path: str) -> Iterable[str]:
    return itertools.accumulate(path.split("/")[:-1], "{}/{}".format)
