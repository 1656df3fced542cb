"""Neptune's offline folders, `.neptune/offline/run__ID__…`: a log of operations, one JSON object a line.

Called on the thread that imports. What a later operation deletes or assigns anew is not there at the end, as on the
server. A file that the run only names by its path on the machine is read from where the user allows it alone.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final, final

from tracelet.core.importer import Item, Omitted, SourceRun
from tracelet.core.records import MetricData, MetricType
from tracelet.importers._neptune.fields import NAME, kind_of, single, words
from tracelet.importers.files import inside
from tracelet.importers.rows import Rows

_META: Final = "metadata.json"
_ENDED: Final = ("ConfigFloatSeries", "ClearFloatLog", "ClearStringLog", "ClearImageLog")  # They open a series.


def offline_run(folder: Path, files: Path | None) -> SourceRun:
    """The run in a folder."""
    meta: dict[str, Any] = {}
    if (folder / _META).is_file():
        try:
            meta = json.loads((folder / _META).read_text("utf-8", "replace"))
        except ValueError:
            meta = {}
    run = _OfflineRun(folder, files)
    run_id = str(meta.get("containerId") or folder.name)
    try:
        created_s = datetime.fromisoformat(str(meta.get("createdAt"))).timestamp()
    except ValueError:
        created_s = None
    return SourceRun(f"{run_id}/{folder.name}", run.name() or run_id, run.items, None, created_s)


@final
class _OfflineRun:
    """One folder."""

    def __init__(self, folder: Path, files: Path | None) -> None:
        self._folder = folder
        self._allowed = files
        self._begin()

    def _begin(self) -> None:
        self._rows = {kind: Rows(kind) for kind in (MetricType.SCALAR, MetricType.SYSTEM)}
        self._counts: Counter[str] = Counter()  # Of each series: the steps of points that have none.
        self._values: dict[str, tuple[Any, float]] = {}
        self._words: dict[str, set[str]] = {}

    def name(self) -> str | None:
        """The run's name, which stands at the beginning."""
        for index, operation in enumerate(self._operations()):
            if isinstance(operation, dict) and operation["path"] == NAME:
                return str(operation.get("value"))
            if index > 100:
                break
        return None

    def items(self) -> Iterator[Item]:
        """All that the folder holds."""
        self._begin()
        for operation in self._operations():
            if isinstance(operation, Omitted):
                yield operation
                continue
            try:
                yield from self._take(operation["path"], operation["type"], operation)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                yield Omitted(f"an operation of {self._folder.name}", f"it can't be read: {error!r}")
            for rows in self._rows.values():
                if rows.is_full:
                    yield rows.take()
        for rows in self._rows.values():
            yield rows.take()
        for path, (value, time_s) in self._values.items():
            yield from single(path, value, time_s)
        for path, found in self._words.items():
            yield from words(path, found)

    def _operations(self) -> Iterator[dict[str, Any] | Omitted]:
        logs = [path for path in self._folder.glob("data-*.log") if path.is_file() and not path.is_symlink()]
        for log in sorted(logs, key=lambda path: (len(path.name), path.name)):
            with open(log, encoding="utf-8", errors="replace") as file:
                for line in file:
                    try:
                        entry = json.loads(line)
                        operation = entry["obj"]
                        operation["path"] = "/".join(operation["path"])
                        operation["at"] = float(entry.get("at") or 0.0)
                    except (ValueError, KeyError, TypeError) as error:
                        yield Omitted(f"a line of {log.name}", f"it is not whole: {error!r:.100}")
                        continue
                    yield operation

    def _take(self, path: str, kind: str, operation: Mapping[str, Any]) -> Iterator[Item]:
        match kind:
            case "LogFloats":
                rows = self._rows[kind_of(path)]
                for step, point in self._points(path, operation):
                    rows.add(path, step, float(point["value"]), float(point["ts"]))
            case "LogStrings":
                for step, point in self._points(path, operation):
                    yield MetricData(path, str(point["value"]), MetricType.TEXT, step, float(point["ts"]))
            case "LogImages":
                for step, point in self._points(path, operation):
                    data = base64.b64decode(point["value"]["data"])
                    yield MetricData(path, data, MetricType.IMAGE, step, float(point["ts"]))
            case "AssignFloat" | "AssignInt" | "AssignBool" | "AssignString" | "AssignDatetime":
                self._values[path] = operation["value"], operation["at"]
            case "AddStrings" | "RemoveStrings":
                found = self._words.setdefault(path, set())
                (found.update if kind == "AddStrings" else found.difference_update)(operation["values"])
            case "ClearStringSet":
                self._words.pop(path, None)
            case "DeleteAttribute":
                self._words.pop(path, None)
                self._values.pop(path, None)
            case "UploadFile":
                yield self._file(path, operation)
            case _ if kind not in _ENDED:
                yield Omitted(f"operations of the type {kind!r}", "an offline folder does not hold what they mean")

    def _points(self, path: str, operation: Mapping[str, Any]) -> Iterator[tuple[int, Mapping[str, Any]]]:
        for point in operation["values"]:
            step = self._counts[path] if point.get("step") is None else int(point["step"])
            self._counts[path] = step + 1
            yield step, point

    def _file(self, path: str, operation: Mapping[str, Any]) -> Item:
        """A file that was copied into the folder, or one that the user allows to read."""
        copied, named = operation.get("tmp_file_name"), operation.get("file_path")
        found = inside(self._folder / "upload_path", copied) if copied else None
        if found is None and named and self._allowed is not None:
            found = inside(self._allowed, named)
        if found is None:
            reason = f"it lies outside of the run's folder, at {named!r}: --option files=DIRECTORY allows to read it"
            return Omitted(f"the file {path!r}", reason)
        return MetricData(path, str(found), MetricType.ARTIFACT, None, operation["at"])
