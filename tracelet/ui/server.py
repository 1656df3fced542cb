"""Puts the server of `tracelet ui` together and runs it, on the main thread, until Ctrl-C."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from tracelet.ui.api import Api
from tracelet.ui.catalog import Catalog
from tracelet.ui.guard import NONCE, Guard

_STATIC: Final = Path(__file__).parent / "static"
_PAGES: Final = ("/", "/charts", "/run", "/compare")


def new_token() -> str:
    """A token that nobody guesses: 192 bits."""
    return secrets.token_urlsafe(24)


def make_app(directory: Path, token: str, host: str = "127.0.0.1") -> ASGIApp:
    """The server as an ASGI application.

    Args:
        directory: Where the runs are.
        token: See `Guard`.
        host: What the server listens on.
    """
    api = Api(Catalog(directory))
    pages = [Route(path, _page) for path in _PAGES]
    scripts = [Route("/plotly.js", _plotly), Mount("/static", StaticFiles(directory=_STATIC))]
    return Guard(Starlette(routes=[*pages, *scripts, *api.routes()]), token, host)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        OSError: The port is taken, or the host is none of this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=128)


def serve(app: ASGIApp, listening: socket.socket, on_ready: Callable[[], None]) -> None:
    """Answer until Ctrl-C.

    Args:
        app: As `make_app` gives it.
        listening: As `listen` gives it.
        on_ready: Called once, when connections wait for their answer no longer than any later one.
    """
    config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, ws="none", lifespan="off")
    on_ready()
    uvicorn.Server(config).run(sockets=[listening])


def _page(request: Request) -> Response:
    """The one page; its script reads the address. Plotly makes style sheets, which the nonce allows."""
    text = (_STATIC / "index.html").read_text(encoding="utf-8").replace("{{nonce}}", request.scope[NONCE])
    return Response(text, media_type="text/html")


def _plotly(_: Request) -> Response:
    import plotly

    script = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
    return FileResponse(script, media_type="text/javascript", headers={"Cache-Control": "private, max-age=86400"})
