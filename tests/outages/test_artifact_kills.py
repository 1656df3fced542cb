"""An upload that hangs holds back nothing; one that is killed leaves every artifact whole and once in MLflow."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.backends.mlflow_server import MlflowServer
from tests.backends.mlflow_support import QUIET
from tests.delivery.test_sidecar import is_gone
from tests.outages.proxy import Proxy
from tests.outages.support import WAIT_S, wait_for
from tests.outages.syncing import sync
from tracelet import Experiment, load_run
from tracelet.backends.mlflow_backend import MLflowBackend
from tracelet.delivery.report import DeliveryReport, DeliveryStatus
from tracelet.journal.directory import RunDirectory, delivery_directory
from tracelet.journal.load import Run

pytestmark = QUIET

KILLS = 15
FILE_BYTES = 3 << 20


def log_everything(experiment: Experiment, folder: Path) -> dict[str, bytes]:
    """Two files, a directory of ten and a model; gives what MLflow has to hold, by path."""
    expected = {}
    for name in ("a.bin", "b.bin", *(f"data/{number}.bin" for number in range(10))):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(expected.setdefault(name, random.randbytes(FILE_BYTES)))
    for name in ("a.bin", "data", "b.bin"):
        experiment.log_artifact(folder / name, name)
    experiment.log_artifact(folder / "data", "net", "model")
    experiment.log_metric("last", 1.0)
    return expected


def assert_whole_and_once(server: MlflowServer, run: Run, expected: dict[str, bytes], to: Path) -> None:
    client = MlflowClient(server.uri)
    experiments = [one.experiment_id for one in client.search_experiments()]
    (remote,) = client.search_runs(experiments, f"tags.`tracelet.run_uuid` = '{run.uuid}'")
    (model,) = client.search_logged_models(experiments, f"source_run_id = '{remote.info.run_id}'")
    assert ("READY", "FINISHED", 1.0) == (model.status.value, remote.info.status, remote.data.metrics["last"])
    to.mkdir()
    for name in [*expected, "data"]:
        if "/" not in name:
            client.download_artifacts(remote.info.run_id, name, str(to))
    found = {path.relative_to(to).as_posix(): path.read_bytes() for path in to.rglob("*") if path.is_file()}
    assert expected == found
    place = server.artifacts / model.artifact_location.partition(":/")[2]
    inside = {path.name: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    assert {name.removeprefix("data/"): data for name, data in expected.items() if "/" in name} == inside


def stored_bytes(server: MlflowServer) -> int:
    return sum(path.stat().st_size for path in server.artifacts.rglob("*") if path.is_file())


def test_two_killed_sidecars_and_fifteen_killed_syncs_leave_every_artifact_whole_and_once(
    server: MlflowServer, trainings: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    monkeypatch.setenv("TRACELET_DELIVERY", "process")
    monkeypatch.setenv("TRACELET_STOP_TIMEOUT_S", "0")
    with Experiment("digits", backend="mlflow") as experiment:
        wait_for(lambda: report_of(experiment).state == "delivering")
        expected = log_everything(experiment, tmp_path / "files")
        wait_for(lambda: stored_bytes(server) > 0)
        first = kill_sidecar(experiment)
        wait_for(lambda: report_of(experiment).pid != first)  # It was started again.
    kill_sidecar(experiment)
    context = multiprocessing.get_context("forkserver")
    environment = {"MLFLOW_TRACKING_URI": server.uri, "MLFLOW_DISABLE_TELEMETRY": "true"}
    places, longest_s = [stored_bytes(server)], 0.2

    def begin_sync() -> multiprocessing.process.BaseProcess:
        has_begun = context.Event()
        process = context.Process(target=sync, args=(experiment.run_dir, environment, has_begun))
        process.start()
        assert has_begun.wait(WAIT_S)
        return process

    for _ in range(KILLS):
        process = begin_sync()
        process.join(random.uniform(0.0, longest_s))  # Any moment will do: that is what is tested.
        process.kill()
        process.join()
        places.append(stored_bytes(server))
        if places[-2] == places[-1]:  # A busy machine takes longer to begin.
            longest_s = min(1.2 * longest_s, 5.0)
    process = begin_sync()
    process.join(WAIT_S)
    assert 0 == process.exitcode
    assert len(set(places)) > 3, f"the kills came too early, or too late: {places}"
    assert_whole_and_once(server, load_run(experiment.run_dir), expected, tmp_path / "downloads")


def report_of(experiment: Experiment) -> DeliveryReport:
    return DeliveryReport.read(delivery_directory(experiment.run_dir, "mlflow"))


def test_metrics_arrive_while_an_upload_hangs_and_the_run_ends_after_it(
    server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "weights.bin").write_bytes(random.randbytes(FILE_BYTES))
    client = MlflowClient(server.uri)
    with Proxy(server.port) as proxy:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.uri)
        proxy.uploads_pass.clear()
        with Experiment("digits", backend=MLflowBackend()) as experiment:
            experiment.log_artifact(tmp_path / "weights.bin")
            wait_for(lambda: len(proxy.held) > 0)
            run_id = experiment.status()["plugins"]["mlflow"]["run_id"]
            for step in range(100):
                experiment.log_metric("loss", 1 / (step + 1), step)
            wait_for(lambda: len(client.get_metric_history(run_id, "loss")) == 100)
            assert [] == client.list_artifacts(run_id)
            status = DeliveryStatus.of(RunDirectory.open(experiment.run_dir), "mlflow")
            assert (1, False) == (status.uploads, experiment.flush(0.05))
            proxy.uploads_pass.set()
    assert "FINISHED" == client.get_run(run_id).info.status
    found = Path(client.download_artifacts(run_id, "weights.bin", str(tmp_path.parent)))
    assert (tmp_path / "weights.bin").read_bytes() == found.read_bytes()


def kill_sidecar(experiment: Experiment) -> int:
    pid = report_of(experiment).pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: is_gone(pid))
    return pid
