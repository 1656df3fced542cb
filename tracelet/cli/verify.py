"""`tracelet verify`: compares what a tracker holds with the run, and sends what is missing. On the main thread."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.text import Text

from tracelet.cli._delivery import ToOption, chosen_backends
from tracelet.cli._options import DirOption, JsonOption, ProjectOption, RunArgument, open_run
from tracelet.cli._render import Column, plural, print_json, print_table, stdout, texts


def verify(
    run: RunArgument = "latest",
    to: ToOption = None,
    repair: Annotated[bool, typer.Option(help="Send what waits, and what is found missing.")] = True,
    everything: Annotated[bool, typer.Option("--all", help="Show the series that agree, too.")] = False,
    dir: DirOption = None,
    project: ProjectOption = None,
    json: JsonOption = False,
) -> None:
    """Compare each series with what the tracker says that it holds, and repair gaps.

    The exit code is 1 if points are missing in the end.
    """
    from tracelet.core.verify import verify_run
    from tracelet.settings import TraceletSettings

    found, settings = open_run(run, dir, project), TraceletSettings.load()
    backends = chosen_backends(found, to, settings)
    checks = [(name, check) for name in backends for check in verify_run(found.path, name, settings, repair=repair)]
    if json:
        print_json([{"backend": name, **asdict(check), "complete": check.is_complete} for name, check in checks])
    else:
        console = stdout()
        shown = [(n, c) for n, c in checks if everything or c.missing or c.unexpected]
        if shown:
            counted = {"RECORDED": "", "STORED": "", "MISSING": "red", "REPAIRED": "green", "UNEXPECTED": "yellow"}
            columns = [
                Column("BACKEND", texts(name for name, _ in shown)),
                Column("SERIES", texts(check.name for _, check in shown), limit=40),
            ]
            for title, style in counted.items():
                counts = [getattr(check, title.lower()) for _, check in shown]
                columns.append(Column(title, [Text(f"{n:,}", style if n else "") for n in counts], right=True))
            print_table(console, columns)
        for name in backends:
            ours = [check for owner, check in checks if owner == name]
            points = plural(sum(check.recorded for check in ours), "point")
            complete = sum(check.is_complete for check in ours)
            console.print(f"{name}: {complete} of {len(ours)} series complete, {points}", markup=False)
    if not all(check.is_complete for _, check in checks):
        raise typer.Exit(1)
