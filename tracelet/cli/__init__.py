"""The command `tracelet`: looks at recorded runs, and at the installation.

`main` is the entry point; everything here runs on the main thread of a process of its own. No command changes what was
recorded; `prune` and `archive --delete` delete it as a whole, and `sync` and `verify` note in the run how far its
backends have come.

Guarantee: a `TraceletError` becomes one line on standard error and exit code 1, a wrong option exit code 2, and a
reader that goes away (`| head`) nothing at all. Whatever a run holds is shown with its control characters escaped.
"""

from __future__ import annotations

import io
import sys
from typing import Annotated, Any, final

import typer
import typer.core

from tracelet import __version__
from tracelet.cli import (
    archive,
    artifacts,
    compare,
    doctor,
    export,
    imports,
    plan,
    plot,
    plugins,
    prune,
    ranks,
    report,
    runs,
    show,
    status,
    sync,
    ui,
    verify,
)
from tracelet.cli._options import JsonOption
from tracelet.cli._render import print_error, print_json, warnings_on_stderr
from tracelet.errors import TraceletError


def main() -> None:
    """Run the command line of this process."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # A terminal without Unicode shows `?`, and no traceback.
    make_app()()


def make_app() -> typer.Typer:
    """The command with its subcommands."""
    app = typer.Typer(
        name="tracelet",
        cls=_Commands,
        help="Look at recorded runs: list, show, plot, compare and export them; send them on.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,  # They show local variables, and with them secrets.
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    app.command("runs")(runs.runs)
    app.command("show")(show.show)
    app.command("plot")(plot.plot)
    app.command("compare")(compare.compare)
    app.command("ui")(ui.ui)
    app.command("report")(report.report)
    app.command("export")(export.export)
    app.command("ranks")(ranks.ranks)
    app.command("artifacts")(artifacts.artifacts)
    app.command("import")(imports.import_)
    app.command("plan")(plan.plan)
    app.command("sync")(sync.sync)
    app.command("status")(status.status)
    app.command("verify")(verify.verify)
    app.command("prune")(prune.prune)
    app.command("archive")(archive.archive)
    app.command("unarchive")(archive.unarchive)
    app.command("plugins")(plugins.plugins)
    app.command("doctor")(doctor.doctor)
    app.command("version")(_version)
    return app


@final
class _Commands(typer.core.TyperGroup):
    """The subcommands, with one way to fail for all of them."""

    def invoke(self, ctx: Any) -> Any:
        """Run one; see the module's guarantee."""
        with warnings_on_stderr():
            try:
                result = super().invoke(ctx)
                sys.stdout.flush()  # Here, so that a pipe that broke is noticed while somebody handles it.
            except TraceletError as error:
                print_error(str(error))
                raise typer.Exit(1) from error
        return result


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tracelet {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Only here for `--version`."""


def _version(json: JsonOption = False) -> None:
    """Print the version of Tracelet."""
    if json:
        print_json({"version": __version__})
    else:
        _print_version(True)
