"""The Neptune backend with a server, real client and real requests; and with servers that are not there."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.backends.neptune_files import folders
from tests.backends.neptune_server import NeptuneServer, neptune_server
from tests.backends.neptune_support import TIME_S, custom, deliver, facts_in, scalar
from tracelet import Experiment
from tracelet.backends.neptune_backend import NeptuneBackend
from tracelet.core.records import DESCRIPTION_NAME, STATUS_NAME
from tracelet.delivery.state import STATE_FILE
from tracelet.errors import PermanentError, RetryableError, SettingsError

Fields = dict[str, Any]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[NeptuneServer]:
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")  # The client's own guard against plain HTTP.
    with neptune_server() as running:
        yield running


@pytest.fixture
def settings(server: NeptuneServer) -> dict[str, Any]:
    return {"mode": "async", "api_token": server.token, "project": "team/vision"}


@pytest.fixture
def online(tmp_path: Path, settings: dict[str, Any]) -> Iterator[Callable[..., NeptuneBackend]]:
    """Starts a backend; it is stopped when the test ends."""
    started: list[NeptuneBackend] = []

    def start(**more: Any) -> NeptuneBackend:
        backend = NeptuneBackend()
        started.append(backend)
        backend.initialize(facts_in(tmp_path, **settings | more))
        backend.start()
        return backend

    yield start
    for backend in started:
        backend.stop()


def fields_of_the_only_run(server: NeptuneServer) -> Fields:
    (run,) = server.runs.values()
    return run["fields"]


def test_the_server_has_a_batch_when_it_counts_as_taken(server: NeptuneServer, online: Callable[..., NeptuneBackend]):
    backend = online()
    backend.handle_batch([scalar("loss", 0.5, 3), custom(STATUS_NAME, "failed")])
    fields = fields_of_the_only_run(server)
    assert [(3, 0.5, 1000 * TIME_S)] == fields["loss"]
    assert ("digits", "failed", True) == (fields["sys/name"], fields["tracelet/status"], fields["sys/failed"])
    assert ("VIS-1", f"{server.address}/team/vision/e/VIS-1") == (backend.get_status()["run_id"], backend.get_url())


@pytest.mark.parametrize("remembers", [True, False])
def test_a_run_that_is_started_again_is_the_same_run(
    server: NeptuneServer, tmp_path: Path, settings: dict[str, Any], remembers: bool
):
    deliver(tmp_path, [scalar("a", 1.0, 0), custom(DESCRIPTION_NAME, "a try")], **settings)
    if not remembers:  # A kill came before the answer.
        state = facts_in(tmp_path)["state_dir"] / STATE_FILE
        state.write_text('{"description": "a try"}')
    deliver(tmp_path, [scalar("a", 2.0, 1)], **settings)
    fields = fields_of_the_only_run(server)
    assert [(0, 1.0), (1, 2.0)] == [point[:2] for point in fields["a"]]
    assert "a try" == fields["sys/description"]
    assert [] == folders(mode="async")  # The client takes its queue away when the server has it.


def arrives(call: Callable[[], None]) -> bool:
    try:
        call()
    except RetryableError:
        return False
    return True


def test_an_outage_in_mid_run_is_waited_for_and_stores_a_batch_once(
    server: NeptuneServer, online: Callable[..., NeptuneBackend]
):
    backend = online(answer_timeout_s=0.3)
    while not arrives(lambda: backend.handle_batch([scalar("a", 1.0, 0)])):
        pass
    server.is_away.set()
    batch = [scalar("a", float(step), step) for step in range(1, 50)]
    with pytest.raises(RetryableError, match=r"not answered in 0\.3 s"):
        backend.handle_batch(batch)
    (folder,) = folders(mode="async")
    size = (folder / "data-1.log").stat().st_size
    with pytest.raises(RetryableError):
        backend.handle_batch(list(batch))
    assert size == (folder / "data-1.log").stat().st_size  # An outage of a day does not fill the disk.
    server.is_away.clear()
    while not arrives(lambda: backend.handle_batch(list(batch))):
        pass
    assert list(range(50)) == [step for step, _, _ in fields_of_the_only_run(server)["a"]]
    assert [] == server.faults


def test_a_rejected_key_ends_the_delivery(server: NeptuneServer, tmp_path: Path, settings: dict[str, Any]):
    server.is_closed_to_us.set()
    with pytest.raises(PermanentError, match=r"Unauthorized|NeptuneInvalidApiToken") as caught:
        deliver(tmp_path, **settings)
    assert settings["api_token"] not in str(caught.value)


def test_a_text_that_is_no_key_ends_the_delivery(tmp_path: Path):
    with pytest.raises(PermanentError, match="NeptuneInvalidApiTokenException"):
        deliver(tmp_path, mode="async", api_token="no key", project="team/vision")


def test_a_server_that_is_out_of_order_is_an_outage(server: NeptuneServer, tmp_path: Path, settings: dict[str, Any]):
    server.is_away.set()
    with pytest.raises(ConnectionError, match="out of order"):
        deliver(tmp_path, **settings)


def test_a_server_that_never_answers_is_an_outage(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        token = NeptuneServer(f"http://127.0.0.1:{silent.getsockname()[1]}").token
        with pytest.raises(ConnectionError, match="does not answer"):
            deliver(tmp_path, mode="async", api_token=token, connect_timeout_s=0.2)


def test_a_dead_server_holds_up_no_experiment(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        token = NeptuneServer(f"http://127.0.0.1:{closed.getsockname()[1]}").token
    experiment = Experiment("digits", config={"stop_timeout_s": 2.0})
    experiment.register_plugin(NeptuneBackend(), {"mode": "async", "api_token": token, "project": "team/vision"})
    with experiment:
        experiment.log_metric("a", 1.0, 0)
    found = experiment.status()["backends"]["neptune"]
    assert "does not answer" in found.last_error  # Of ours: the client has not been asked, and has not blocked.
    assert found.waiting > 0


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"mode": "async"}, "set NEPTUNE_API_TOKEN"),
        ({"mode": "online"}, "'offline' or 'async'"),
        ({"tokn": "x"}, "there is no such setting; there are mode, project"),
        ({"client": "os; import sys"}, "client"),
    ],
)
def test_a_wrong_setting_is_an_error_that_says_what_to_do(
    wrong: dict[str, Any], says: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("NEPTUNE_API_TOKEN", raising=False)
    with pytest.raises(SettingsError, match=says):
        NeptuneBackend.validate_config(wrong)
