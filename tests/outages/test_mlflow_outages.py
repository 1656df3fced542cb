"""MLflow's server is down, dies, hangs, answers nonsense or has no room, while trainings go on."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backends.mlflow_server import MlflowServer, free_port
from tests.backends.mlflow_support import QUIET
from tests.outages.conftest import Start
from tests.outages.proxy import Proxy, Trouble, Way
from tests.outages.support import BOTH, Remote, assert_complete, assert_undisturbed, wait_for
from tracelet import Experiment, MetricData, MetricType, TraceletSettings

pytestmark = QUIET


def test_server_that_comes_up_while_the_run_lives_gets_everything(server: MlflowServer, start: Start):
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    trainings = [start(mlflow__tracking_uri=uri, delivery=delivery) for delivery in BOTH]
    for training in trainings:
        training.wait_for_trouble()
    with Proxy(server.port, port):  # A server would take its time, and the next attempt as long.
        for training in trainings:
            training.wait_for_more()
            costs = training.finish()
            assert_undisturbed(costs)
            assert_complete(server.uri, training.run_dir, steps=costs.steps)
            assert 1 == training.said.count("'mlflow' takes no records now")
            assert 1 == training.said.count("'mlflow' takes records again")


def test_server_that_never_comes_up_ends_nothing_and_sync_sends_it_all(server: MlflowServer, start: Start):
    nowhere = f"http://127.0.0.1:{free_port()}"
    trainings = [
        start(mlflow__tracking_uri=nowhere, delivery=delivery, stop_timeout_s=3, delivery_linger_s=8)
        for delivery in BOTH
    ]
    for training in trainings:
        training.wait_for_trouble()
        training.wait_for_trouble()
        costs = training.finish()
        assert_undisturbed(costs)
        assert costs.stop_s < 3 + 2
        wait_for(lambda training=training: "ended" == training.report.state)
        (facts,) = training.sync(mlflow__tracking_uri=server.uri)
        assert (0, 0, "finished") == (facts["waiting"], facts["rejected"], facts["closed"])
        assert_complete(server.uri, training.run_dir, steps=costs.steps)
    thread, process = (training.said for training in trainings)
    assert f"have not reached 'mlflow'. They are kept; send them with: tracelet sync {trainings[0].run_id}" in thread
    assert "are still on their way to 'mlflow': the delivery process" in process


def test_server_that_is_killed_in_mid_run_and_comes_back_has_everything(server: MlflowServer, start: Start):
    trainings = [start(mlflow__tracking_uri=server.uri, delivery=delivery) for delivery in BOTH]
    for training in trainings:
        training.wait_for_more(500)
    with server.down():
        for training in trainings:
            training.wait_for_trouble()
    for training in trainings:
        costs = training.finish()
        assert_undisturbed(costs)
        assert_complete(server.uri, training.run_dir, steps=costs.steps)


def test_server_that_hangs_for_a_while_has_everything_once(server: MlflowServer, start: Start):
    trainings = [start(mlflow__tracking_uri=server.uri, delivery=delivery, mlflow__timeout_s=4) for delivery in BOTH]
    for training in trainings:
        training.wait_for_more(500)
    with server.paused():
        for training in trainings:
            training.wait_for_trouble()
    for training in trainings:
        costs = training.finish()
        assert_undisturbed(costs)
        assert_complete(server.uri, training.run_dir, steps=costs.steps)


@pytest.mark.parametrize("way", ["cut", "late answer", "late request"])
def test_request_whose_answer_does_not_come_is_sent_again_and_stored_once(server: MlflowServer, start: Start, way: Way):
    with Proxy(server.port) as proxy, proxy.trouble(Trouble(way)):
        training = start(mlflow__tracking_uri=proxy.uri, mlflow__timeout_s=3)
        wait_for(lambda: "runs/log-batch" in proxy.troubled)
        training.wait_for_more(500)
        costs = training.finish()
    assert {"runs/create", "runs/update", "runs/log-batch", "artifacts/weights.bin"} <= set(proxy.troubled)
    assert_undisturbed(costs)
    assert_complete(server.uri, training.run_dir, steps=costs.steps)


PAGE = Trouble("answer", 502, b"<html><h1>502 Bad Gateway</h1></html>", {"Content-Type": "text/html"})
BUSY = Trouble("answer", 429, b'{"error_code": "REQUEST_LIMIT_EXCEEDED"}', {"Retry-After": "1"})


def test_answers_of_a_proxy_and_of_a_busy_server_are_no_reason_to_reject_records(server: MlflowServer, start: Start):
    troubles = [BUSY, PAGE, *(Trouble("answer", status) for status in (500, 503, 504, 404))]
    with Proxy(server.port) as proxy:
        training = start(mlflow__tracking_uri=proxy.uri)
        for count, trouble in enumerate(troubles, 1):
            training.wait_for_more()
            with proxy.trouble(trouble):
                wait_for(lambda count=count: count <= training.said.count("'mlflow' takes no records now"))
            wait_for(lambda count=count: count == training.said.count("'mlflow' takes records again"))
        costs = training.finish()
    assert_undisturbed(costs)
    assert_complete(server.uri, training.run_dir, steps=costs.steps)
    assert len(troubles) == training.said.count("'mlflow' takes no records now")
    assert len(troubles) <= len(proxy.troubled)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    point = tmp_path / "disk"
    point.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", point], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip("mounting needs the rights of root")
    yield point
    subprocess.run(["umount", "--lazy", point], check=True)


def fill(disk: Path) -> Path:
    """Leave no room; gives the file to remove."""
    path = disk / "other"
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return path


def test_server_whose_disk_is_full_has_everything_when_there_is_room_again(small_disk: Path, start: Start):
    with MlflowServer(small_disk / "mlflow") as server:
        training = start(mlflow__tracking_uri=server.uri)
        training.wait_for_more(500)
        other = fill(small_disk)
        late = start(mlflow__tracking_uri=server.uri)  # It has a run to make there, and files to store.
        training.wait_for_trouble()
        late.wait_for_trouble()
        other.unlink()
        for one in (training, late):
            one.wait_for_more()
            costs = one.finish()
            assert_undisturbed(costs)
            assert_complete(server.uri, one.run_dir, steps=costs.steps)


def test_what_mlflow_can_not_hold_costs_nothing_else(server: MlflowServer):
    settings = TraceletSettings(delivery="thread", plugins={"mlflow": {"tracking_uri": server.uri}})
    names = ["good", "a%b", "a_x0025_b", "n" * 400]
    text = "x" * 7_000

    def attempt(lr: float) -> Experiment:
        return Experiment("digits", "mlflow", {"lr": lr, "text": text}, run_id="r1", settings=settings)

    with attempt(0.1) as experiment:
        for step in range(100):
            for value, name in enumerate(names):
                experiment.log_metric(name, float(value), step)
            if step == 50:
                experiment.emit_metric(MetricData("of 1969", 1.0, MetricType.SCALAR, 0, timestamp=-5.0))
    with attempt(0.2) as experiment:
        experiment.log_metric("good", 0.0, 100)
    remote = Remote(server.uri, experiment.run_dir)
    tags = remote.run.data.tags
    stored = {}
    for key in remote.run.data.metrics:
        found_steps, _, values = zip(*remote.history(key), strict=True)
        stored[values[0]] = (set(values), found_steps)
    steps = tuple(range(100))
    assert {0.0: ({0.0}, (*steps, 100)), **{value: ({value}, steps) for value in (1.0, 2.0, 3.0)}} == stored
    assert set(names[1:]) == {name for key, name in tags.items() if key.startswith("tracelet.name.")}
    assert ("0.1", "0.2") == (remote.run.data.params["lr"], tags["tracelet.param_drift.lr"])
    assert "FINISHED" == remote.run.info.status
    lines = (experiment.run_dir / "delivery" / "mlflow" / "rejected.jsonl").read_text().splitlines()
    (rejected,) = map(json.loads, lines)
    assert ("of 1969", 1) == (rejected["name"], experiment.status()["backends"]["mlflow"].rejected)
    assert "Timestamp must be a nonnegative" in rejected["reason"]
    (file,) = (file for file in remote.files("params") if file.startswith("params/text."))
    assert text == remote.file(file).decode()
