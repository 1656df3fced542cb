"""Who may ask the server: a page of its own, with the token, under a name that means this machine. Nobody else.

Called by the server before anything else, on its event loop. It refuses, in this order: whatever is no GET; a `Host`
that could be a stranger's name for this machine (DNS rebinding); another site's `Origin`; who has neither the token in
the address nor in the cookie that it was exchanged for. What is let through leaves with headers under which a browser
runs no script and loads no file but the server's own, and shows the page in no frame.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, final
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse, Response

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

NONCE: Final = "tracelet.nonce"
"""Where the scope has the nonce of the style sheets that Plotly makes."""

_MAX_QUERY_BYTES: Final = 16_384
_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@final
class Guard:
    """See the module docstring."""

    def __init__(self, app: ASGIApp, token: str, host: str) -> None:
        """Guard an application.

        Args:
            app: The application.
            token: What the address has to carry once.
            host: What the server listens on.
        """
        self._app = app
        self._token = token
        self._host = host.casefold()
        self._is_local = _is_loopback(self._host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one question, or hand it on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            nonce = secrets.token_urlsafe(16)
            refusal = self._refusal(scope)
            await (refusal or self._app)({**scope, NONCE: nonce}, receive, _with_headers(send, nonce))

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if scope["method"] not in ("GET", "HEAD"):
            return PlainTextResponse("The page only reads.", 405, {"Allow": "GET, HEAD"})
        if not self._is_own_name(headers.get("host", "")):
            return PlainTextResponse("This name is not one of the server's. Use the address that it printed.", 400)
        if len(scope["query_string"]) > _MAX_QUERY_BYTES:
            return PlainTextResponse("The address is too long.", 414)
        origin, is_navigation = headers.get("origin"), headers.get("sec-fetch-mode") == "navigate"
        is_foreign = headers.get("sec-fetch-site") in ("cross-site", "same-site") and not is_navigation
        if is_foreign or (origin is not None and urlsplit(origin).netloc != headers["host"]):
            return PlainTextResponse("Another site may not ask.", 403)
        return self._without_token(scope, headers)

    def _without_token(self, scope: Scope, headers: Headers) -> Response | None:
        cookie = f"tracelet_{(scope.get('server') or ('', 0))[1]}"  # Cookies know no ports.
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = dict(query).get("token")
        if given is not None and self._is_token(given):
            rest = urlencode([(name, value) for name, value in query if name != "token"])
            # One slash only: `//host` would lead away.
            response = RedirectResponse("/" + scope["path"].lstrip("/") + (f"?{rest}" if rest else ""), 303)
            response.set_cookie(cookie, self._token, httponly=True, samesite="strict")
            return response
        cookies: Mapping[str, str] = cookie_parser(headers.get("cookie", ""))
        if self._is_token(cookies.get(cookie, "")):
            return None
        return PlainTextResponse("Open the address that `tracelet ui` printed: it carries the token.", 401)

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode("utf-8", "replace"), self._token.encode())

    def _is_own_name(self, host: str) -> bool:
        try:
            name = (urlsplit(f"//{host}").hostname or "").casefold()
        except ValueError:
            return False
        if self._is_local:
            return _is_loopback(name)
        return name in (self._host, socket.gethostname().casefold()) or _is_loopback(name) or _is_address(name)


def _is_address(name: str) -> bool:
    """Whether it is an IP address, which no foreign name server can hand out."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_loopback(name: str) -> bool:
    return name == "localhost" or (_is_address(name) and ipaddress.ip_address(name).is_loopback)


def _with_headers(send: Send, nonce: str) -> Send:
    policy = (
        f"default-src 'none'; script-src 'self'; style-src 'self' 'nonce-{nonce}'; img-src 'self' data: blob:; "
        "media-src 'self'; connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    )

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers[name] = value
            headers.setdefault("Content-Security-Policy", policy)
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return send_with_headers
