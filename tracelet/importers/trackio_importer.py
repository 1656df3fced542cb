"""`tracelet import trackio PATH`: the databases of Trackio, `PROJECT.db`. Needs no trackio."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import final

from tracelet.core.importer import ImporterPlugin, SourceRun
from tracelet.core.plugins import PluginMetadata, PluginType
from tracelet.errors import UsageError
from tracelet.importers._trackio import TrackioRun, run_facts, time_of
from tracelet.importers.databases import connect, is_database
from tracelet.importers.files import files_below, given_path


@final
class TrackioImporter(ImporterPlugin):
    """Each database is a project, and each run is known by it and its id."""

    @classmethod
    def get_metadata(cls) -> PluginMetadata:
        """See `PluginBase`."""
        return PluginMetadata("trackio", "1.0.0", PluginType.IMPORTER, "Trackio's local projects", "Tracelet")

    def runs(self, source: str) -> Iterator[SourceRun]:
        """See `ImporterPlugin`."""
        root, found = given_path(source), False
        for file in files_below(root):
            if file.suffix == ".db" and is_database(file):
                for run in _runs_of(file):
                    found = True
                    yield run
        if not found:
            raise UsageError(f"there are no runs of Trackio (in files PROJECT.db) in {os.fspath(root)!r}")


def _runs_of(database: Path) -> Iterator[SourceRun]:
    try:
        with closing(connect(database)) as connection:
            facts = list(run_facts(connection))
    except sqlite3.DatabaseError as error:
        raise UsageError(f"{os.fspath(database)!r} can't be read as a database of Trackio: {error}") from error
    for run_id, name, first in facts:
        yield SourceRun(
            key=f"{database.stem}/{run_id}",
            name=name,
            records=TrackioRun(database, run_id).items,
            project=database.stem,
            created_s=time_of(first),
        )
