"""`tracelet sync`: sends what backends have not got of a run. On the main thread; each backend has one of its own."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import unquote

import typer

from tracelet.cli._options import DirOption, JsonOption, ProjectOption, open_run
from tracelet.cli._render import Column, print_json, print_table, stdout, texts
from tracelet.delivery.cursor import CURSOR_FILE
from tracelet.errors import UsageError
from tracelet.journal.load import Run


def sync(
    references: Annotated[
        list[str], typer.Argument(metavar="RUN", help="Ids, beginnings of ids, names, paths, or `latest`.")
    ],
    to: Annotated[
        list[str] | None,
        typer.Option(
            "--to",
            metavar="BACKEND",
            help="Where to send it. Repeat it for more.  [default: where it went, or the setting `backend`]",
        ),
    ] = None,
    timeout_s: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", min=0, max=86_400, help="How long to try.")
    ] = 86_400,
    dir: DirOption = None,
    project: ProjectOption = None,
    json: JsonOption = False,
) -> None:
    """Send runs that have ended to backends that have not got all of them.

    What a backend has is not sent again. The exit code is 1 if something could not be delivered.
    """
    from tracelet.core.sync import sync_run
    from tracelet.settings import TraceletSettings

    settings = TraceletSettings.load()
    given = [name.strip() for names in to or () for name in names.split(",") if name.strip()]
    results: list[dict[str, Any]] = []
    for run in [open_run(reference, dir, project) for reference in references]:
        backends = dict.fromkeys(given or _known_backends(run) or settings.backend)
        if not backends:
            raise UsageError(f"the run {run.id} has been sent nowhere yet: say where with --to. See `tracelet plugins`")
        for name, stats in sync_run(run.path, tuple(backends), settings, timeout_s).items():
            counts = {"delivered": stats.delivered, "rejected": stats.rejected, "waiting": stats.waiting}
            results.append({"run": run.id, "backend": name, **counts, "error": stats.last_error})
    if json:
        print_json(results)
    else:
        counted = ("delivered", "rejected", "waiting")
        columns = [Column(title.upper(), texts(row[title] for row in results)) for title in ("run", "backend")]
        columns += [Column(title.upper(), texts(f"{row[title]:,}" for row in results), right=True) for title in counted]
        print_table(stdout(), columns)
    if any(row["waiting"] for row in results):
        raise typer.Exit(1)


def _known_backends(run: Run) -> list[str]:
    """Where the run has been sent so far."""
    cursors = sorted((run.path / "delivery").glob(f"*/{CURSOR_FILE}"))
    return [unquote(cursor.parent.name, errors="replace") for cursor in cursors]
