"""Databases of SQLite in a source: read, and left as they are. Called on the thread that imports."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path


def is_database(path: Path) -> bool:
    """Whether a file begins as those of SQLite do."""
    with open(path, "rb") as file:
        return file.read(16) == b"SQLite format 3\0"


def connect(database: Path) -> sqlite3.Connection:
    """Open a database to read it only.

    While someone has it open, or was killed, there is a write-ahead log beside it, which has to be heeded. Where there
    is none, SQLite would make one, and leave it.
    """
    mode = "mode=ro" if os.path.exists(f"{database}-wal") else "immutable=1"
    return sqlite3.connect(f"{database.absolute().as_uri()}?{mode}", uri=True)
