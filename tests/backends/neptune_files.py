"""Reads what the Neptune client keeps on the disk, and makes of it what a server would.

A server takes a point of a series only if its step is larger than the last one, and no field where there is one of
another type or a namespace.
"""

from __future__ import annotations

import base64
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

with warnings.catch_warnings():  # What its packages do at their import is no test's matter: jsonschema's deprecations.
    warnings.simplefilter("ignore")
    import neptune  # noqa: F401  for the tests that come after

Point = tuple[float, Any, float]


def folders(base: Path = Path(".neptune"), mode: str = "offline") -> list[Path]:
    return sorted((base / mode).glob("run__*"))


def operations(folder: Path) -> Iterator[dict[str, Any]]:
    """In the order in which `neptune sync` sends them."""
    logs = sorted(folder.glob("data-*.log"), key=lambda log: int(log.stem.removeprefix("data-")))
    before = 0
    for log in logs:
        for line in log.read_text("utf-8").splitlines(keepends=True):
            if not line.endswith("\n"):
                continue  # Cut short by a kill.
            entry = json.loads(line)
            assert entry["version"] > before
            before = entry["version"]
            yield entry["obj"]


class StoredRun:
    """One run, as a server has it after `neptune sync` of a folder."""

    def __init__(self, folder: Path) -> None:
        self.types: dict[str, str] = {}
        self.values: dict[str, Any] = {}
        self.series: dict[str, list[Point]] = {}
        self.tags: set[str] = set()
        self.refused: list[tuple[str, float]] = []
        for operation in operations(folder):
            self._take(operation)
        self.names: dict[str, str] = {}  # As they were logged, by path.
        for path, value in self.values.items():
            if path.startswith("tracelet/names/"):
                self.names |= json.loads(value)

    def _take(self, operation: dict[str, Any]) -> None:
        path, kind = "/".join(operation["path"]), operation["type"]
        kind = {"AddStrings": "StringSet", "LogFloats": "FloatSeries", "LogStrings": "StringSeries"}.get(kind, kind)
        assert self.types.setdefault(path, kind) == kind, f"{path} is a {self.types[path]}"
        for other in self.types:
            assert not other.startswith(f"{path}/"), f"{path} is a namespace: it has {other}"
            assert not path.startswith(f"{other}/"), f"{other} is a field"
        if kind == "StringSet":
            self.tags.update(operation["values"])
        elif "values" in operation:
            for value in operation["values"]:
                self._append(path, value)
        elif kind == "UploadFile":
            assert Path(operation["file_path"]).is_file()
            self.values[path] = Path(operation["file_path"]).read_bytes()
        elif kind == "UploadFileSet":
            self.values.setdefault(path, []).extend(operation["file_globs"])
        else:
            self.values[path] = operation["value"]

    def _append(self, path: str, point: dict[str, Any]) -> None:
        points = self.series.setdefault(path, [])
        last = points[-1][0] if points else None
        step = point["step"]
        if step is None:
            step = 0 if last is None else last + 1
        if last is not None and step <= last:
            self.refused.append((path, step))
            return
        value = point["value"]
        if isinstance(value, dict):
            value = {**value, "data": base64.b64decode(value["data"])}
        points.append((step, value, point["ts"]))

    def name(self, path: str, tail: str = "") -> str:
        """The name as it was logged."""
        return self.names.get(path, path.removesuffix(tail))

    def scalars(self) -> list[tuple[str, int, float, float]]:
        """Of all float series, with what is beside them: late points, NaN and infinities."""
        rows = []
        for path, points in self.series.items():
            kind = self.types[path]
            if kind == "FloatSeries" and not path.endswith(("_late", "_late_step")):
                rows += [(self.name(path), step, value, time_s) for step, value, time_s in points]
            elif kind == "FloatSeries" and path.endswith("_late"):
                steps = [value for _, value, _ in self.series[f"{path}_step"]]
                late = zip(steps, points, strict=True)
                rows += [(self.name(path, "_late"), int(step), value, time_s) for step, (_, value, time_s) in late]
            elif path.endswith("_nonfinite"):
                rows += [(self.name(path, "_nonfinite"), step, float(value), ts) for step, value, ts in points]
        return rows

    def texts(self) -> dict[str, str]:
        return {
            self.name(path): points[-1][1]
            for path, points in self.series.items()
            if self.types[path] == "StringSeries" and not path.endswith("_nonfinite")
        }

    def under(self, namespace: str) -> dict[str, Any]:
        return {
            self.names.get(path, path.removeprefix(namespace)): value
            for path, value in self.values.items()
            if path.startswith(namespace)
        }


def stored_run(base: Path = Path(".neptune")) -> StoredRun:
    """The only one there is."""
    (folder,) = folders(base)
    return StoredRun(folder)
