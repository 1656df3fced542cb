"""`tracelet ranks`: the processes of one run side by side. On the main thread; one series at a time is read."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.text import Text

from tracelet.cli._options import DirOption, JsonOption, ProjectOption, RunArgument, open_run
from tracelet.cli._render import (
    Column,
    duration,
    print_json,
    print_table,
    print_title,
    quantity,
    status_text,
    stdout,
    texts,
)
from tracelet.core.records import MetricType
from tracelet.journal.load import Run
from tracelet.journal.spread import Spread
from tracelet.utils.choosing import matching, natural

_SHOWN: Final = 20  # Metrics, where none is named.


def ranks(
    run: RunArgument = "latest",
    metrics: Annotated[
        list[str] | None, typer.Option("--metric", metavar="PATTERN", help="Only these metrics. Repeat it for more.")
    ] = None,
    dir: DirOption = None,
    project: ProjectOption = None,
    json: JsonOption = False,
) -> None:
    """Show the processes of one run side by side: who is behind, and each metric's spread over them."""
    found = open_run(run, dir, project)
    shared = [name for name in found.names() if len(found.ranks_of(name)) > 1]
    names = matching(shared, metrics) if metrics else shared
    if json:
        spreads = {name: _last(found.spread(name)) for name in names}
        print_json({"ranks": [asdict(s) | {"status": s.status.value} for s in found.ranks], "metrics": spreads})
        return
    console = stdout()
    print_ranks(console, found)
    if names:
        print_title(console, "Metrics over the ranks, at the last step that all of them have")
        chosen = names if metrics else [name for name in names if name in found.names(MetricType.SCALAR)][:_SHOWN]
        _print_spreads(console, found, sorted(chosen, key=natural))


def print_ranks(console: Console, run: Run) -> None:
    """The table of the ranks."""
    states = run.ranks
    slowest = max((s for s in states if s.late_s is not None), key=lambda s: s.late_s or 0.0, default=None)
    print_title(console, "Ranks")
    columns = [
        Column("RANK", texts(s.rank for s in states), right=True),
        Column("STATUS", [status_text(s.status) for s in states]),
        Column("HOST", texts(s.host for s in states), limit=24, rank=1),
        Column("PID", texts("-" if s.pid is None else s.pid for s in states), right=True, rank=2),
        Column("LAST STEP", texts("-" if s.last_step is None else s.last_step for s in states), right=True),
        Column("BEHIND", [Text(f"{s.behind}", "yellow" if s.behind else "") for s in states], right=True),
        Column("STEP TIME", texts(_time(s.step_s) for s in states), right=True),
        Column("LATE", [Text(_time(s.late_s), "yellow" if s is slowest else "") for s in states], right=True),
    ]
    print_table(console, columns, indent=2)


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return duration(seconds) if seconds >= 1 else f"{seconds * 1e3:.1f} ms"


def _print_spreads(console: Console, run: Run, names: list[str]) -> None:
    lasts = [_last(run.spread(name)) for name in names]

    def cells(key: str) -> list[Text]:
        values = zip(names, (last[key] for last in lasts), strict=True)
        return texts("-" if value is None else quantity(name, value) for name, value in values)

    columns = [
        Column("NAME", texts(names)),
        Column("STEP", texts("-" if last["step"] is None else last["step"] for last in lasts), right=True),
        Column("RANKS", texts(last["ranks"] for last in lasts), right=True, rank=1),
        *(Column(title, cells(title.lower()), right=True) for title in ("MIN", "MEAN", "MAX")),
    ]
    print_table(console, columns, indent=2)


def _last(spread: Spread) -> dict[str, Any]:
    """The spread at the last step that most ranks have."""
    import numpy as np

    at = np.flatnonzero(spread.count == spread.count.max(initial=0))[-1:]
    if not len(at):
        return {"step": None, "ranks": 0, "min": None, "mean": None, "max": None}
    index = int(at[0])
    values = {"min": spread.min, "mean": spread.mean, "max": spread.max}
    facts = {name: float(column[index]) for name, column in values.items()}
    return {"step": int(spread.steps[index]), "ranks": int(spread.count[index]), **facts}
