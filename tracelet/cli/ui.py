"""`tracelet ui`: the runs in a browser. The server runs on the main thread until Ctrl-C; it changes no run."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer

from tracelet.cli._options import DirOption, runs_directory
from tracelet.cli._render import clean, stdout
from tracelet.errors import UsageError
from tracelet.utils.imports import require

_PACKAGES = ("starlette", "uvicorn", "plotly", "tsdownsample")


def ui(
    directory: Annotated[
        Path | None,
        typer.Argument(metavar="[DIR]", help="Directory that holds the runs.  [default: the setting `dir`]"),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, metavar="N", help="The port; 0 takes a free one.")] = 6070,
    host: Annotated[str, typer.Option(metavar="H", help="What to listen on.")] = "127.0.0.1",
    browser: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    dir: DirOption = None,
) -> None:
    """Look at the runs in a browser: table, charts, run pages, comparison.

    The address that is printed carries a token; without it the server answers nobody.
    """
    for package in _PACKAGES:
        require(package, "`tracelet ui`", extra="ui")
    from tracelet.ui import server

    place = runs_directory(directory or dir)
    try:
        listening = server.listen(host, port)
    except OSError as error:
        raise UsageError(
            f"can't listen on {host}, port {port}: {error.strerror}. Take another one with --port"
        ) from error
    token = server.new_token()
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{listening.getsockname()[1]}/?token={quote(token)}"

    def show() -> None:
        stdout().print(f"The runs in {clean(place)}: {address}\nCtrl-C ends the server.", soft_wrap=True)
        if browser:
            webbrowser.open(address)

    server.serve(server.make_app(place, token, host), listening, show)
