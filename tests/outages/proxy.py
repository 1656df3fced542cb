"""A proxy before an HTTP server, which gives it the troubles that proxies and networks have.

    with Proxy(server.port) as proxy:
        with proxy.trouble(Trouble("cut")):               # One request of each kind, until the block ends.
            …

Each request has a thread of its own, so that one that waits holds up no other.
"""

from __future__ import annotations

import contextlib
import http.client
import select
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal, Self

Way = Literal["answer", "cut", "late answer", "late request"]

_WAIT_S = 60.0
_READING = ("experiments/get-by-name", "runs/search", "runs/get")


@dataclass(frozen=True)
class Trouble:
    """What happens to a request.

    Attributes:
        way: `answer`: the proxy answers itself, and the server never sees the request.
            `cut`: the server takes it, and the connection breaks in the middle of its answer.
            `late answer`: the server takes it, and its answer comes when the client has given up.
            `late request`: the server gets it when the client has given up.
    """

    way: Way
    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class Proxy(ThreadingHTTPServer):
    """Hands on what comes in at its own port.

    `troubled` are the requests that had trouble, `held` the uploads that wait until `uploads_pass` is set.
    """

    daemon_threads = True

    def __init__(self, port: int, own_port: int = 0) -> None:
        super().__init__(("127.0.0.1", own_port), _Request)
        self.target_port = port
        self.uri = f"http://127.0.0.1:{self.server_port}"
        self.troubled: list[str] = []
        self.held: list[str] = []
        self.uploads_pass = threading.Event()
        self.uploads_pass.set()
        self._trouble: Trouble | None = None
        self._always = False
        self._before = 0
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def trouble(self, trouble: Trouble, *, always: bool = False) -> Iterator[None]:
        """Give trouble to the next request of each kind that writes, as `runs/create`; or to all requests."""
        self._trouble, self._always, self._before = trouble, always, len(self.troubled)
        try:
            yield
        finally:
            self._trouble = None

    def trouble_for(self, request: str) -> Trouble | None:
        with self._lock:
            is_due = self._always or (request not in _READING and request not in self.troubled[self._before :])
            if self._trouble is None or not is_due:
                return None
            self.troubled.append(request)
            return self._trouble

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that is gone is no error: some troubles are about that."""

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Request(BaseHTTPRequestHandler):
    server: Proxy
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        if self.command == "PUT" and not self.server.uploads_pass.is_set():
            self.server.held.append(self.path)
            self.server.uploads_pass.wait(_WAIT_S)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        trouble = self.server.trouble_for("/".join(self.path.partition("?")[0].split("/")[-2:]))
        if trouble is not None and trouble.way == "answer":
            self._answer(trouble.status, trouble.headers, trouble.body)
            return
        if trouble is not None and trouble.way == "late request":
            self._wait_until_given_up()
        status, headers, answer = self._ask(body)
        if trouble is None:
            self._answer(status, headers, answer)
        elif trouble.way == "cut":
            self.close_connection = True
            self._answer(status, headers, answer, len(answer) // 2)
        elif trouble.way == "late answer":
            self._wait_until_given_up()
            self._answer(status, headers, answer)

    do_GET = do_PUT = do_PATCH = do_POST

    def _ask(self, body: bytes) -> tuple[int, Mapping[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.target_port, timeout=_WAIT_S)
        with contextlib.closing(connection):
            headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            return answer.status, {"Content-Type": answer.headers.get("Content-Type", "")}, answer.read()

    def _wait_until_given_up(self) -> None:
        self.close_connection = True
        select.select([self.connection], [], [], _WAIT_S)  # It is readable when the client has closed it.

    def _answer(self, status: int, headers: Mapping[str, str], body: bytes, sent: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:sent])

    def log_message(self, *arguments: object) -> None:
        pass
