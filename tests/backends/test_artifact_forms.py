"""What trackers make of versions, aliases, references and lineage; read back from what their own SDKs wrote."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backends import wandb_files
from tests.backends.neptune_files import stored_run
from tests.backends.wandb_service import KEY, WandbService
from tracelet import Experiment
from tracelet.backends.clearml_backend import ClearMLBackend
from tracelet.backends.neptune_backend import NeptuneBackend
from tracelet.backends.wandb_backend import WandbBackend
from tracelet.core.plugins import BackendPlugin

URI = "s3://bucket/nothing here.parquet"


@pytest.fixture(autouse=True)
def own_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("WANDB_", "CLEARML_", "NEPTUNE_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CLEARML_CONFIG_FILE", str(tmp_path / "clearml.conf"))


@pytest.fixture
def service() -> Iterator[WandbService]:
    with WandbService() as service:
        yield service


def train(backend: BackendPlugin) -> Experiment:
    """Two versions of a model, a reference, and the use of one of them."""
    with Experiment("digits", backend=backend) as experiment:
        for version in range(2):
            Path(f"net{version}.bin").write_text(f"weights {version}")
            experiment.log_artifact(f"net{version}.bin", "net", "model", aliases=["best"], metadata={"score": version})
        experiment.log_artifact(name="table", type="dataset", reference=URI)
        experiment.use_artifact("net:v0")
    return experiment


def test_wandb_has_versions_aliases_metadata_and_references(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    train(WandbBackend())
    run = wandb_files.read(wandb_files.files_of(tmp_path))
    *nets, table = run.artifacts
    assert [("net", "model")] * 2 + [("table", "dataset")] == [(one.name, one.type) for one in run.artifacts]
    assert [{"latest", f"tracelet-v{number}", "best"} for number in range(2)] == [set(net.aliases) for net in nets]
    assert [0, 1] == [json.loads(net.metadata)["score"] for net in nets]
    assert [URI] == [entry.ref for entry in table.manifest.contents]
    assert "v0" == run.config["tracelet/used_artifact/net"]["version"]


def test_wandb_service_gets_the_bytes_of_each_version_and_fetches_no_reference(
    service: WandbService, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("WANDB_BASE_URL", service.url)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    train(WandbBackend())
    assert {b"weights 0", b"weights 1"} <= set(service.uploads.values())
    assert ["net", "net", "table"] == sorted(made["artifactCollectionName"] for made in service.artifacts)


def test_wandb_shows_which_run_used_an_artifact_of_another_and_of_the_very_same_content(
    service: WandbService, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("WANDB_BASE_URL", service.url)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    maker = train(WandbBackend())
    Path("other.bin").write_text("other")
    with Experiment("other") as unknown:  # W&B has a net of this name and version, and not this content.
        unknown.log_artifact("other.bin", "net", "model")
    with Experiment("user", backend=WandbBackend()) as user:
        user.use_artifact("net:v1", maker.run_dir)
        user.use_artifact("net:v0", unknown.run_dir)
    (use,) = service.uses
    used = service.artifacts[int(use["artifactID"].removeprefix("artifact-")) - 1]
    assert ("net", 1) == (used["artifactCollectionName"], json.loads(used["metadata"])["score"])
    assert "user" == service.runs[use["runName"]].facts["displayName"]
    assert "v0" == service.runs[use["runName"]].config["tracelet/used_artifact/net"]["version"]


def test_a_use_that_wandb_did_not_answer_is_told_at_the_next_start(
    service: WandbService, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("WANDB_BASE_URL", service.url)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    maker = train(WandbBackend())
    known = list(service.artifacts)
    service.artifacts.clear()
    with Experiment("user", backend=WandbBackend()) as user:
        user.use_artifact("net:v1", maker.run_dir)
    assert [] == service.uses
    service.artifacts += known
    with Experiment("user", run_id=user.run_id, resume="must", backend=WandbBackend()):
        pass
    assert 1 == len(service.uses)


def test_clearml_has_each_version_and_the_place_of_a_reference(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CLEARML_OFFLINE_MODE", "1")
    (session,) = train(ClearMLBackend()).run_dir.rglob("task.json")
    found = {one["key"]: one for one in json.loads(session.read_text())["execution"]["artifacts"]}
    assert {"net", "net: v1", "table"} == set(found)
    assert (URI, "dataset") == (found["table"]["uri"], found["table"]["type"])
    assert {"version": "v1", "aliases": '["best"]'}.items() <= dict(found["net: v1"]["display_data"]).items()


def test_neptune_has_each_version_and_what_describes_it():
    train(NeptuneBackend())
    run = stored_run()
    assert (b"weights 0", b"weights 1") == (run.values["artifacts/net"], run.values["versions/net/v1"])
    assert {"score": 1} == json.loads(run.values["tracelet/versions/net/v1"])["metadata"]
    assert URI == json.loads(run.values["tracelet/artifacts/table"])["reference"]
    assert "artifacts/table" not in run.values
