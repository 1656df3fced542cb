"""The Parquet files that Neptune's exporter wrote: a row for each point and each value, of one run or several a file.

Called on the thread that imports. Batches of columns go through; of a series of numbers no row becomes an object.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, final

from tracelet.core.importer import Item, Omitted, Points, SourceRun
from tracelet.core.records import MetricData, MetricType
from tracelet.errors import UsageError
from tracelet.importers._neptune.fields import NAME, kind_of, single, words
from tracelet.importers.files import inside
from tracelet.utils.imports import require
from tracelet.utils.media import histogram

_FEATURE: Final = "Importing Neptune's exported files"
_ROWS: Final = 65_536
_SINGLE: Final = {"int": "int_value", "float": "float_value", "string": "string_value", "bool": "bool_value"}


def exported_runs(paths: Sequence[Path], files: Path | None) -> Iterator[SourceRun]:
    """The runs in Parquet files, whose parts are numbered.

    Raises:
        UsageError: One is no file of the exporter.
        MissingDependencyError: pyarrow is not installed.
    """
    parquet = require("pyarrow.parquet", _FEATURE, "import")
    found: dict[tuple[str, str], list[Path]] = {}
    for path in sorted(paths, key=lambda one: [int(t) if t.isdigit() else t for t in re.split(r"(\d+)", str(one))]):
        try:
            with parquet.ParquetFile(path) as file:
                for batch in file.iter_batches(_ROWS, columns=["project_id", "run_id"]):
                    for project, run in set(zip(*(column.to_pylist() for column in batch.columns), strict=True)):
                        if path not in (parts := found.setdefault((str(project), str(run)), [])):
                            parts.append(path)
        except (OSError, ValueError) as error:  # Those of pyarrow are of these.
            raise UsageError(f"{str(path)!r} is no Parquet file of Neptune's exporter: {error}") from error
    for (project, run_id), parts in found.items():
        reader = _ExportedRun(run_id, parts, files)
        name, created_s = reader.facts()
        yield SourceRun(f"{project}/{run_id}", name or run_id, reader.items, project.rpartition("/")[2], created_s)


@final
class _ExportedRun:
    """One run."""

    def __init__(self, run_id: str, parts: Sequence[Path], files: Path | None) -> None:
        self._run_id = run_id
        self._parts = parts
        self._files = files

    def facts(self) -> tuple[str | None, float | None]:
        """Name and time of creation."""
        name = created_s = None
        for batch in self._batches(["attribute_path", "string_value", "datetime_value"], (NAME, "sys/creation_time")):
            for row in batch.to_pylist():
                if row["attribute_path"] == NAME:
                    name = row["string_value"]
                elif row["datetime_value"] is not None:
                    created_s = row["datetime_value"].timestamp()
        return name, created_s

    def items(self) -> Iterator[Item]:
        """All that the files hold of the run."""
        compute = require("pyarrow.compute", _FEATURE, "import")
        for batch in self._batches():
            is_number = compute.equal(batch.column("attribute_type"), "float_series")
            if numbers := batch.filter(is_number):
                yield from _series(numbers)
            for row in batch.filter(compute.invert(is_number)).to_pylist():
                path = row["attribute_path"]
                try:
                    items = list(self._row(path, row["attribute_type"], row))
                except (UsageError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
                    items = [Omitted(f"a value of {path!r}", "it is none, or not as Neptune writes it")]
                yield from items

    def _batches(self, columns: list[str] | None = None, paths: Sequence[str] | None = None) -> Iterator[Any]:
        parquet = require("pyarrow.parquet", _FEATURE, "import")
        compute = require("pyarrow.compute", _FEATURE, "import")
        arrow = require("pyarrow", _FEATURE, "import")
        wanted = None if columns is None else [*columns, "run_id"]
        for path in self._parts:
            with parquet.ParquetFile(path) as file:
                for batch in file.iter_batches(_ROWS, columns=wanted):
                    mine = batch.filter(compute.equal(batch.column("run_id"), self._run_id))
                    if paths is not None:
                        mine = mine.filter(compute.is_in(mine.column("attribute_path"), arrow.array(paths)))
                    if len(mine):
                        yield mine

    def _row(self, path: str, kind: str, row: Mapping[str, Any]) -> Iterator[Item]:
        time_s = None if row["timestamp"] is None else row["timestamp"].timestamp()
        step = None if row["step"] is None else int(row["step"])
        match kind:
            case "int" | "float" | "string" | "bool":
                yield from single(path, row[_SINGLE[kind]], time_s)
            case "datetime":
                yield from single(path, row["datetime_value"].isoformat(), time_s)
            case "string_set":
                yield from words(path, row["string_set_value"] or ())
            case "string_series":
                yield MetricData(path, row["string_value"], MetricType.TEXT, step, time_s)
            case "histogram_series":
                counts, edges = (row["histogram_value"][part] for part in ("values", "edges"))
                if len(edges) != len(counts) + 1:  # They would be taken for numbers to count.
                    raise ValueError(f"{len(edges)} edges of {len(counts)} counts")
                yield MetricData(path, histogram((counts, edges)), MetricType.HISTOGRAM, step, time_s)
            case "file" | "file_series":
                relative = str((row["file_value"] or {}).get("path"))
                found = None if self._files is None else inside(self._files, relative)
                if found is not None:
                    yield MetricData(path, str(found), MetricType.ARTIFACT, step, time_s)
                else:
                    reason = "name the exporter's folder of files with --option files=DIRECTORY"
                    yield Omitted(f"the file {relative!r}", reason)
            case _:
                yield Omitted(f"fields of the type {kind!r}", "Tracelet has no such type")


def _series(batch: Any) -> Iterator[Item]:
    """Rows of series of numbers, in columns."""
    import numpy as np

    arrow = require("pyarrow", _FEATURE, "import")
    encoded = batch.column("attribute_path").dictionary_encode()
    names, places = encoded.dictionary.to_pylist(), encoded.indices.to_numpy(zero_copy_only=False)
    steps = batch.column("step").cast("float64").to_numpy(zero_copy_only=False)
    values = batch.column("float_value").to_numpy(zero_copy_only=False)
    times = batch.column("timestamp").cast(arrow.timestamp("ns", tz="UTC")).cast("int64")
    times_ns = times.to_numpy(zero_copy_only=False)
    whole = np.floor(steps)
    if fractions := int((whole != steps).sum()):
        yield Omitted(f"the fractions of {fractions} steps", "a step of Tracelet's is a whole number")
    for kind in (MetricType.SCALAR, MetricType.SYSTEM):
        rows = np.isin(places, [place for place, name in enumerate(names) if kind_of(name) is kind])
        if rows.any():
            columns = (places[rows].astype(np.intp), whole[rows].astype(np.int64), values[rows].astype(np.float64))
            yield Points(names, *columns, np.maximum(times_ns[rows].astype(np.int64), 1), kind)
