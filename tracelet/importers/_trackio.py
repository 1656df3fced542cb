"""What a database of Trackio says of a run. Called on the thread that imports.

A row of the history has the values of one step as JSON. Rows are only added, and read by their number. The files of
media lie in `media` beside the database, those of artifacts in `artifacts`, by their digests; nothing else is read.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any, Final, final

from tracelet.core.importer import Item, Omitted
from tracelet.core.records import TAG_PREFIX, MetricData, MetricType
from tracelet.errors import UsageError
from tracelet.importers.databases import connect
from tracelet.importers.files import inside
from tracelet.importers.rows import Rows
from tracelet.utils.media import histogram
from tracelet.utils.values import flatten

_TIMES: Final = {"configs": "created_at", "metrics": "timestamp", "system_metrics": "timestamp"}
_TAGS: Final = {"_Group": "group", "_Username": "username"}
_FILES: Final = {
    "trackio.image": MetricType.IMAGE,
    "trackio.audio": MetricType.AUDIO,
    "trackio.video": MetricType.VIDEO,
}
_UNREADABLE: Final = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError, UsageError)
_ARTIFACTS: Final = """
SELECT direction, artifacts.name, artifacts.type, artifact_versions.manifest, artifact_versions.created_at
FROM run_artifact_links
JOIN artifact_versions ON artifact_versions.id = artifact_version_id
JOIN artifacts ON artifacts.id = artifact_id
WHERE run_artifact_links.{column} = ? ORDER BY run_artifact_links.id
"""


def run_facts(connection: sqlite3.Connection) -> Iterator[tuple[str, str, str]]:
    """Id, name and first time of each run."""
    found: dict[str, tuple[str, str]] = {}
    for table, time in _TIMES.items():
        if column := _run_column(connection, table):
            for run_id, name, first in connection.execute(
                f"SELECT {column}, MAX(run_name), MIN({time}) FROM {table} GROUP BY {column} ORDER BY MIN(id)"
            ):
                known = found.get(str(run_id), (str(name), str(first)))
                found[str(run_id)] = known[0], min(known[1], str(first))
    for run_id, (name, first) in found.items():
        yield run_id, name or run_id, first


def time_of(text: str) -> float | None:
    """An ISO time as Unix time in seconds; None if it is none."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        return None


def _run_column(connection: sqlite3.Connection, table: str) -> str | None:
    """What tells the run of a row: before Trackio 0.24 its name. None: there is no such table."""
    columns = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
    return next((name for name in ("run_id", "run_name") if name in columns), None)


@final
class TrackioRun:
    """One run."""

    def __init__(self, database: Path, run_id: str) -> None:
        self._database = database
        self._run_id = run_id
        self._begin()

    def _begin(self) -> None:
        self._rows, self._system, self._readings = Rows(), Rows(MetricType.SYSTEM), 0

    def items(self) -> Iterator[Item]:
        """All that the database, and the files beside it, hold of the run."""
        self._begin()
        with closing(connect(self._database)) as connection:
            yield from self._table(connection, "configs", "config")
            yield from self._table(connection, "metrics", "timestamp, step, metrics")
            yield from self._table(connection, "system_metrics", "timestamp, metrics")
            yield from self._table(connection, "alerts", "timestamp, step, level, title, text")
            yield from self._table(connection, "traces", "key")
            yield from self._table(connection, "external_run_artifact_links", "source_artifact")
            yield from self._artifacts(connection)
        yield self._rows.take()
        yield self._system.take()
        if (self._database.parent / "media" / self._database.stem / "files").is_dir():
            yield Omitted("the files of `trackio.save`", "they belong to the project, not to a run")

    def _table(self, connection: sqlite3.Connection, table: str, columns: str) -> Iterator[Item]:
        try:
            if (column := _run_column(connection, table)) is None:
                return
            for row in connection.execute(
                f"SELECT {columns} FROM {table} WHERE {column} = ? ORDER BY rowid", (self._run_id,)
            ):
                try:
                    yield from self._row(table, row)
                except _UNREADABLE as error:
                    yield Omitted(f"a row of {table}", f"it can't be read: {error!r}")
                for gathered in (self._rows, self._system):
                    if gathered.is_full:
                        yield gathered.take()
        except sqlite3.DatabaseError as error:
            yield Omitted(f"the rest of {table}", f"the database can't be read: {error}")

    def _row(self, table: str, row: tuple[Any, ...]) -> Iterator[Item]:
        match table:
            case "configs":
                yield from _configuration(json.loads(row[0]))
            case "metrics":
                time_s = datetime.fromisoformat(row[0]).timestamp()
                for name, value in json.loads(row[2]).items():
                    yield from self._value(name, value, int(row[1]), time_s)
            case "system_metrics":
                time_s = datetime.fromisoformat(row[0]).timestamp()
                for name, value in flatten(json.loads(row[1])):
                    if _is_number(value):
                        self._system.add(f"system/{name}", self._readings, float(value), time_s)
                    else:
                        yield Omitted(f"readings of the type {type(value).__name__}", "they are no numbers")
                self._readings += 1
            case "alerts":
                time, step, level, title, told = row
                text = f"{level}: {title}" + (f": {told}" if told else "")
                yield MetricData("alerts", text, MetricType.TEXT, step, datetime.fromisoformat(time).timestamp())
            case "external_run_artifact_links":
                yield _used(row[0])
            case _:
                yield Omitted(f"a trace of {row[0]!r}", "Tracelet has no traces")

    def _value(self, name: str, value: Any, step: int, time_s: float) -> Iterator[Item]:
        kind = value.get("_type") if isinstance(value, dict) else None
        if _is_number(value):
            self._rows.add(name, step, float(value), time_s)
        elif isinstance(value, str):
            yield MetricData(name, value, MetricType.TEXT, step, time_s)
        elif isinstance(value, dict) and kind is None:
            for key, inner in value.items():
                yield from self._value(f"{name}/{key}", inner, step, time_s)
        elif kind == "trackio.markdown":
            yield MetricData(name, str(value["_value"]), MetricType.TEXT, step, time_s)
        elif kind == "trackio.histogram":
            counted = histogram((value["values"], value["bins"]))
            yield MetricData(name, counted, MetricType.HISTOGRAM, step, time_s)
        elif kind == "trackio.table":
            yield MetricData(name, _table_of(value["_value"]), MetricType.TABLE, step, time_s)
        elif isinstance(value, dict) and "file_path" in value:
            yield self._file(name, value, step, time_s)
        else:
            yield Omitted(f"values of the type {kind or type(value).__name__}", "Tracelet has no such type")

    def _file(self, name: str, value: Mapping[str, Any], step: int, time_s: float) -> Item:
        relative, caption = str(value["file_path"]), value.get("caption")
        path = inside(self._database.parent / "media", relative)
        if path is None or not path.is_file():
            return Omitted(f"the file {relative!r}", "it is not in the folder `media` beside the database")
        details = None if caption is None else {"caption": caption}
        kind = _FILES.get(value["_type"], MetricType.ARTIFACT)
        return MetricData(name, os.fspath(path), kind, step, time_s, metadata=details)

    def _artifacts(self, connection: sqlite3.Connection) -> Iterator[Item]:
        blobs = self._database.parent / "artifacts" / self._database.stem / "blobs" / "sha256"
        try:
            if (column := _run_column(connection, "run_artifact_links")) is None:
                return
            query = _ARTIFACTS.format(column=column)
            for direction, name, kind, manifest, time in connection.execute(query, (self._run_id,)):
                if direction == "input":
                    yield _used(name)
                    continue
                for entry in json.loads(manifest):
                    full, digest = f"{name}/{entry['path']}", str(entry.get("digest"))
                    path = inside(blobs, f"{digest[:2]}/{digest}")
                    if path is not None and path.is_file():
                        details = {"type": kind, "aliases": []}
                        yield MetricData(full, os.fspath(path), MetricType.ARTIFACT, None, time_of(time), None, details)
                    else:
                        yield Omitted(f"the file {full!r}", "it is not in the folder `artifacts` beside the database")
        except (sqlite3.DatabaseError, *_UNREADABLE) as error:
            yield Omitted("the rest of the artifacts", f"they can't be read: {error!r}")


def _is_number(value: Any) -> bool:
    return isinstance(value, (bool, int, float)) or value in ("NaN", "Infinity", "-Infinity")


def _used(artifact: Any) -> Omitted:
    return Omitted(f"that the run read the artifact {artifact!r}", "only what a run made is imported")


def _configuration(config: dict[str, Any]) -> Iterator[Item]:
    for name, value in flatten({name: value for name, value in config.items() if not name.startswith("_")}):
        yield MetricData(name, value, MetricType.PARAMETER)
    for name, tag in _TAGS.items():
        if (value := config.get(name)) is not None:
            yield MetricData(TAG_PREFIX + tag, str(value), MetricType.CUSTOM)


def _table_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Rows as Trackio has them, each with the names of its columns. Files in cells stay as they are told."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[row.get(name) for name in columns] for row in rows]
    plain = [[json.dumps(cell) if isinstance(cell, (dict, list)) else cell for cell in row] for row in cells]
    return {"columns": columns, "rows": plain}
