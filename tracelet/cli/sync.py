"""`tracelet sync`: sends what backends have not got of a run. On the main thread; each backend has one of its own."""

from __future__ import annotations

from typing import Annotated

import typer

from tracelet.cli._delivery import ToOption, chosen_backends, delivery_facts, print_deliveries
from tracelet.cli._options import DirOption, JsonOption, ProjectOption, open_run
from tracelet.cli._render import print_json, stdout


def sync(
    references: Annotated[
        list[str], typer.Argument(metavar="RUN", help="Ids, beginnings of ids, names, paths, or `latest`.")
    ],
    to: ToOption = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the run has ended.")] = False,
    timeout_s: Annotated[
        float | None,
        typer.Option(
            "--timeout",
            metavar="SECONDS",
            min=0,
            max=86_400,
            help="How long to try where a backend is away.  [default: three attempts]",
        ),
    ] = None,
    dir: DirOption = None,
    project: ProjectOption = None,
    json: JsonOption = False,
) -> None:
    """Send runs to backends that have not got all of them.

    What a backend has is not sent again. The exit code is 1 if something could not be delivered.
    """
    from tracelet.core.sync import sync_run
    from tracelet.settings import TraceletSettings

    settings = TraceletSettings.load()
    rows = []
    for run in [open_run(reference, dir, project) for reference in references]:
        backends = chosen_backends(run, to, settings)
        results = sync_run(run.path, backends, settings, timeout_s=timeout_s, follow=follow)
        rows += [(run.id, status) for status in results.values()]
    if json:
        print_json([{"run": run, **delivery_facts(status)} for run, status in rows])
    else:
        print_deliveries(stdout(), rows)
    if any(status.waiting for _, status in rows):
        raise typer.Exit(1)
