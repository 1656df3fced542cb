"""`tracelet show`: one run on one screen. On the main thread; every series is read, one at a time."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Final, final

import typer
from rich.console import Console
from rich.text import Text

from tracelet.cli._delivery import delivery_facts
from tracelet.cli._options import AllAttemptsOption, DirOption, JsonOption, ProjectOption, RunArgument, open_run
from tracelet.cli._render import (
    Column,
    ago,
    clean,
    clip,
    duration,
    moment,
    parameter,
    plural,
    print_json,
    print_pairs,
    print_table,
    print_title,
    quantity,
    sparkline,
    status_text,
    stdout,
    texts,
)
from tracelet.cli.ranks import print_ranks
from tracelet.cli.runs import summary
from tracelet.core.records import MetricData, MetricType, is_reference
from tracelet.delivery.report import DeliveryStatus, known_backends
from tracelet.journal.directory import RunDirectory
from tracelet.journal.load import Run, Series
from tracelet.journal.reader import FILE_TYPES
from tracelet.journal.watch import RunWatch
from tracelet.utils.choosing import natural

_SPARK_WIDTH: Final = 12
_SHOWN: Final = 20  # Lines of a section.
_CONSOLE_LINES: Final = 10
_ENVIRONMENT, _CONSOLE = "env/", "console/"  # What the collectors' parameters and texts begin with.
_OTHER_TYPES: Final = (MetricType.HISTOGRAM, MetricType.TABLE)


@final
@dataclass(frozen=True)
class SeriesSummary:
    """A series in a few numbers.

    Attributes:
        count: Points.
        first, last: In the order in which they were logged; None in a series without a point.
        min, max: Without the NaN; None where there is nothing else.
        last_step: The step of `last`.
        not_finite: How many points are NaN or infinite.
    """

    count: int
    first: float | None
    last: float | None
    min: float | None
    max: float | None
    last_step: int | None
    not_finite: int

    @classmethod
    def of(cls, series: Series) -> SeriesSummary:
        """The summary of a series."""
        import numpy as np

        values = series.values
        known = values[~np.isnan(values)]
        return cls(
            count=len(values),
            first=float(values[0]) if len(values) else None,
            last=float(values[-1]) if len(values) else None,
            min=float(known.min()) if len(known) else None,
            max=float(known.max()) if len(known) else None,
            last_step=int(series.steps[-1]) if len(values) else None,
            not_finite=int(np.count_nonzero(~np.isfinite(values))),
        )


def show(
    run: RunArgument = "latest",
    everything: Annotated[bool, typer.Option("--all", help="Do not cut long lists.")] = False,
    all_attempts: AllAttemptsOption = False,
    dir: DirOption = None,
    project: ProjectOption = None,
    json: JsonOption = False,
) -> None:
    """Show one run: status, parameters, metrics, files, delivery."""
    found = open_run(run, dir, project)
    if json:
        print_json(_facts(found, live=not all_attempts))
        return
    console = stdout()
    limit = None if everything else _SHOWN
    _print_head(console, found)
    own, surroundings = _divided(found.params, _ENVIRONMENT)
    _print_params(console, "Parameters", found, own, limit)
    _print_params(console, "Environment", found, surroundings, limit)
    for title, kind in (("Metrics", MetricType.SCALAR), ("System", MetricType.SYSTEM)):
        _print_series(console, title, found, found.names(kind), limit, live=not all_attempts)
    if found.has_ranks:
        print_ranks(console, found)
    _print_texts(console, found, limit, live=not all_attempts)
    _print_console(console, found, None if everything else _CONSOLE_LINES)
    _print_files(console, found, limit, live=not all_attempts)
    _print_delivery(console, found)
    _print_damage(console, found)


def _facts(run: Run, *, live: bool) -> dict[str, Any]:
    series = {
        kind.value: {name: asdict(SeriesSummary.of(_series(run, name, live=live))) for name in run.names(kind)}
        for kind in (MetricType.SCALAR, MetricType.SYSTEM)
    }
    text_records = [record_facts(record) for record in run.records(MetricType.TEXT, live=live)]
    files = [record_facts(record) for record in run.records(*FILE_TYPES, live=live)]
    others = [record_facts(record) for record in run.records(*_OTHER_TYPES, live=live)]
    return {
        **summary(run),
        "description": run.description,
        "git_commit": run.git_commit,
        "attempts": [asdict(attempt) | {"status": attempt.status.value} for attempt in run.attempts],
        "metrics": series["scalar"],
        "system": series["system"],
        "texts": text_records,
        "files": files,
        "others": [{name: fact for name, fact in other.items() if name != "value"} for other in others],
        "ranks": [asdict(state) | {"status": state.status.value} for state in run.ranks],
        "delivery": {status.backend: delivery_facts(status) for status in _deliveries(run)},
        "lost": run.lost,
        "damage": asdict(run.damage),
    }


def _series(run: Run, name: str, *, live: bool) -> Series:
    return run.live(name) if live else run.series(name)


def record_facts(record: MetricData) -> dict[str, Any]:
    """A record for JSON."""
    return {"name": record.name, "type": record.type.value, "step": record.iteration, "value": record.value}


def _print_head(console: Console, run: Run) -> None:
    console.print(Text.assemble((clip(run.name, console.width - 12).plain, "bold"), "  ", status_text(run.status)))
    tags = ", ".join(f"{key}={value}" if value else key for key, value in run.tags.items())
    error = (run.error or "").strip().rpartition("\n")[2]  # The last line of a traceback says what happened.
    lasted = "running for" if run.ended_s is None else "took"
    lines = {
        "id": f"{run.id}, project {run.project}",
        "started": f"{moment(run.created_s)} ({ago(run.created_s)}), {lasted} {duration(run.duration_s)}",
        "attempts": _attempts(run),
        "where": _short_path(run.path),
        "about": run.description or "",
        "commit": _code(run),
        "tags": tags,
        "error": error,
    }
    for label, text in lines.items():
        if text and label == "where":  # In one piece, for copying.
            console.print(Text.assemble((f"{label:9}", "dim"), clean(text)), soft_wrap=True)
        elif text:
            wrapped = clip(text, 5 * console.width).wrap(console, max(console.width - 9, 20))
            for index, line in enumerate(wrapped):
                line.rstrip()
                console.print(Text.assemble((f"{'' if index else label:9}", "dim"), line))


def _short_path(path: Path) -> str:
    absolute, here = os.path.abspath(path), os.getcwd()
    return os.path.relpath(absolute, here) if absolute.startswith(here + os.sep) else absolute


def _attempts(run: Run) -> str:
    """How those before the last one ended, and what was made again."""
    attempts = run.attempts
    if len(attempts) < 2:
        return ""
    told = [
        attempt.status.value + ("" if attempt.rewound_to is None else f" (from step {attempt.rewound_to + 1})")
        for attempt in attempts
    ]
    return f"{len(attempts)}: {', '.join(told)}"


def _code(run: Run) -> str:
    """The commit, and what the git collector says of it."""
    branch, is_dirty = run.params.get("env/git/branch"), run.params.get("env/git/is_dirty")
    notes = [f"branch {branch}" if branch else "", "with changes" if is_dirty is True else ""]
    return ", ".join(filter(None, [run.git_commit or "", *notes]))


def _divided(names: Iterable[str], prefix: str) -> tuple[list[str], list[str]]:
    """The names without and with a prefix, sorted."""
    ordered = sorted(names, key=natural)
    return [name for name in ordered if not name.startswith(prefix)], [n for n in ordered if n.startswith(prefix)]


def _print_params(console: Console, title: str, run: Run, names: list[str], limit: int | None) -> None:
    if not names:
        return
    print_title(console, title)
    shown = names[:limit]
    values = ((name, run.params[name]) for name in shown)
    cells = [
        quantity(name, value) if name.startswith(_ENVIRONMENT) and type(value) is int else parameter(value)
        for name, value in values
    ]
    print_pairs(console, texts(shown), [clip(cell, console.width) for cell in cells])
    _print_rest(console, len(names), limit)


def _print_series(console: Console, title: str, run: Run, names: list[str], limit: int | None, *, live: bool) -> None:
    if not names:
        return
    print_title(console, title)
    shown = sorted(names, key=natural)[:limit]
    summaries, trends = [], []
    for name in shown:  # One at a time: a series may be large.
        series = _series(run, name, live=live)
        summaries.append(SeriesSummary.of(series))
        trends.append(sparkline(series.values, _SPARK_WIDTH))
    flaws = [f" {count} not finite" if (count := summary.not_finite) else "" for summary in summaries]

    def numbers(attribute: str) -> list[Text]:
        values = zip(shown, (getattr(summary, attribute) for summary in summaries), strict=True)
        return texts("-" if value is None else quantity(name, value) for name, value in values)

    columns = [
        Column("NAME", texts(shown), limit=28 if title == "Metrics" else 40),
        Column("POINTS", texts(summary.count for summary in summaries), right=True, rank=1),
        Column("FIRST", numbers("first"), right=True, rank=2),
        Column("LAST", numbers("last"), right=True),
        Column("MIN", numbers("min"), right=True),
        Column("MAX", numbers("max"), right=True),
        Column("TREND", [Text(t) + Text(f, "yellow") for t, f in zip(trends, flaws, strict=True)], limit=40),
    ]
    print_table(console, columns, indent=2)
    _print_rest(console, len(names), limit)


def _print_texts(console: Console, run: Run, limit: int | None, *, live: bool) -> None:
    records = [record for record in run.records(MetricType.TEXT, live=live) if not record.name.startswith(_CONSOLE)]
    if not records:
        return
    print_title(console, "Texts")
    last = records[-limit:] if limit else records
    print_pairs(console, texts(map(_at_step, last)), [clip(record.value, console.width) for record in last])
    _print_rest(console, len(records), limit)


def _print_console(console: Console, run: Run, limit: int | None) -> None:
    """The last lines that the program printed, of each place that it printed to."""
    printed: dict[str, list[str]] = {}
    for record in run.records(MetricType.TEXT):
        if record.name.startswith(_CONSOLE):
            printed.setdefault(record.name.removeprefix(_CONSOLE), []).extend(str(record.value).splitlines())
    for name, lines in sorted(printed.items()):
        print_title(console, "Console" if name == "output" else f"Console: {clean(name)}")
        if limit is not None and len(lines) > limit:
            console.print(f"  … {len(lines) - limit:,} more before: --all", style="dim")
        for line in lines[-limit:] if limit is not None else lines:
            console.print(Text("  ") + clip(line, console.width - 2), soft_wrap=True)


def _at_step(record: MetricData) -> str:
    return record.name if record.iteration is None else f"{record.name} @{record.iteration}"


def _print_files(console: Console, run: Run, limit: int | None, *, live: bool) -> None:
    records = run.records(*FILE_TYPES, *_OTHER_TYPES, live=live)
    if not records:
        return
    print_title(console, "Files and data")
    groups: dict[tuple[str, str], list[MetricData]] = {}
    for record in records:
        groups.setdefault((record.name, record.type.value), []).append(record)
    names = sorted(groups)
    cells = [_file_cell(kind, groups[name, kind], run.path, console.width) for name, kind in names[:limit]]
    print_pairs(console, texts(name for name, _ in names[:limit]), cells)
    _print_rest(console, len(names), limit)


def _file_cell(kind: str, records: list[MetricData], root: Path, width: int) -> Text:
    """Kind, how often, and where the last one is."""
    last = records[-1]
    count = kind if len(records) == 1 else plural(len(records), kind)
    step = "" if last.iteration is None else f", {'last ' if len(records) > 1 else ''}step {last.iteration}"
    is_file = last.type in FILE_TYPES and not is_reference(last.value, last.metadata)
    is_gone = is_file and not os.path.exists(last.value)
    place = os.path.relpath(last.value, os.path.abspath(root)) if is_file else last.value
    place = f"  {place}" if last.type in FILE_TYPES else ""
    return Text(f"{count}{step}") + Text(", the file is gone" if is_gone else "", "yellow") + clip(place, width)


def _deliveries(run: Run) -> list[DeliveryStatus]:
    """How far each backend has come."""
    directory = RunDirectory.open(run.path)
    end = RunWatch(directory).look()
    return [DeliveryStatus.of(directory, backend, end) for backend in known_backends(run.path)]


def _print_delivery(console: Console, run: Run) -> None:
    statuses = _deliveries(run)
    if not statuses:
        return
    print_title(console, "Delivery")
    cells = []
    for status in statuses:
        cell = Text(f"{plural(status.delivered, 'record')} delivered")
        if status.rejected:
            cell += Text(f", {status.rejected:,} rejected", "red")
        cells.append(cell + Text(f", {status.waiting:,} waiting" if status.waiting else "", "yellow"))
    print_pairs(console, texts(status.backend for status in statuses), cells)


def _print_damage(console: Console, run: Run) -> None:
    damage = run.damage
    faults = [
        f"{plural(run.lost, 'record')} that the disk did not take" if run.lost else "",
        plural(damage.records, "damaged record") if damage.records else "",
        plural(damage.holes, "missing record") if damage.holes else "",
        plural(damage.lines, "damaged line") if damage.lines else "",
        f"{plural(len(damage.files), 'unreadable file')}: {', '.join(damage.files)}" if damage.files else "",
    ]
    if any(faults):
        text = Text.assemble(("Not whole: ", "yellow"), clean("; ".join(filter(None, faults))))
        console.print()
        console.print(text)


def _print_rest(console: Console, count: int, limit: int | None) -> None:
    if limit is not None and count > limit:
        console.print(f"  … {count - limit:,} more: --all", style="dim")
