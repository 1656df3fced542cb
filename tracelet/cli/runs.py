"""`tracelet runs`: the table of runs. On the main thread.

Of thousands of runs only `run.json` is read; the rest is read for the runs that are shown, and for all of them only
where a filter or the sorting asks for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.text import Text

from tracelet.cli._options import DirOption, JsonOption, ProjectOption, runs_directory
from tracelet.cli._render import (
    Column,
    ago,
    clean,
    duration,
    number,
    parameter,
    plural,
    print_json,
    print_table,
    status_text,
    stdout,
    texts,
)
from tracelet.cli.filters import Key, Row, parse_condition, parse_sort, sort_place
from tracelet.journal.load import Run, list_runs
from tracelet.utils.choosing import main_metrics

_SHOWN_METRICS: Final = 3


def runs(
    filters: Annotated[
        list[str] | None,
        typer.Option(
            "--filter", metavar="EXPR", help="Only runs with status=finished, 'params.lr>0.01', … Repeat it for more."
        ),
    ] = None,
    sort: Annotated[
        str, typer.Option(metavar="KEY[:desc]", help="Sort by a key of --filter, such as metric.val/acc:desc.")
    ] = "started:desc",
    metrics: Annotated[
        list[str] | None, typer.Option("--metric", metavar="NAME", help="Show this metric. Repeat it for more.")
    ] = None,
    limit: Annotated[int, typer.Option(min=0, metavar="N", help="Show so many runs at most; 0 shows all.")] = 20,
    dir: DirOption = None,
    project: ProjectOption = None,
    json: JsonOption = False,
) -> None:
    """List the runs, the newest first.

    The keys of --filter and --sort are id, name, project, status, started, duration, step, params.NAME, metric.NAME and
    tag.NAME. The operators are = != < <= > >= and ~ (contains) !~.
    """
    conditions = [parse_condition(text) for text in filters or ()]
    key, descending = parse_sort(sort)
    directory = runs_directory(dir)
    everything = list_runs(directory, project)
    rows = [Row(run) for run in everything]
    rows = [row for row in rows if all(condition.holds(row) for condition in conditions)]
    if (key, descending) != (Key("", "started"), True):  # As they are now.
        rows.sort(key=lambda row: sort_place(key, row, descending=descending), reverse=descending)
    shown = rows[: limit or None]
    if json:
        print_json([_facts(row) for row in shown])
    elif shown:
        asked = [key, *(condition.key for condition in conditions)]
        _print(shown, asked, metrics)
        if len(rows) > len(shown):
            stdout().print(f"{len(shown)} of {plural(len(rows), 'run')}; --limit 0 shows all", style="dim")
    elif everything:
        stdout().print(f"None of {plural(len(everything), 'run')} answers to the filter.", soft_wrap=True)
    else:
        _print_how_to_begin(directory, project)


def summary(run: Run) -> dict[str, Any]:
    """What identifies a run and how it stands, for JSON."""
    return {
        "id": run.id,
        "uuid": run.uuid,
        "name": run.name,
        "project": run.project,
        "path": str(run.path),
        "status": run.status.value,
        "error": run.error,
        "started_s": run.created_s,
        "ended_s": run.ended_s,
        "duration_s": run.duration_s,
        "params": run.params,
        "tags": run.tags,
    }


def _facts(row: Row) -> dict[str, Any]:
    latest = {name: {"step": step, "value": value} for name, (step, value) in row.latest.items()}
    return {**summary(row.run), "last_step": row.last_step, "metrics": latest}


def _print(rows: list[Row], asked: list[Key], metrics: list[str] | None) -> None:
    """The table. What was sorted or filtered by is shown, too."""
    extra = list(dict.fromkeys(key for key in asked if key.group in ("metric", "params")))
    names = metrics or main_metrics([row.latest for row in rows], _SHOWN_METRICS)
    extra += [key for name in names if (key := Key("metric", name)) not in extra]
    all_runs = [row.run for row in rows]
    steps = [row.last_step for row in rows]
    columns = [
        Column("ID", texts(run.id for run in all_runs), limit=16),
        Column("NAME", texts(run.name for run in all_runs), limit=20),
        Column("STATUS", [status_text(run.status) for run in all_runs]),
        Column("STARTED", texts(ago(run.created_s) for run in all_runs), rank=2),
        Column("TIME", texts(duration(run.duration_s) for run in all_runs), right=True, rank=3),
        Column("STEP", texts("-" if step is None else step for step in steps), right=True, rank=4),
        *(Column(key.name, [_cell(key, row) for row in rows], True, rank=5 + at) for at, key in enumerate(extra)),
    ]
    if len({run.project for run in all_runs}) > 1:
        columns.insert(2, Column("PROJECT", texts(run.project for run in all_runs), limit=16, rank=8))
    if any(run.tags for run in all_runs):
        columns.append(Column("TAGS", texts(_tags(run) for run in all_runs), limit=30, rank=9))
    print_table(stdout(), columns)


def _cell(key: Key, row: Row) -> Text:
    value = key.value(row)
    if value is None:
        return Text("-")
    return Text(number(value)) if key.group == "metric" else Text(clean(parameter(value)))


def _tags(run: Run) -> str:
    return " ".join(f"{key}={value}" if value else key for key, value in run.tags.items())


def _print_how_to_begin(directory: Path, project: str | None) -> None:
    where = f"There are no runs in {clean(directory)}"
    stdout().print(
        f"{where}{f', project {clean(project)}' if project is not None else ''}.\n"
        "Record one:   with tracelet.Experiment('first') as run: run.log_metric('loss', 0.5)\n"
        "Elsewhere?    tracelet runs --dir DIRECTORY, or set TRACELET_DIR",
        soft_wrap=True,
    )
