"""`tracelet status`: how the delivery of runs stands. On the main thread; only files of the run are read."""

from __future__ import annotations

from typing import Annotated

import typer

from tracelet.cli._delivery import delivery_facts, print_deliveries
from tracelet.cli._options import DirOption, JsonOption, ProjectOption, open_run
from tracelet.cli._render import print_json, stdout
from tracelet.delivery.report import DeliveryStatus, known_backends
from tracelet.journal.directory import RunDirectory
from tracelet.journal.watch import RunWatch


def status(
    references: Annotated[
        list[str] | None, typer.Argument(metavar="RUN", help="Ids, beginnings of ids, names, paths, or `latest`.")
    ] = None,
    dir: DirOption = None,
    project: ProjectOption = None,
    json: JsonOption = False,
) -> None:
    """Show how far each backend has come with a run: delivered, waiting, rejected, the last error, the address."""
    rows = []
    for reference in references or ["latest"]:
        found = open_run(reference, dir, project)
        run = RunDirectory.open(found.path)
        end = RunWatch(run).look()
        rows += [(found.id, DeliveryStatus.of(run, backend, end)) for backend in known_backends(run.path)]
    if json:
        print_json([{"run": run, **delivery_facts(status)} for run, status in rows])
    elif rows:
        print_deliveries(stdout(), rows)
    else:
        stdout().print("Sent nowhere so far. Send it with: tracelet sync RUN --to BACKEND")
