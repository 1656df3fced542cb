"""Stand-ins for services that the plug-in specification's examples talk to."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import ModuleType
from typing import Any

CONTAINER_ID = "c0ffee" * 10 + "c0ff"


class FakeField:
    """What `run["…"]` of the Neptune client gives."""

    def __init__(self, run: FakeRun, path: str) -> None:
        self.run, self.path = run, path

    def append(self, value: float, step: int | None = None) -> None:
        self.run.series.setdefault(self.path, []).append((step, value))

    def upload(self, path: str) -> None:
        self.run.files[self.path] = Path(path).read_bytes()

    def fetch(self) -> str:
        return "FAKE-1"


class FakeRun:
    """A run of the Neptune client."""

    def __init__(self, **arguments: Any) -> None:
        self.arguments = arguments
        self.series: dict[str, list[tuple[int | None, float]]] = {}
        self.values: dict[str, Any] = {}
        self.files: dict[str, bytes] = {}
        self.stopped = False

    def __getitem__(self, path: str) -> FakeField:
        return FakeField(self, path)

    def __setitem__(self, path: str, value: Any) -> None:
        self.values[path] = value

    def stop(self) -> None:
        self.stopped = True


class FakeNeptune(ModuleType):
    """The module `neptune`."""

    def __init__(self) -> None:
        super().__init__("neptune")
        self.runs: list[FakeRun] = []

    def init_run(self, **arguments: Any) -> FakeRun:
        self.runs.append(FakeRun(**arguments))
        return self.runs[-1]


class _Engine(BaseHTTPRequestHandler):
    """The answers of a Docker engine with one container."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0].split("/containers/")[-1]
        cpu = {"total_usage": 400, "percpu_usage": [200, 200]}
        answers: dict[str, Any] = {
            f"{CONTAINER_ID}/json": {"Id": CONTAINER_ID, "Name": "/test"},
            f"{CONTAINER_ID}/stats": {
                "cpu_stats": {"cpu_usage": cpu, "system_cpu_usage": 2000},
                "precpu_stats": {"cpu_usage": {**cpu, "total_usage": 200}, "system_cpu_usage": 1000},
                "memory_stats": {"usage": 256, "limit": 1024},
            },
        }
        found = {"ApiVersion": "1.43", "Version": "24.0"} if path.endswith("version") else answers.get(path)
        body = json.dumps(found or {"message": "no such container"}).encode()
        self.send_response(404 if found is None else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "a socket"

    def log_message(self, *arguments: Any) -> None:
        pass


@contextmanager
def docker_engine(socket: Path) -> Iterator[str]:
    """A Docker engine on a Unix socket; gives what belongs into `DOCKER_HOST`."""
    with socketserver.ThreadingUnixStreamServer(str(socket), _Engine) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        try:
            yield f"unix://{socket}"
        finally:
            server.shutdown()
