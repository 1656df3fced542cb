"""`tracelet report`: runs as one HTML file. On the main thread."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tracelet.cli._files import replaced
from tracelet.cli._options import DirOption, JsonOption, ProjectOption, open_run
from tracelet.cli._render import clean, plural, print_json, quantity, stdout
from tracelet.errors import UsageError


def report(
    references: Annotated[
        list[str] | None,
        typer.Argument(metavar="RUN...", help="Ids, beginnings of ids, names, or paths.  [default: the latest one]"),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The file.")] = Path("report.html"),
    title: Annotated[str | None, typer.Option("--title", help="What it is about.  [default: the runs' names]")] = None,
    metrics: Annotated[
        list[str] | None, typer.Option("--metric", metavar="PATTERN", help="Only these metrics. Repeat it for more.")
    ] = None,
    x: Annotated[
        str | None,
        typer.Option("--x", metavar="step|time|METRIC", help="The x-axis.  [default: as define_metric said, or step]"),
    ] = None,
    smooth: Annotated[float, typer.Option("--smooth", help="Weight of the moving average, from 0 to below 1.")] = 0.0,
    dir: DirOption = None,
    project: ProjectOption = None,
    json: JsonOption = False,
) -> None:
    """Write runs into one HTML file: charts, parameters, pictures, output.

    It needs no server and no network; mail it, attach it, keep it.
    """
    from tracelet.ui.report import Wish
    from tracelet.ui.report import report as made

    if not 0 <= smooth < 1:
        raise UsageError(f"--smooth is a weight from 0 to below 1, and not {smooth}")
    found = [open_run(reference, dir, project) for reference in references or ["latest"]]
    names = ", ".join(dict.fromkeys(run.name for run in found))
    page = made(found, Wish(title or names, metrics or (), x, smooth))
    with replaced(output) as path:
        path.write_text(page, encoding="utf-8", errors="replace")
    if json:
        print_json({"file": str(output), "runs": [run.id for run in found]})
        return
    written = f"{plural(len(found), 'run')} in {clean(output)}, {quantity('report_bytes', output.stat().st_size)}"
    stdout().print(written, soft_wrap=True)
