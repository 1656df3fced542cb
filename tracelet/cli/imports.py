"""`tracelet import`: brings runs of another tracker into Tracelet. On the main thread; the source is only read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from tracelet.cli._delivery import ToOption, chosen_backends, delivery_facts, print_deliveries
from tracelet.cli._options import DirOption, JsonOption, runs_directory
from tracelet.cli._render import Column, clean, print_json, print_table, stdout, texts
from tracelet.errors import UsageError
from tracelet.journal.load import Run

if TYPE_CHECKING:
    from tracelet.importers.writing import Imported


def import_(
    kind: Annotated[
        str,
        typer.Argument(metavar="KIND", help="What wrote it: tensorboard, csv, … `tracelet plugins` lists all of them."),
    ],
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A file, a directory, or an address.")],
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", metavar="NAME=VALUE", help="A setting of the importer. Repeat it for more."),
    ] = None,
    experiment: Annotated[
        str | None, typer.Option(metavar="NAME", help="Short for --option experiment=NAME: only this one.")
    ] = None,
    project: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Where to put the runs.  [default: the source's own, or the setting]"),
    ] = None,
    to: ToOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read all of it, say what would come, write nothing.")
    ] = False,
    dir: DirOption = None,
    json: JsonOption = False,
) -> None:
    """Import the runs of another tracker.

    A second import adds only what is new. What can't be carried over is listed.
    """
    from tracelet.core.importer import find_importer
    from tracelet.core.sync import sync_run
    from tracelet.importers.writing import import_run
    from tracelet.settings import TraceletSettings

    settings = TraceletSettings.load()
    config = _config([*(option or ()), *([f"experiment={experiment}"] if experiment is not None else [])])
    importer, root = find_importer(kind, config), runs_directory(dir)
    results: list[Imported] = []
    with _Progress(shown=not json and settings.show_progress is not False) as progress:
        for run in importer.runs(source):
            progress.begin(run.name)
            results.append(import_run(run, kind, root, project, settings, dry_run=dry_run, progress=progress.advance))
    importer.stop()
    deliveries = []
    if to is not None and not dry_run:
        for result in results:
            backends = chosen_backends(Run(result.path), to, settings)
            deliveries += [(result.run_id, one) for one in sync_run(result.path, backends, settings).values()]
    if json:
        sent = [{"run": run, **delivery_facts(status)} for run, status in deliveries]
        print_json({"dry_run": dry_run, "runs": [_facts(result) for result in results], "deliveries": sent})
    else:
        _print(stdout(), results, dry_run=dry_run)
        if deliveries:
            print_deliveries(stdout(), deliveries)
    if any(status.waiting for _, status in deliveries):
        raise typer.Exit(1)


def _config(options: Sequence[str]) -> dict[str, str]:
    """The settings of an importer.

    Raises:
        UsageError: One has no value.
    """
    pairs = [option.partition("=") for option in options]
    for name, equals, _ in pairs:
        if not name or not equals:
            raise UsageError(f"--option takes NAME=VALUE, not {name!r}")
    return {name: value for name, _, value in pairs}


class _Progress:
    """The name of the run and a count, on standard error while it is a terminal."""

    def __init__(self, *, shown: bool) -> None:
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            TextColumn("{task.completed:,.0f} records"),
            TimeElapsedColumn(),
        )
        console = Console(stderr=True)
        self._progress = Progress(
            *columns, console=console, transient=True, disable=not (shown and console.is_terminal)
        )
        self._task = self._progress.add_task("", total=None)

    def __enter__(self) -> _Progress:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def begin(self, name: str) -> None:
        """The next run."""
        self._progress.reset(self._task, description=clean(name), total=None)

    def advance(self, count: int) -> None:
        """So many more of its records have been read."""
        self._progress.advance(self._task, count)


def _facts(result: Imported) -> dict[str, Any]:
    """For JSON."""
    names = ("key", "name", "project", "run_id", "path", "points", "records", "known")
    omitted = [{"what": one.what, "reason": one.reason, "count": count} for one, count in result.omitted.items()]
    return {**{name: getattr(result, name) for name in names}, "omitted": omitted}


def _print(console: Console, results: Sequence[Imported], *, dry_run: bool) -> None:
    """A line for each run, then what could not be carried over."""
    columns = [
        Column("RUN", texts(result.run_id for result in results)),
        Column("NAME", texts(clean(result.name) for result in results), limit=40),
        Column("PROJECT", texts(clean(result.project) for result in results), limit=24, rank=1),
        Column("POINTS", texts(f"{result.points:,}" for result in results), right=True),
        Column("RECORDS", texts(f"{result.records:,}" for result in results), right=True),
        Column("KNOWN", texts(f"{result.known:,}" for result in results), right=True, rank=1),
    ]
    print_table(console, columns)
    if dry_run:
        console.print("Nothing was written: --dry-run.", style="dim")
    for result in results:
        for one, count in result.omitted.items():
            times = f", {count:,} times" if count > 1 else ""
            line = f"{result.run_id}: {clean(one.what)} is left out{times}: {clean(one.reason)}"
            console.print(line, style="yellow", soft_wrap=True, markup=False)
