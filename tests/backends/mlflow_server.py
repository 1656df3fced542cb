"""Real MLflow servers and a real PostgreSQL for tests and benchmarks.

    with MlflowServer(folder) as server:                  # On SQLite.
    with PostgresServer() as database, MlflowServer(folder, database.uri) as server:
    with Switch(server.port) as switch:                   # A way to the server that can be cut: `switch.uri`.

A start of MLflow takes some 5 s of CPU time: share one a module, with the fixtures below. Each server is a process
group of its own, keeps its port over restarts, and is gone when its block ends.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

START_S = 120.0  # Of a busy machine.


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class MlflowServer:
    def __init__(self, folder: Path, store_uri: str | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.store_uri = store_uri or f"sqlite:///{folder / 'mlflow.db'}"
        self.artifacts = folder / "artifacts"
        self._log = folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
        quiet["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # 13 processes, and 12 s for the start.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")} | quiet
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", self.store_uri]
        command += ["--serve-artifacts", "--artifacts-destination", str(self.artifacts)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, env=environment, cwd=self._log.parent, start_new_session=True
            )
        self.wait()

    def wait(self) -> None:
        """Wait until it answers."""
        deadline_s = time.monotonic() + START_S
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.uri}/health", timeout=START_S):
                return
            if time.monotonic() > deadline_s or self._process is None or self._process.poll() is not None:
                log = self._log.read_text(errors="replace")[-4000:]
                self.kill()
                pytest.fail(f"the MLflow server on {self.store_uri} does not come up:\n{log}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End it as its operator does."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power failure does."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        try:
            os.killpg(process.pid, number)
            process.wait(20)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            pass
        with contextlib.suppress(ProcessLookupError):  # Also the workers that its first process has left behind.
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """It takes connections, and does not answer."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(self._process.pid, signal.SIGCONT)

    @contextlib.contextmanager
    def down(self) -> Iterator[None]:
        """It is killed, and started again afterwards."""
        self.kill()
        try:
            yield
        finally:
            self.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


class PostgresServer:
    """Runs as the user `postgres` where the test runs as root, since the server refuses that."""

    def __init__(self) -> None:
        self.port = free_port()
        self.uri = f"postgresql+psycopg2://mlflow@127.0.0.1:{self.port}/mlflow"
        self._folder: Path | None = None

    def start(self) -> None:
        """Start it, the first time with an empty database `mlflow`."""
        is_new = self._folder is None
        if self._folder is None:
            # Not in pytest's own directory, which another user may not enter.
            self._folder = Path(tempfile.mkdtemp(prefix="tracelet-postgres-"))
            if os.geteuid() == 0:
                shutil.chown(self._folder, "postgres")
            self._run("initdb", "-D", "data", "-U", "mlflow", "--auth=trust", "--no-sync", "-E", "UTF8")
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self._folder} -c fsync=off"
        self._run("pg_ctl", "-D", "data", "-l", "server.log", "-w", "-t", str(START_S), "-o", options, "start")
        if is_new:
            self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "mlflow", "mlflow")

    def stop(self) -> None:
        """End it at once; `start` brings it back with its data."""
        self._run("pg_ctl", "-D", "data", "-m", "immediate", "-w", "stop")

    @contextlib.contextmanager
    def down(self) -> Iterator[None]:
        """It is ended at once, and started again afterwards."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """It takes connections, and does not answer."""
        assert self._folder is not None
        first = int((self._folder / "data" / "postmaster.pid").read_text().split()[0])
        os.kill(first, signal.SIGSTOP)
        children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
        for child in children:  # Each is a process group of its own.
            os.kill(int(child), signal.SIGSTOP)
        try:
            yield
        finally:
            for process in (first, *map(int, children)):
                os.kill(process, signal.SIGCONT)

    def _run(self, program: str, *arguments: str) -> None:
        assert self._folder is not None
        places = [*Path("/usr/lib/postgresql").glob("*/bin"), *map(Path, os.get_exec_path())]
        found = [place / program for place in places if (place / program).exists()]
        if not found:
            pytest.fail(f"PostgreSQL's {program} is not there; install it with: apt-get install postgresql")
        user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--"] if os.geteuid() == 0 else []
        with open(self._folder / "commands.log", "ab") as log:  # A pipe would stay open in the server.
            done = subprocess.run([*user, found[0], *arguments], check=False, cwd=self._folder, stdout=log, stderr=log)
        if done.returncode:
            pytest.fail(f"{program} failed:\n{(self._folder / 'commands.log').read_text(errors='replace')[-4000:]}")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.stop()
        finally:
            assert self._folder is not None
            shutil.rmtree(self._folder)


class Switch(socketserver.ThreadingTCPServer):
    """Hands on what comes in at its own port, until it is `off`: then every connection is cut."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.target = ("127.0.0.1", port)
        self.uri = f"http://127.0.0.1:{self.server_address[1]}"
        self.is_off = threading.Event()

    @contextlib.contextmanager
    def off(self) -> Iterator[None]:
        self.is_off.set()
        try:
            yield
        finally:
            self.is_off.clear()

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.is_off.set()  # Ends the connections' threads.
        self.shutdown()
        self.server_close()


class _Connection(socketserver.BaseRequestHandler):
    server: Switch

    def handle(self) -> None:
        if self.server.is_off.is_set():
            return
        with socket.create_connection(self.server.target) as target:
            other = {self.request: target, target: self.request}
            while not self.server.is_off.is_set():
                for ready in select.select(list(other), [], [], 0.02)[0]:
                    with contextlib.suppress(OSError):
                        if data := ready.recv(65_536):
                            other[ready].sendall(data)
                            continue
                    return


@pytest.fixture(scope="session")
def mlflow_on_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    with MlflowServer(tmp_path_factory.mktemp("mlflow-on-sqlite")) as server:
        yield server


@pytest.fixture(scope="session")
def mlflow_on_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    with PostgresServer() as database, MlflowServer(tmp_path_factory.mktemp("on-postgres"), database.uri) as server:
        yield server
