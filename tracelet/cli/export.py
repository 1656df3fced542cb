"""`tracelet export`: a run as a file for other programs. On the main thread.

One series at a time is in memory. Each number is written so that reading it back gives the same float; NaN and
infinities are the texts `NaN`, `Infinity` and `-Infinity` in CSV and JSON, and themselves in Parquet.
"""

from __future__ import annotations

import csv
import enum
import functools
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TextIO, final

import typer

from tracelet.cli._files import replaced
from tracelet.cli._options import AllAttemptsOption, DirOption, ProjectOption, RunArgument, open_run
from tracelet.cli._render import clean, json_text, plural, strict
from tracelet.cli.runs import summary
from tracelet.cli.show import record_facts
from tracelet.core.records import MetricData, MetricType, is_reference
from tracelet.errors import UsageError
from tracelet.journal.load import Run, Series
from tracelet.journal.reader import FILE_TYPES
from tracelet.utils.choosing import matching

if TYPE_CHECKING:
    from numpy.typing import NDArray

_COLUMNS: Final = ("name", "step", "value", "time_s")
_CHUNK: Final = 65_536  # Points that are Python objects at the same time.
_FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r")
_RECORD_TYPES: Final = (MetricType.TEXT, MetricType.HISTOGRAM, MetricType.TABLE, *FILE_TYPES)


@final
class Format(enum.Enum):
    """What a run can be exported as."""

    CSV = "csv"
    JSON = "json"
    PARQUET = "parquet"


def export(
    run: RunArgument = "latest",
    form: Annotated[
        Format | None, typer.Option("--format", "-f", help="What to write.  [default: by the ending of FILE, or csv]")
    ] = None,
    metrics: Annotated[
        list[str] | None, typer.Option("--metric", metavar="PATTERN", help="Only these metrics. Repeat it for more.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where to write.  [default: standard output]")
    ] = None,
    ranks: Annotated[bool, typer.Option("--ranks", help="All ranks, with a column for the rank.")] = False,
    all_attempts: AllAttemptsOption = False,
    dir: DirOption = None,
    project: ProjectOption = None,
    json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Export a run as CSV, JSON or Parquet.

    CSV and Parquet hold the metrics, a row a point: name, step, value, time_s. JSON holds the parameters, tags,
    texts and other records, too. Steps that a resumed run has recorded again are left out, but for --all-attempts.
    """
    chosen = _format(form, output, json=json)
    if ranks and chosen is Format.JSON:
        raise typer.BadParameter("it goes with csv and parquet", param_hint="--ranks")
    parts = functools.partial(_parts, ranks=ranks, attempts=all_attempts)
    columns = [*_COLUMNS, *(["rank"] if ranks else []), *(["attempt"] if all_attempts else [])]
    found = open_run(run, dir, project)
    names = matching(found.names(), metrics) if metrics else found.names()
    if chosen is Format.PARQUET:
        if output is None:
            raise UsageError("a Parquet file needs a name: -o FILE.parquet")
        _write_parquet(parts(found, names), columns, output)
    else:
        csv_writer = functools.partial(_write_csv, parts(found, names), columns)
        json_writer = functools.partial(_write_json, found, names, attempts=all_attempts)
        _write_text(output, csv_writer if chosen is Format.CSV else json_writer)
    if output is not None and sys.stderr.isatty():
        typer.echo(f"{plural(len(names), 'metric')} in {clean(output)}", err=True)


def _format(given: Format | None, output: Path | None, *, json: bool) -> Format:
    if json:
        if given not in (None, Format.JSON):
            raise typer.BadParameter("it contradicts --format", param_hint="--json")
        return Format.JSON
    if given is not None:
        return given
    ending = output.suffix[1:].lower() if output is not None else "csv"
    if ending not in {form.value for form in Format}:
        raise typer.BadParameter(f"is {output} csv, json or parquet?", param_hint="--format")
    return Format(ending)


def _write_text(output: Path | None, write: Callable[[TextIO], None]) -> None:
    if output is None:
        write(sys.stdout)
        return
    with replaced(output) as temporary, open(temporary, "x", encoding="utf-8", newline="") as file:
        write(file)


def _chunks(*columns: NDArray[Any]) -> Iterator[tuple[list[Any], ...]]:
    """Columns of one length as Python lists, some rows at a time."""
    for start in range(0, len(columns[0]), _CHUNK):
        yield tuple(column[start : start + _CHUNK].tolist() for column in columns)


def _parts(run: Run, names: Sequence[str], *, ranks: bool, attempts: bool) -> Iterator[tuple[Series, list[int]]]:
    """The points, and what is in the further columns: the rank, the attempt. Without attempts, the points that hold."""
    for name in names:
        for rank in run.ranks_of(name) if ranks else [None]:
            more = [rank] if rank is not None else []
            if attempts:
                yield from ((series, [*more, number]) for number, series in run.by_attempt(name, rank).items())
            else:
                yield run.live(name, rank), more


# -- CSV ---------------------------------------------------------------------------------------------------------------


def _write_csv(parts: Iterable[tuple[Series, list[int]]], columns: Sequence[str], file: TextIO) -> None:
    plain = csv.writer(file, lineterminator="\n")
    quoted = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    plain.writerow(columns)
    on_terminal = file.isatty()
    for series, further in parts:
        shown = cell(clean(series.name) if on_terminal else series.name)
        writer = quoted if "\r" in shown else plain  # Of itself, `csv` puts no quotes around a `\r`.
        for steps, values, times_s in _chunks(series.steps, series.values, series.times_s):
            numbers = [value if math.isfinite(value) else strict(value) for value in values]
            more = [[number] * len(steps) for number in further]
            writer.writerows(zip([shown] * len(steps), steps, numbers, times_s, *more, strict=True))


def cell(name: str) -> str:
    """A name that no spreadsheet takes for a formula, and every encoding can hold."""
    guarded = f"'{name}" if name.startswith(_FORMULA_STARTS) else name
    return guarded.encode("utf-8", "backslashreplace").decode("utf-8")


# -- JSON --------------------------------------------------------------------------------------------------------------


def _write_json(run: Run, names: Sequence[str], file: TextIO, *, attempts: bool) -> None:
    head = {**summary(run), "step_metrics": run.step_metrics}
    file.write(json_text(head, indent=None)[:-1])
    file.write(',\n"records": [')
    for index, record in enumerate(run.records(*_RECORD_TYPES, live=not attempts)):
        file.write((",\n" if index else "\n") + json_text(_record_facts(record, run.path), indent=None))
    file.write('],\n"series": {')
    system = set(run.names(MetricType.SYSTEM))
    for index, name in enumerate(names):
        file.write(f"{',' if index else ''}\n{json_text(name)}: {{")
        file.write(f'"type": "{"system" if name in system else "scalar"}"')
        parts = list(_parts(run, [name], ranks=False, attempts=attempts))
        for label in ("steps", "values", "times_s"):
            chunks = (numbers for series, _ in parts for (numbers,) in _chunks(getattr(series, label)))
            _write_column(label, chunks, file)
        if attempts:
            _write_column("attempts", (further * len(series) for series, further in parts), file)
        file.write("}")
    file.write("}}\n")


def _write_column(label: str, chunks: Iterable[list[Any]], file: TextIO) -> None:
    file.write(f', "{label}": [')
    for index, numbers in enumerate(chunks):
        file.write((", " if index else "") + json_text(numbers, indent=None)[1:-1])
    file.write("]")


def _record_facts(record: MetricData, root: Path) -> dict[str, Any]:
    """A record; a file by its path relative to the run directory."""
    facts = record_facts(record)
    if record.type in FILE_TYPES and not is_reference(record.value, record.metadata):
        facts["value"] = os.path.relpath(record.value, os.path.abspath(root))
    return facts | {"time_s": record.timestamp, "metadata": record.metadata}


# -- Parquet -----------------------------------------------------------------------------------------------------------


def _write_parquet(parts: Iterable[tuple[Series, list[int]]], columns: Sequence[str], output: Path) -> None:
    from tracelet.utils.imports import require

    arrow = require("pyarrow", "`tracelet export --format parquet`", extra="parquet")
    parquet = require("pyarrow.parquet", "`tracelet export --format parquet`", extra="parquet")
    types = {"name": arrow.string(), "value": arrow.float64(), "time_s": arrow.float64()}
    schema = arrow.schema([(column, types.get(column, arrow.int64())) for column in columns])
    with replaced(output) as temporary, parquet.ParquetWriter(os.fspath(temporary), schema) as writer:
        for series, further in parts:
            text = series.name.encode("utf-8", "backslashreplace").decode("utf-8")
            points = [arrow.array(column) for column in (series.steps, series.values, series.times_s)]
            same = [arrow.scalar(text), *(arrow.scalar(number, arrow.int64()) for number in further)]
            name, *more = [arrow.repeat(value, len(series)) for value in same]
            writer.write_table(arrow.table([name, *points, *more], schema=schema))
