"""`tracelet import clearml PATH`: offline sessions of ClearML, folders or `.zip` files. Needs no clearml.

Called on the thread that imports. A zip is unpacked into a scratch directory, without links and without a path that
leads out of it.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, final

from tracelet.core.importer import ImporterPlugin, Item, Omitted, SourceRun
from tracelet.core.plugins import PluginMetadata, PluginType
from tracelet.core.records import DESCRIPTION_NAME, STATUS_NAME, TAG_PREFIX, MetricData, MetricType
from tracelet.errors import UsageError
from tracelet.importers.files import files_below, given_path, inside
from tracelet.importers.rows import Rows

_TASK: Final = "task.json"
_STATUSES: Final = {"completed": "finished", "published": "finished", "closed": "finished", "failed": "failed",
                    "stopped": "killed"}  # fmt: skip
_SUMMARY: Final = -(2**31)
"""The iteration that ClearML gives a single value."""


@final
class ClearMLImporter(ImporterPlugin):
    """Each session is a run, known by its task's id."""

    @classmethod
    def get_metadata(cls) -> PluginMetadata:
        """See `PluginBase`."""
        return PluginMetadata("clearml", "1.0.0", PluginType.IMPORTER, "ClearML's offline sessions", "Tracelet")

    def runs(self, source: str) -> Iterator[SourceRun]:
        """See `ImporterPlugin`."""
        root = given_path(source)
        paths = list(files_below(root))
        folders = [path.parent for path in paths if path.name == _TASK]
        archives = [path for path in paths if path.suffix == ".zip" and path.with_suffix("") not in folders]
        if not folders and not archives:
            raise UsageError(f"there are no offline sessions (folders with {_TASK}, or .zip) in {os.fspath(root)!r}")
        for folder in folders:
            yield _session(folder)
        for archive in archives:
            with tempfile.TemporaryDirectory(prefix="tracelet-import-") as scratch:
                _unpack(archive, Path(scratch))
                yield _session(Path(scratch))


def _unpack(archive: Path, target: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as file:
            if _TASK not in file.namelist():
                raise UsageError(f"{os.fspath(archive)!r} is no offline session: it has no {_TASK}")
            for entry in file.infolist():
                path = Path(os.path.normpath(target / entry.filename))
                if entry.is_dir() or not path.is_relative_to(target):
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                with file.open(entry) as packed, open(path, "wb") as plain:
                    shutil.copyfileobj(packed, plain)
    except (zipfile.BadZipFile, EOFError) as error:
        raise UsageError(f"{os.fspath(archive)!r} is no whole zip file: {error}") from error


def _session(folder: Path) -> SourceRun:
    try:
        task = json.loads((folder / _TASK).read_text("utf-8", "replace"))
        run_id = str(task["id"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{os.fspath(folder / _TASK)!r} is no task of ClearML: {error!r}") from error
    session = _Session(folder, task)
    project = task.get("project_name")
    name = str(task.get("name") or run_id)
    return SourceRun(run_id, name, session.items, None if project is None else str(project), session.created_s())


@final
class _Session:
    """One session."""

    def __init__(self, folder: Path, task: dict[str, Any]) -> None:
        self._folder = folder
        self._task = task

    def created_s(self) -> float | None:
        """The time of the first event."""
        for name in ("log.jsonl", "metrics.jsonl"):
            for event in self._events(name):
                if isinstance(event, dict):
                    return float(event["timestamp"]) / 1e3
        return None

    def items(self) -> Iterator[Item]:
        """All that the session holds."""
        rows = Rows()
        for event in self._events("metrics.jsonl"):
            if isinstance(event, Omitted):
                yield event
                continue
            try:
                yield from self._event(event, rows)
            except (KeyError, TypeError, ValueError) as error:
                yield Omitted("an event", f"it can't be read: {error!r}")
            if rows.is_full:
                yield rows.take()
        yield rows.take()
        for section, parameters in (self._task.get("hyperparams") or {}).items():
            for name, parameter in parameters.items():
                yield MetricData(f"{section}/{name}", parameter.get("value"), MetricType.PARAMETER)
        for tag in self._task.get("tags") or ():
            yield MetricData(TAG_PREFIX + str(tag), "", MetricType.CUSTOM)
        if comment := self._task.get("comment"):
            yield MetricData(DESCRIPTION_NAME, comment, MetricType.CUSTOM)
        yield from self._artifacts()
        if any(True for _ in self._events("log.jsonl")):
            yield Omitted("the console output", "ClearML's console lines are not imported")
        if (status := str(self._task.get("status"))) in _STATUSES:
            yield MetricData(STATUS_NAME, _STATUSES[status], MetricType.CUSTOM)

    def _events(self, name: str) -> Iterator[dict[str, Any] | Omitted]:
        """The events of a file, whose lines are lists of some."""
        path = self._folder / name
        if not path.is_file() or path.is_symlink():
            return
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    yield from (event for event in json.loads(line) if isinstance(event, dict))
                except (ValueError, TypeError) as error:
                    yield Omitted(f"a line of {name}", f"it is not whole: {error}")

    def _event(self, event: dict[str, Any], rows: Rows) -> Iterator[Item]:
        name = f"{event['metric']}/{event['variant']}"
        step, time_s = int(event["iter"]), float(event["timestamp"]) / 1e3
        match event["type"]:
            case "training_stats_scalar" if step == _SUMMARY:
                yield MetricData(f"summary/{event['variant']}", event["value"], MetricType.PARAMETER, None, time_s)
            case "training_stats_scalar":
                rows.add(name, step, float(event["value"]), time_s)
            case kind:
                yield Omitted(f"events of the type {kind!r}", "only scalars are read from ClearML's events")

    def _artifacts(self) -> Iterator[Item]:
        """Files of artifacts lie below `data`; what the task says of their places is not followed."""
        for artifact in (self._task.get("execution") or {}).get("artifacts") or ():
            key = str(artifact.get("key"))
            relative = str(artifact.get("uri")).partition("/data/")[2]
            path = inside(self._folder / "data", relative) if relative else None
            if path is not None and path.is_file():
                yield MetricData(key, os.fspath(path), MetricType.ARTIFACT, None, artifact.get("timestamp"))
            else:
                yield Omitted(f"the artifact {key!r}", "its file is not in the session's folder")
