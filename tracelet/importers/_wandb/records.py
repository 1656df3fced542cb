"""What the records of W&B's log say. Called on the thread that imports.

The numbers of the fields are those of wandb's `wandb_internal.proto`. A row of the history gives a point for each
number, at W&B's own `_step`, or at `tracelet/step` where Tracelet wrote it. What lies in files is read from the run's
folder alone, whatever the log says.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, final

from tracelet.core.importer import Item, Omitted
from tracelet.core.records import DESCRIPTION_NAME, STATUS_NAME, TAG_PREFIX, MetricData, MetricType
from tracelet.errors import UsageError
from tracelet.importers._wandb.log import WandbLog
from tracelet.importers.files import inside
from tracelet.importers.protobuf import Field, fields, message, signed, text
from tracelet.importers.rows import Rows
from tracelet.utils.media import histogram
from tracelet.utils.values import flatten

_OWN: Final = ("_", "tracelet/")
_STEP: Final = "tracelet/step"
_FILES: Final = {
    "image-file": MetricType.IMAGE,
    "audio-file": MetricType.AUDIO,
    "video-file": MetricType.VIDEO,
    "plotly-file": MetricType.FIGURE,
}
_LARGEST_TABLE_BYTES: Final = 64 << 20


@final
class WandbRecords:
    """Reads the records of one run."""

    def __init__(self, folder: Path, log: Path, staging: Path | None) -> None:
        self._files = folder / "files"
        self._log = WandbLog(log)
        self._name = log.name
        self._staging = staging
        self._begin()

    def items(self) -> Iterator[Item]:
        """All that the folder holds."""
        self._begin()
        for data in self._log:
            try:
                for number, value in fields(data):
                    yield from self._record(number, value)
            except (ValueError, TypeError, KeyError, AttributeError, OverflowError, UsageError) as error:
                yield Omitted(f"a record of {self._name}", f"it can't be read: {error}")
            for gathered in (self._rows, self._system):
                if gathered.is_full:
                    yield gathered.take()
        yield self._rows.take()
        yield self._system.take()
        yield from self._facts()
        for fault in self._log.faults:
            yield Omitted(f"a part of {self._name}", f"the file is {fault}")

    def _begin(self) -> None:
        self._rows, self._system, self._readings = Rows(), Rows(MetricType.SYSTEM), 0
        self._config, self._summary, self._logged = dict[str, Any](), dict[str, Any](), set[str]()
        self._time_s: float | None = None  # Of the last row: what has no time of its own gets it.
        self._status = "killed"  # Until the log says how it ended.

    def _record(self, number: int, value: Field) -> Iterator[Item]:
        match number:
            case 2:
                yield from self._row(message(value))
            case 3:
                _update(self._summary, message(value))
            case 4 | 13:
                yield Omitted("a line of the console", "W&B's console lines are not imported")
            case 5:
                _update(self._config, message(value))
            case 7:
                self._reading(message(value))
            case 8:
                yield from self._artifact(message(value))
            case 17:
                yield from self._run(message(value))
            case 18:
                code = signed(dict(fields(message(value))).get(1, 0))
                self._status = "failed" if code else "finished"

    def _facts(self) -> Iterator[Item]:
        """What holds at the end: the parameters, what only the summary has, the status."""
        self._config.pop("_wandb", None)
        for name, value in flatten(self._config):
            if not name.startswith("tracelet/"):
                yield MetricData(name, value, MetricType.PARAMETER)
        for key, value in self._summary.items():
            if not key.startswith(_OWN) and key not in self._logged:
                for name, leaf in flatten({f"summary/{key}": value}):
                    yield MetricData(name, leaf, MetricType.PARAMETER)
        yield MetricData(STATUS_NAME, self._status, MetricType.CUSTOM, None, self._time_s)

    def _run(self, data: bytes) -> Iterator[Item]:
        for number, value in fields(data):
            match number:
                case 4:
                    _update(self._config, message(value))
                case 6 | 7 if value:
                    yield MetricData(TAG_PREFIX + ("group", "job_type")[number - 6], text(value), MetricType.CUSTOM)
                case 9 if value:
                    yield MetricData(DESCRIPTION_NAME, text(value), MetricType.CUSTOM)
                case 10:
                    yield MetricData(TAG_PREFIX + text(value), "", MetricType.CUSTOM)

    def _row(self, data: bytes) -> Iterator[Item]:
        """A row of the history."""
        row: dict[str, Any] = {}
        _update(row, data)
        step = row.get(_STEP, row.get("_step", 0))
        time_s = self._time_s = float(row.get("_timestamp", self._time_s or 0.0))
        for key, value in row.items():
            if not key.startswith(_OWN):
                self._logged.add(key)
                yield from self._value(key, value, int(step), time_s)

    def _value(self, name: str, value: Any, step: int, time_s: float) -> Iterator[Item]:
        kind = value.get("_type") if isinstance(value, dict) else None
        if isinstance(value, (bool, int, float)) or value in ("NaN", "Infinity", "-Infinity"):
            self._rows.add(name, step, float(value), time_s)
        elif isinstance(value, str):
            yield MetricData(name, value, MetricType.TEXT, step, time_s)
        elif kind is None and isinstance(value, dict):
            for key, inner in value.items():
                yield from self._value(f"{name}/{key}", inner, step, time_s)
        elif kind == "histogram" and "bins" in value:
            counted = histogram((value["values"], value["bins"]))
            yield MetricData(name, counted, MetricType.HISTOGRAM, step, time_s)
        elif kind == "images/separated" and isinstance(value, dict):
            for index, path in enumerate(value.get("filenames", ())):
                one = {"_type": "image-file", "path": path}
                yield from self._value(name if value.get("count") == 1 else f"{name}/{index}", one, step, time_s)
        elif kind in _FILES or kind == "table-file":
            yield self._file(name, value, step, time_s)
        else:
            yield Omitted(f"values of the type {kind or type(value).__name__}", "Tracelet has no such type")

    def _file(self, name: str, value: Any, step: int, time_s: float) -> Item:
        relative = str(value.get("path"))
        path = inside(self._files, relative)
        if path is None or not path.is_file():
            return Omitted(f"the file {relative!r}", "it is not in the run's folder")
        if value["_type"] != "table-file":
            return MetricData(name, str(path), _FILES[value["_type"]], step, time_s)
        if path.stat().st_size > _LARGEST_TABLE_BYTES:
            return MetricData(name, str(path), MetricType.ARTIFACT, step, time_s)
        table = json.loads(path.read_text("utf-8"))
        made = {"columns": [str(column) for column in table["columns"]], "rows": table["data"]}
        return MetricData(name, made, MetricType.TABLE, step, time_s)

    def _reading(self, data: bytes) -> None:
        """What W&B's own monitor measured."""
        values, time_s = dict[str, Any](), 0.0
        for number, value in fields(data):
            if number == 2:
                time_s = seconds(value)
            elif number == 3:
                item = dict(fields(message(value)))
                values[text(item[1])] = json.loads(message(item[16]))
        for key, value in values.items():
            self._system.add(f"system/{key}", self._readings, float(value), time_s)
        self._readings += bool(values)

    def _artifact(self, data: bytes) -> Iterator[Item]:
        """W&B keeps the files of an artifact outside of the run's folder: they are read only where the user says so."""
        parts = dict(fields(data))
        name, kind = text(parts.get(5, b"")), text(parts.get(4, b""))
        if kind == "run_table":  # It comes with the history, too.
            return
        for number, value in fields(message(parts.get(12, b""))):
            if number != 4:
                continue
            entry = {inner: text(part) for inner, part in fields(message(value)) if isinstance(part, bytes)}
            relative, reference, local = entry.get(1, ""), entry.get(3), entry.get(6)
            path = None if local is None or self._staging is None else inside(self._staging, local)
            details: dict[str, Any] = {"type": kind or "custom", "aliases": []}
            if reference is not None and "://" in reference:
                details["reference"] = reference
                yield MetricData(
                    f"{name}/{relative}", reference, MetricType.ARTIFACT, None, self._time_s, None, details
                )
            elif path is not None:
                yield MetricData(
                    f"{name}/{relative}", str(path), MetricType.ARTIFACT, None, self._time_s, None, details
                )
            else:
                yield Omitted(
                    f"the file {relative!r} of the artifact {name!r}",
                    f"it lies outside of the run's folder, at {local!r}: --option files=DIRECTORY allows to read it",
                )


def run_facts(log: Path) -> dict[str, Any]:
    """Who a run is: `run_id`, `project`, `name`, `created_s`, as far as the log says so."""
    for data in WandbLog(log):
        try:
            for number, value in fields(data):
                if number == 17:
                    parts = dict(fields(message(value)))
                    found: dict[str, Any] = {"run_id": text(parts.get(1, b"")), "name": text(parts.get(8, b""))}
                    found["project"] = text(parts.get(3, b"")) or None
                    found["created_s"] = seconds(parts[17]) if 17 in parts else None
                    return found
        except ValueError:
            break
    return {}


def seconds(value: Field) -> float:
    """A protobuf `Timestamp` as Unix time in seconds."""
    parts = dict(fields(message(value)))
    return signed(parts.get(1, 0)) + signed(parts.get(2, 0)) / 1e9


def _update(target: dict[str, Any], data: bytes) -> None:
    """Put the items of a history, config or summary record into a nested mapping."""
    for number, value in fields(data):
        if number != 1:
            continue
        parts = list(fields(message(value)))
        keys = [text(part) for inner, part in parts if inner == 2] or [
            text(part) for inner, part in parts if inner == 1
        ]
        told = dict(parts).get(16)
        place = target
        for key in keys[:-1]:
            inner_place = place.get(key)
            if not isinstance(inner_place, dict):
                inner_place = place[key] = {}
            place = inner_place
        if keys and told is not None:
            place[keys[-1]] = json.loads(message(told))
