"""Which runs a repository of Aim holds: the folders of its databases, and what `run_metadata.sqlite` says of them.

Called on the thread that imports.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, final

from tracelet.errors import UsageError
from tracelet.importers.databases import connect, is_database
from tracelet.importers.files import inside

_DATABASE: Final = "run_metadata.sqlite"
_TAGS: Final = "SELECT tag.name FROM run_tag JOIN tag ON tag.id = tag_id WHERE run_id = ? ORDER BY tag.id"
_NOTES: Final = "SELECT content FROM note WHERE run_id = ? ORDER BY id"


@final
@dataclass(frozen=True, slots=True)
class AimFacts:
    """What people gave a run, and its times.

    Attributes:
        run_id: Aim's hash of it.
        name: For people.
        experiment: Its name; None where it has none.
        description: May be empty.
        tags: Their names.
        notes: Their texts.
        is_archived: Whether Aim's page hides it.
        created_s: Unix time in seconds; None where it is not known.
        ended_s: The same of the end, where Aim before 3.12 keeps it.
    """

    run_id: str
    name: str
    experiment: str | None = None
    description: str = ""
    tags: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    is_archived: bool = False
    created_s: float | None = None
    ended_s: float | None = None


def runs_of(home: Path) -> Iterator[AimFacts]:
    """The runs of a repository, as far as they are there, those that were made first in front.

    Raises:
        UsageError: Its database can't be read.
    """
    folders = {folder.name for folder in (home / "meta" / "chunks").iterdir() if folder.is_dir()}
    for facts in _told(home):
        if facts.run_id in folders:
            folders.remove(facts.run_id)
            yield facts
    for run_id in sorted(folders):
        yield AimFacts(run_id, run_id)


def _told(home: Path) -> list[AimFacts]:
    path = inside(home, _DATABASE)
    if path is None:
        return []
    try:
        if not is_database(path):
            raise sqlite3.DatabaseError("it is none of SQLite's")
        with closing(connect(path)) as database:
            database.row_factory = sqlite3.Row
            tables = {row["name"] for row in database.execute("SELECT name FROM sqlite_master")}
            experiments = {row["id"]: row["name"] for row in database.execute("SELECT id, name FROM experiment")}
            return [
                _facts(
                    dict(row),
                    experiments,
                    tuple(str(tag) for (tag,) in database.execute(_TAGS, (row["id"],))),
                    tuple(str(note) for (note,) in database.execute(_NOTES, (row["id"],))) if "note" in tables else (),
                )
                for row in database.execute("SELECT * FROM run ORDER BY id")
            ]
    except (sqlite3.DatabaseError, KeyError, IndexError) as error:
        raise UsageError(f"{str(path)!r} can't be read as a database of Aim: {error}") from error


def _facts(row: dict[str, Any], experiments: dict[int, str], tags: tuple[str, ...], notes: tuple[str, ...]) -> AimFacts:
    run_id, experiment = str(row["hash"]), experiments.get(row["experiment_id"])
    return AimFacts(
        run_id=run_id,
        name=str(row["name"] or run_id),
        experiment=None if experiment is None else str(experiment),
        description=str(row["description"] or ""),
        tags=tags,
        notes=notes,
        is_archived=bool(row["is_archived"]),
        created_s=_seconds(row["created_at"]),
        ended_s=_seconds(row.get("finalized_at")),
    )


def _seconds(text: Any) -> float | None:
    """A time of the database, which is in UTC and does not say so, as Unix time in seconds; None if it is none."""
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
