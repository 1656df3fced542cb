"""An artifact that is large, or whose upload hangs, holds back no metric. For MLflow see `test_artifact_kills`."""

from __future__ import annotations

import os
import random
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.backends import wandb_files
from tests.backends.clearml_service import ClearMLService, session_events
from tests.backends.neptune_files import folders, operations
from tests.backends.neptune_server import NeptuneServer, neptune_server
from tests.backends.wandb_service import KEY, WandbService, kill_core
from tests.outages.support import variables, wait_for
from tracelet import Experiment
from tracelet.backends.clearml_backend import ClearMLBackend
from tracelet.backends.neptune_backend import NeptuneBackend
from tracelet.backends.wandb_backend import WandbBackend
from tracelet.core.plugins import BackendPlugin
from tracelet.core.records import STATUS_NAME, MetricData, MetricType
from tracelet.core.sync import sync_run
from tracelet.delivery.lease import is_leased
from tracelet.errors import RetryableError
from tracelet.journal.directory import delivery_directory
from tracelet.settings import TraceletSettings

FILE_BYTES = 3 << 20
STEPS = 100


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "weights.bin"
    path.write_bytes(random.randbytes(FILE_BYTES))
    return path


def facts_in(folder: Path, name: str) -> dict[str, Any]:
    state_dir = folder / "run1" / "delivery" / name
    state_dir.mkdir(parents=True, exist_ok=True)
    names = {"run_name": "digits", "run_id": "run1", "run_uuid": uuid.uuid4().hex, "run_project": "vision"}
    return {**names, "run_created_s": 0.0, "run_dir": folder / "run1", "state_dir": state_dir}


def started(backend: BackendPlugin, facts: dict[str, Any], **settings: Any) -> BackendPlugin:
    backend.initialize({**facts, **settings})
    backend.start()
    return backend


def configure(monkeypatch: pytest.MonkeyPatch, backend: str, settings: Mapping[str, object]) -> None:
    """Have runs and `sync` deliver with these settings; the end of a run waits for no upload."""
    own = {f"{backend}__{name}": value for name, value in settings.items()}
    for name, value in variables({"stop_timeout_s": 0, **own}).items():
        monkeypatch.setenv(name, value)


def log_while_an_upload_hangs(experiment: Experiment, weights: Path, held: list[str]) -> None:
    """Log an artifact, and metrics once its upload has begun."""
    experiment.log_artifact(weights, type="dataset")
    wait_for(lambda: held)
    for step in range(STEPS):
        experiment.log_metric("loss", 1 / (step + 1), step)


def loss(step: int) -> MetricData:
    return MetricData("loss", 1 / (step + 1), MetricType.SCALAR, step, 1.0)


def artifact(path: Path) -> MetricData:
    return MetricData(path.name, str(path), MetricType.ARTIFACT, None, 1.0, None, {"type": "dataset", "version": "v0"})


# -- ClearML -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def clearml() -> Iterator[ClearMLService]:
    with ClearMLService() as service:
        yield service


def artifacts_of(task: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = task.get("execution", {}).get("artifacts", [])
    return found


def test_clearml_has_the_metrics_while_an_upload_hangs_and_what_is_left_comes_with_the_next_delivery(
    clearml: ClearMLService, weights: Path, monkeypatch: pytest.MonkeyPatch
):
    configure(monkeypatch, "clearml", clearml.settings)
    clearml.uploads_pass.clear()
    with Experiment("digits", backend=ClearMLBackend(), collectors=[]) as experiment:
        log_while_an_upload_hangs(experiment, weights, clearml.held)
        wait_for(lambda: len(clearml.stored("training_stats_scalar")) == STEPS)
    assert ("in_progress", []) == (clearml.only_task()["status"], artifacts_of(clearml.only_task()))
    clearml.uploads_pass.set()
    sync_run(experiment.run_dir, ["clearml"], TraceletSettings.load())
    task = clearml.only_task()
    (stored,) = artifacts_of(task)
    assert ("completed", weights.read_bytes()) == (task["status"], clearml.files[stored["uri"]])


def test_an_upload_to_clearml_that_outlasts_the_delivery_changes_nothing_any_more(
    clearml: ClearMLService, weights: Path, tmp_path: Path
):
    clearml.uploads_pass.clear()
    backend = started(ClearMLBackend(), facts_in(tmp_path, "clearml"), **clearml.settings)
    with ThreadPoolExecutor(1) as lane:
        upload = lane.submit(backend.handle_artifact, artifact(weights))
        wait_for(lambda: clearml.held)
        backend.stop()
        clearml.only_task()["status"] = "completed"  # By another process, which has sent it again.
        clearml.uploads_pass.set()
        with pytest.raises(RetryableError, match="was stopped"):
            upload.result()
    assert ("completed", []) == (clearml.only_task()["status"], artifacts_of(clearml.only_task()))


def test_a_session_of_clearml_has_the_metrics_while_a_file_is_read(tmp_path: Path):
    """A pipe is a file that takes as long to read as one likes."""
    os.mkfifo(tmp_path / "slow")
    facts = facts_in(tmp_path, "clearml")
    backend = started(ClearMLBackend(), facts, mode="offline")
    session = Path(facts["state_dir"], f"offline-{facts['run_uuid']}")
    with ThreadPoolExecutor(1) as lane:
        reading = lane.submit(backend.handle_artifact, artifact(tmp_path / "slow"))
        backend.handle_batch([loss(step) for step in range(STEPS)])
        assert (STEPS, False) == (len(session_events(session)), reading.done())
        backend.handle_batch([MetricData(STATUS_NAME, "finished", MetricType.CUSTOM)])
        backend.stop()
        before = (session / "task.json").read_bytes()
        (tmp_path / "slow").write_bytes(b"content")
        with pytest.raises(RetryableError, match="was stopped"):
            reading.result()
    assert before == (session / "task.json").read_bytes()


# -- Weights & Biases --------------------------------------------------------------------------------------------------


@pytest.fixture
def wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbService]:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with WandbService() as service:
        yield service


def losses_in(folder: Path) -> list[tuple[Any, ...]]:
    points = wandb_files.points(wandb_files.read(wandb_files.files_of(folder)))
    return [point for point in points if point[0] == "loss"]


def test_wandb_has_the_metrics_while_an_upload_hangs_and_it_comes_again_after_a_kill(
    wandb: WandbService, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """In the run's file: wandb-core sends rows every 15 s, and at the end."""
    for name, value in variables({"wandb__base_url": wandb.url, "wandb__api_key": KEY}).items():
        monkeypatch.setenv(name, value)
    wandb.uploads_pass.clear()
    backend = WandbBackend()
    with Experiment("digits", backend=backend, collectors=[]) as experiment:
        experiment.log_artifact(weights, type="dataset")
        wait_for(lambda: len(wandb.held) == 1)
        kill_core(backend)
        wait_for(lambda: len(wandb.held) == 2)  # No metric has come by which another thread would know.
        for step in range(STEPS):
            experiment.log_metric("loss", 1 / (step + 1), step)
        wait_for(lambda: len(losses_in(tmp_path)) == STEPS)
        (run,) = wandb.runs.values()
        assert (0, []) == (wandb.operations["CommitArtifact"], run.exits)
        wandb.uploads_pass.set()
    assert ([0], weights.read_bytes()) == (run.exits, wandb.uploads["artifact/weights.bin"])
    assert list(range(STEPS)) == [row["tracelet/step"] for row in run.rows if "loss" in row]
    assert 0 < wandb.operations["CommitArtifact"]


def test_a_service_of_wandb_that_refuses_an_artifact_for_now_is_asked_again(
    wandb: WandbService, weights: Path, tmp_path: Path
):
    backend = WandbBackend()
    started(backend, facts_in(tmp_path, "wandb"), base_url=wandb.url, api_key=KEY)
    sdk = backend._process
    wandb.fails = "CommitArtifact"
    with pytest.raises(RetryableError, match=r"has not got the artifact 'weights\.bin': .*failed by the test"):
        backend.handle_artifact(artifact(weights))
    wandb.fails = None
    backend.handle_artifact(artifact(weights))
    assert backend._process is sdk  # Metrics need not wait for another one.
    backend.stop()
    with pytest.raises(RetryableError, match="was stopped"):
        backend.handle_artifact(artifact(weights))


def test_a_file_of_wandb_has_the_metrics_while_an_artifact_is_read(wandb: WandbService, tmp_path: Path):
    (tmp_path / "data").mkdir()
    os.mkfifo(tmp_path / "data" / "slow")
    backend = started(WandbBackend(), facts_in(tmp_path, "wandb"), mode="offline")
    with ThreadPoolExecutor(1) as lane:
        reading = lane.submit(backend.handle_artifact, artifact(tmp_path / "data"))
        backend.handle_batch([loss(step) for step in range(STEPS)])
        assert (STEPS, False) == (len(losses_in(tmp_path)), reading.done())
        (tmp_path / "data" / "slow").write_bytes(b"content")
        reading.result()
        assert ["data"] == [one.name for one in wandb_files.read(wandb_files.files_of(tmp_path)).artifacts]
    backend.stop()


# -- Neptune -----------------------------------------------------------------------------------------------------------


def test_a_queue_of_neptune_takes_an_artifact_without_reading_it(tmp_path: Path):
    """A pipe that nobody writes to can't be read: that would hang."""
    for name in ("slow", "slower"):
        os.mkfifo(tmp_path / name)
    backend = started(NeptuneBackend(), facts_in(tmp_path, "neptune"), mode="offline")
    backend.handle_batch([artifact(tmp_path / "slow"), loss(0)])
    with ThreadPoolExecutor(1) as lane:  # As one that was set aside before the mode was changed.
        lane.submit(backend.handle_artifact, artifact(tmp_path / "slower")).result()
    backend.stop()
    with pytest.raises(RetryableError, match="was stopped"):
        backend.handle_artifact(artifact(tmp_path / "slower"))
    (folder,) = folders()
    assert [str(tmp_path / "slow"), str(tmp_path / "slower")] == [
        operation["file_path"] for operation in operations(folder) if operation["type"] == "UploadFile"
    ]


@pytest.fixture
def neptune(monkeypatch: pytest.MonkeyPatch) -> Iterator[NeptuneServer]:
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")  # The client's own guard against plain HTTP.
    with neptune_server() as server:
        yield server


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # The client's, stopped amid it.
def test_neptune_has_the_metrics_while_an_upload_hangs_and_what_is_left_comes_with_the_next_delivery(
    neptune: NeptuneServer, weights: Path, monkeypatch: pytest.MonkeyPatch
):
    settings = {"mode": "async", "project": "team/vision", "api_token": neptune.token, "connect_timeout_s": 1}
    configure(monkeypatch, "neptune", settings)
    neptune.uploads_pass.clear()
    with Experiment("digits", backend=NeptuneBackend(), collectors=[]) as experiment:
        log_while_an_upload_hangs(experiment, weights, neptune.held)
        (run,) = neptune.runs.values()
        wait_for(lambda: len(run["fields"].get("loss", ())) == STEPS)
    assert ("running", False) == (run["fields"]["tracelet/status"], "artifacts/weights.bin" in run["fields"])
    wait_for(lambda: not is_leased(delivery_directory(experiment.run_dir, "neptune")))  # The client takes its time.
    neptune.uploads_pass.set()
    sync_run(experiment.run_dir, ["neptune"], TraceletSettings.load())
    assert ("finished", weights.read_bytes()) == (
        run["fields"]["tracelet/status"],
        run["fields"]["artifacts/weights.bin"],
    )
    assert [step for step, _, _ in run["fields"]["loss"]] == list(range(STEPS))
