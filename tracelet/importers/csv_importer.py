"""`tracelet import csv FILE`: Lightning's `metrics.csv`, and any table whose rows are steps or single points.

Two shapes. *Wide*: a column for each series, as Lightning writes it; an empty cell is no point. *Long*: a row for each
point, where a column has the series' names, as `tracelet export` writes it. Called on the thread that imports.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Final, final

from tracelet.core.importer import ImporterPlugin, Item, Omitted, SourceRun
from tracelet.core.plugins import PluginMetadata, PluginType
from tracelet.core.records import MetricData, MetricType
from tracelet.errors import SettingsError, UsageError
from tracelet.importers.files import files_below, given_path
from tracelet.importers.rows import Rows
from tracelet.importers.yamls import parameters

_STEPS: Final = ("step", "_step", "global_step", "iteration", "epoch")
_TIMES: Final = ("time_s", "_timestamp", "timestamp", "wall_time", "time")
_NAMES: Final = ("metric", "name", "tag", "key")
_VALUES: Final = ("value",)
_HYPERPARAMETERS: Final = "hparams.yaml"


@final
class CsvImporter(ImporterPlugin):
    """Each file is a run; of a directory, each `.csv` file in it."""

    options: ClassVar[Mapping[str, str]] = {
        "step": "The column with the steps.",
        "time": "The column with the times: Unix time in seconds, or ISO 8601.",
        "name": "The column with the series' names, where each row is one point.",
        "value": "The column with the values, where each row is one point.",
        "columns": "Only these columns become series, divided by commas.",
        "separator": "What divides the cells; a comma is the default.",
    }

    @classmethod
    def get_metadata(cls) -> PluginMetadata:
        """See `PluginBase`."""
        return PluginMetadata(
            "csv", "1.0.0", PluginType.IMPORTER, "Tables: Lightning's metrics.csv and any", "Tracelet"
        )

    def runs(self, source: str) -> Iterator[SourceRun]:
        """See `ImporterPlugin`."""
        root = given_path(source)
        files = [root] if root.is_file() else [path for path in files_below(root) if path.suffix.lower() == ".csv"]
        if not files:
            raise UsageError(f"there are no .csv files in {os.fspath(root)!r}")
        for path in files:
            table = _Table(path, self._config)
            parent = os.path.basename(os.path.dirname(os.path.realpath(path)))
            name = parent if path.name == "metrics.csv" else path.stem
            yield SourceRun(os.path.realpath(path), name, table.items, created_s=table.first_time_s())


@final
class _Table:
    """One file."""

    def __init__(self, path: Path, config: Any) -> None:
        self._path = path
        self._separator = config.get("separator", ",")
        try:
            with open(path, newline="", encoding="utf-8-sig", errors="replace") as file:
                self._header = next(csv.reader(file, delimiter=self._separator), [])
        except (csv.Error, TypeError) as error:
            raise UsageError(f"{os.fspath(path)!r} can't be read as a table: {error}") from error
        if not any(self._header):
            raise UsageError(f"{os.fspath(path)!r} is empty: it has no header")
        self._step = self._column("step", config, _STEPS)
        self._time = self._column("time", config, _TIMES)
        self._name = self._column("name", config, _NAMES)
        self._value = self._column("value", config, _VALUES)
        special = (self._step, self._time, self._name, self._value)
        wanted = config.get("columns")
        for name in wanted.split(",") if wanted else ():
            self._index(name)
        self._series = [
            (place, name)
            for place, name in enumerate(self._header)
            if name and (name in wanted.split(",") if wanted else place not in special)
        ]

    def _column(self, option: str, config: Any, usual: Sequence[str]) -> int | None:
        if option in config:
            return self._index(config[option])
        return next((self._header.index(name) for name in usual if name in self._header), None)

    def _index(self, name: str) -> int:
        if name not in self._header:
            raise SettingsError(f"{os.fspath(self._path)!r} has no column {name!r}. It has: {', '.join(self._header)}")
        return self._header.index(name)

    def _rows(self) -> Iterator[list[str]]:
        with open(self._path, newline="", encoding="utf-8-sig", errors="replace") as file:
            rows = csv.reader((line.replace("\0", "") for line in file), delimiter=self._separator)
            next(rows, None)
            yield from rows

    def first_time_s(self) -> float | None:
        """The time of its first row; else when the file was last written."""
        try:
            row = next(self._rows(), [])
            found = None if self._time is None else _time_s(_cell(row, self._time))
        except csv.Error:
            found = None
        return os.path.getmtime(self._path) if found is None else found

    def items(self) -> Iterator[Item]:
        """All that it holds."""
        settings = self._path.parent / _HYPERPARAMETERS
        if settings.is_file() and not settings.is_symlink():
            for name, value in parameters(settings):
                yield MetricData(name, value, MetricType.PARAMETER)
        rows, changed_s = Rows(), os.path.getmtime(self._path)
        long = self._name is not None and self._value is not None
        try:
            for index, row in enumerate(self._rows()):
                step = index if self._step is None else _step(_cell(row, self._step))
                if step is None:
                    yield Omitted("a row", f"the column {self._header[self._step or 0]!r} has no whole number")
                    continue
                time_s = (None if self._time is None else _time_s(_cell(row, self._time))) or changed_s
                cells = (
                    [(_cell(row, self._name or 0), _cell(row, self._value or 0))]
                    if long
                    else [(name, _cell(row, place)) for place, name in self._series]
                )
                for name, text in cells:
                    if not text:
                        continue
                    try:
                        rows.add(name, step, float(text), time_s)
                    except ValueError:
                        yield MetricData(name, text, MetricType.TEXT, step, time_s)
                if rows.is_full:
                    yield rows.take()
        except csv.Error as error:
            yield Omitted(f"the end of {self._path.name}", f"it is no table from there on: {error}")
        yield rows.take()


def _cell(row: Sequence[str], place: int) -> str:
    return row[place].strip() if place < len(row) else ""


def _step(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        try:
            number = float(text)
        except ValueError:
            return None
        return int(number) if number.is_integer() and abs(number) < 2**63 else None


def _time_s(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            return None
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
