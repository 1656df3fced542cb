"""Servers that are away, slow, busy, strangers, or do not know us: a small one that answers as it is told to."""

# ruff: noqa: F811  The fixtures are imported.

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.backends.mlflow_server import MlflowServer, free_port, mlflow_on_sqlite  # noqa: F401 - imported fixtures
from tests.backends.mlflow_support import QUIET, Remote, database, make_remote, scalar  # noqa: F401 - imported fixtures
from tests.docs.test_pages import ROOT
from tests.outages.support import wait_for
from tracelet import Experiment
from tracelet.backends.mlflow_backend import MLflowBackend
from tracelet.delivery.retry import Verdict, judge
from tracelet.errors import PartialDeliveryError

pytestmark = QUIET


class Stub(ThreadingHTTPServer):
    """Answers each request with a status and a text, or not at all."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.uri = f"http://127.0.0.1:{self.server_address[1]}"
        self.status, self.text = 200, "{}"
        self.requests: list[tuple[str, str | None]] = []
        self.is_silent = threading.Event()
        self.may_end = threading.Event()


class _Answer(BaseHTTPRequestHandler):
    server: Stub

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.requests.append((self.path.partition("?")[0], self.headers.get("Authorization")))
        if self.server.is_silent.is_set():
            self.server.may_end.wait()
            return
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.text)))
        self.end_headers()
        self.wfile.write(self.server.text.encode())

    do_GET = do_PUT = do_POST

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def stub() -> Iterator[Stub]:
    with Stub() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.may_end.set()
        server.shutdown()


def verdict(call: Callable[[], object]) -> tuple[Verdict, str]:
    with pytest.raises(Exception) as caught:  # noqa: PT011  its verdict is what is asked for
        call()
    error = caught.value
    reason = (isinstance(error, PartialDeliveryError) and error.__cause__) or error
    return judge(reason), str(reason)


BAD = json.dumps({"error_code": "INVALID_PARAMETER_VALUE", "message": "no such thing"})


@pytest.mark.parametrize(
    ("status", "text", "expected"),
    [
        (400, BAD, Verdict.REJECT),
        (413, "too large", Verdict.REJECT),
        (401, "", Verdict.GIVE_UP),
        (403, "Invalid Host header", Verdict.GIVE_UP),
        (408, "", Verdict.RETRY),
        (429, json.dumps({"error_code": "REQUEST_LIMIT_EXCEEDED", "message": "slow down"}), Verdict.RETRY),
        (500, json.dumps({"error_code": "INTERNAL_ERROR", "message": "database is locked"}), Verdict.RETRY),
        (502, "<html>Bad Gateway</html>", Verdict.RETRY),
        (404, "<html>Not Found</html>", Verdict.RETRY),  # A proxy without its server.
        (200, "<html>Please log in</html>", Verdict.RETRY),
        (200, "[]", Verdict.RETRY),
    ],
)
def test_status_of_an_answer_says_what_becomes_of_the_records(
    stub: Stub,
    mlflow_on_sqlite: MlflowServer,
    make_remote: Callable[[str], Remote],
    status: int,
    text: str,
    expected: Verdict,
):
    backend = make_remote(mlflow_on_sqlite.uri).start()
    backend._api._uri = stub.uri  # type: ignore[union-attr]  # From here on the server is another one.
    stub.status, stub.text = status, text
    found, _ = verdict(lambda: backend.handle_batch([scalar("a", 1.0)]))
    backend._api._uri = mlflow_on_sqlite.uri  # type: ignore[union-attr]  # And back.
    assert expected is found
    assert [path.rpartition("/")[2] for path, _ in stub.requests][:1] == ["log-batch"]


def test_each_call_is_one_request(stub: Stub, make_remote: Callable[[str], Remote]):
    stub.status = 503
    assert verdict(make_remote(stub.uri).start)[0] is Verdict.RETRY
    assert len(stub.requests) == 1


def test_wrong_token_ends_delivery_and_says_what_to_set(
    stub: Stub, make_remote: Callable[[str], Remote], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "wrong")
    stub.status = 401
    found, text = verdict(make_remote(stub.uri).start)
    assert found is Verdict.GIVE_UP
    assert "MLFLOW_TRACKING_TOKEN" in text
    assert stub.requests == [("/api/2.0/mlflow/experiments/get-by-name", "Bearer wrong")]


def test_server_that_does_not_answer_is_given_up_after_the_timeout(stub: Stub, make_remote: Callable[[str], Remote]):
    stub.is_silent.set()
    remote = make_remote(stub.uri)
    found, text = verdict(lambda: remote.start(timeout_s=0.2))
    assert (Verdict.RETRY, True) == (found, "timed out" in text)
    assert len(stub.requests) == 1


def test_server_and_database_that_are_not_there_are_waited_for(make_remote: Callable[[str], Remote], tmp_path: Path):
    port = free_port()
    for uri in (f"http://127.0.0.1:{port}", f"postgresql+psycopg2://me:secret@127.0.0.1:{port}/mlflow"):
        found, text = verdict(make_remote(uri).start)
        assert (Verdict.RETRY, False) == (found, "secret" in text)


OPENING = """
import sys
import mlflow.store.tracking.sqlalchemy_store
from tracelet.backends._mlflow.store import StoreApi
print("ready", flush=True)
sys.stdin.readline()
StoreApi(sys.argv[1])
print("open")
"""


def test_processes_that_make_one_database_at_once_or_are_killed_meanwhile_do_not_ruin_it(tmp_path: Path):
    folder = tmp_path / "new"
    command = [sys.executable, "-c", OPENING, f"sqlite:///{folder / 'mlflow.db'}"]
    pipe = subprocess.PIPE
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MLFLOW_DISABLE_TELEMETRY": "true"}
    processes = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment) for _ in range(4)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"

    def begin(process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()

    first, *others = processes
    begin(first)
    wait_for(lambda: any(path.stat().st_size for path in folder.rglob("mlflow.db")))
    first.kill()
    assert first.communicate()[0] == ""
    assert not (folder / "mlflow.db").exists()  # With half of its tables, MLflow may never open it again.
    for process in others:
        begin(process)
    assert [process.communicate()[0] for process in others] == ["open\n"] * 3


def test_database_of_another_version_of_mlflow_ends_delivery(
    database: str, make_remote: Callable[[str], Remote], tmp_path: Path
):
    make_remote(database).start()
    old = shutil.copy(database.removeprefix("sqlite:///"), tmp_path / "old.db")
    with sqlite3.connect(old) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'old'")
    connection.close()
    found, text = verdict(make_remote(f"sqlite:///{old}").start)
    assert (Verdict.GIVE_UP, True) == (found, "mlflow db upgrade" in text)


def test_run_of_an_experiment_arrives_and_has_a_page(
    mlflow_on_sqlite: MlflowServer, make_remote: Callable[[str], Remote], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_on_sqlite.uri)
    environment = dict(os.environ)
    backend = MLflowBackend()
    with Experiment("whole", backend=backend, project="whole", config={"lr": 0.1}, tags=["first"]) as experiment:
        for step in range(2500):
            experiment.log_metric("loss", 1 / (step + 1), step)
        experiment.log_text("note", "hello")
    client = make_remote(mlflow_on_sqlite.uri).client
    status = backend.get_status()
    run = client.get_run(str(status["run_id"]))
    assert ("FINISHED", {"lr": "0.1"}) == (run.info.status, run.data.params)
    assert ("whole", "") == (run.data.tags["mlflow.runName"], run.data.tags["first"])
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(step, 1 / (step + 1)) for step in range(2500)]
    assert (
        backend.get_url() == f"{mlflow_on_sqlite.uri}/#/experiments/{status['experiment_id']}/runs/{status['run_id']}"
    )
    assert dict(os.environ) == environment
