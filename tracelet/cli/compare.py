"""`tracelet compare`: what differs between runs. On the main thread; every series is read, one at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.text import Text

from tracelet.cli._options import DirOption, JsonOption, ProjectOption, open_run
from tracelet.cli._render import (
    Column,
    ago,
    clip,
    duration,
    number,
    parameter,
    print_json,
    print_table,
    signed,
    status_text,
    stdout,
    texts,
)
from tracelet.cli.runs import summary
from tracelet.cli.show import SeriesSummary
from tracelet.core.records import MetricType
from tracelet.errors import UsageError
from tracelet.journal.load import Run
from tracelet.utils.choosing import matching, natural

_STATISTICS: Final = ("last", "min", "max")
_NAME_WIDTH: Final = 24
_NUMBER_WIDTH: Final = 12  # With the blanks before it.
_MAX_CELL_WIDTH: Final = 24

Summaries = Mapping[str, list[SeriesSummary | None]]


def compare(
    references: Annotated[
        list[str], typer.Argument(metavar="RUN", help="Ids, beginnings of ids, names, paths, or `latest`.")
    ],
    metrics: Annotated[
        list[str] | None, typer.Option("--metric", metavar="PATTERN", help="Only these metrics. Repeat it for more.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Show equal parameters, and system metrics, too.")] = False,
    dir: DirOption = None,
    project: ProjectOption = None,
    json: JsonOption = False,
) -> None:
    """Compare runs: parameters that differ, metrics side by side.

    A difference is against the first run.
    """
    found = [open_run(reference, dir, project) for reference in references]
    if len({run.path.resolve() for run in found}) < 2:
        raise UsageError("compare takes two runs or more; `tracelet show` shows one")
    params = _params(found, everything=everything)
    summaries = _summaries(found, metrics, everything=everything)
    if json:
        print_json(_facts(found, params, summaries))
        return
    console = stdout()
    name_width = max((clip(name, _NAME_WIDTH).cell_len for name in summaries), default=0)
    # As many side by side as fit: the first run with its values, each other one with values and differences.
    at_once = max(1, (console.width - name_width - 6 - _NUMBER_WIDTH) // (2 * _NUMBER_WIDTH))
    for start in range(1, len(found), at_once):
        chosen = [0, *range(start, min(start + at_once, len(found)))]
        if start > 1:
            console.print()
        _print(console, found, params, summaries, chosen)


def _params(runs: Sequence[Run], *, everything: bool) -> dict[str, list[Any]]:
    """The value that each run has of each parameter; only of those that differ, unless `everything`."""
    table = {}
    for name in sorted({name for run in runs for name in run.params}, key=natural):
        texts_of_all = {parameter(run.params[name]) if name in run.params else None for run in runs}
        if everything or len(texts_of_all) > 1:
            table[name] = [run.params.get(name) for run in runs]
    return table


def _summaries(runs: Sequence[Run], patterns: Sequence[str] | None, *, everything: bool) -> Summaries:
    kinds = (MetricType.SCALAR, MetricType.SYSTEM) if everything or patterns else (MetricType.SCALAR,)
    by_run = [set(run.names(*kinds)) for run in runs]
    names = sorted(set().union(*by_run), key=natural)
    if patterns:
        names = matching(names, patterns)
    return {
        name: [
            SeriesSummary.of(run.live(name)) if name in known else None for run, known in zip(runs, by_run, strict=True)
        ]
        for name in names
    }


def _facts(runs: Sequence[Run], params: Mapping[str, list[Any]], summaries: Summaries) -> dict[str, Any]:
    def values(name: str, statistic: str) -> list[float | None]:
        return [None if each is None else getattr(each, statistic) for each in summaries[name]]

    metrics = {name: {statistic: values(name, statistic) for statistic in _STATISTICS} for name in summaries}
    return {"runs": [summary(run) for run in runs], "params": params, "metrics": metrics}


def _print(
    console: Console, runs: Sequence[Run], params: Mapping[str, list[Any]], summaries: Summaries, chosen: Sequence[int]
) -> None:
    """One block of runs side by side."""
    facts: list[tuple[str, list[Text]]] = [
        ("name", texts(runs[i].name for i in chosen)),
        ("status", [status_text(runs[i].status) for i in chosen]),
        ("started", texts(ago(runs[i].created_s) for i in chosen)),
        ("time", texts(duration(runs[i].duration_s) for i in chosen)),
    ]
    ids = [runs[i].id for i in chosen]
    _print_rows(console, "RUN", ids, facts)
    console.print()
    if params:
        rows = [(name, texts(_param_text(runs[i], name) for i in chosen)) for name in params]
        _print_rows(console, "PARAMETER", ids, rows)
    else:
        console.print("No parameter differs." if any(run.params for run in runs) else "There are no parameters.")
    console.print()
    if summaries:
        _print_metrics(console, ids, summaries, chosen)
    else:
        console.print("There are no metrics.")


def _print_rows(console: Console, title: str, ids: Sequence[str], rows: Sequence[tuple[str, list[Text]]]) -> None:
    columns = [Column(title, texts(name for name, _ in rows), limit=_NAME_WIDTH)]
    limit = min((console.width - columns[0].width()) // len(ids) - 2, _MAX_CELL_WIDTH)
    columns += [Column(run_id, [cells[at] for _, cells in rows], limit=limit) for at, run_id in enumerate(ids)]
    print_table(console, columns)


def _param_text(run: Run, name: str) -> str:
    return parameter(run.params[name]) if name in run.params else "-"


def _print_metrics(console: Console, ids: Sequence[str], summaries: Summaries, chosen: Sequence[int]) -> None:
    names = [name if index == 0 else "" for name in summaries for index in range(len(_STATISTICS))]
    columns = [
        Column("METRIC", texts(names), limit=_NAME_WIDTH),
        Column("", [Text(statistic, "dim") for _ in summaries for statistic in _STATISTICS]),
    ]
    firsts: list[float | None] = []
    for at, (index, run_id) in enumerate(zip(chosen, ids, strict=True)):
        found = [each[index] for each in summaries.values()]
        values = [None if one is None else getattr(one, statistic) for one in found for statistic in _STATISTICS]
        columns.append(Column(run_id, texts(map(_value, values)), right=True, limit=_NUMBER_WIDTH - 2))
        if at == 0:
            firsts = values
        else:
            columns.append(Column("", list(map(_difference, values, firsts)), right=True))
    print_table(console, columns)


def _value(value: float | None) -> str:
    return "-" if value is None else number(value)


def _difference(value: float | None, first: float | None) -> Text:
    return Text("" if value is None or first is None else signed(value - first), "dim")
