"""Models and checkpoints as ClearML's own models: online, and by the import of a session; read by ClearML's client."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.backends.clearml_service import ClearMLService
from tests.backends.test_clearml_offline import python
from tracelet import Experiment, load_run
from tracelet.backends._artifact import ArtifactFacts
from tracelet.backends.clearml_backend import ClearMLBackend
from tracelet.core.records import MetricData, MetricType
from tracelet.delivery.retry import Verdict, judge

URI = "s3://bucket/far.onnx"
DIGEST = f"sha256:{hashlib.sha256(b'weights 1').hexdigest()}"
READ_MODELS = """
    import json, sys
    from pathlib import Path
    from clearml import Task
    for model in Task.get_task(sys.argv[1]).models["output"]:
        copy = None if model.url.startswith("s3") else Path(model.get_local_copy())
        files = [] if copy is None else [copy, *copy.rglob("*")]
        texts = [path.read_text() for path in files if path.is_file()]
        print(json.dumps([model.name, sorted(model.tags), model.framework, model.comment, texts]))
"""
IMPORT = "import sys; from clearml import Task; print(Task.import_offline_session(sys.argv[1]))"


@pytest.fixture(autouse=True)
def own_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("CLEARML_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CLEARML_CONFIG_FILE", str(tmp_path / "clearml.conf"))


@pytest.fixture
def service() -> Iterator[ClearMLService]:
    with ClearMLService() as service:
        yield service


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    state_dir = tmp_path / "run" / "delivery" / "clearml"
    state_dir.mkdir(parents=True)
    facts = {"run_name": "digits", "run_id": "r1", "run_uuid": uuid.uuid4().hex, "run_project": "vision"}
    return {**facts, "run_created_s": 0.0, "run_dir": tmp_path / "run", "state_dir": state_dir}


def train(settings: dict[str, Any]) -> Experiment:
    """Two versions of a model, a directory, a reference, and what is no model."""
    experiment = Experiment("digits", project="vision", collectors=[])
    experiment.register_plugin(ClearMLBackend(), settings)
    with experiment:
        for version in range(2):
            Path("net.bin").write_text(f"weights {version}")
            facts = {"score": version, "framework": "torch"}
            experiment.log_artifact("net.bin", "net", "model", aliases=["best", f"try{version}"], metadata=facts)
        Path("state").mkdir()
        Path("state", "optimizer.txt").write_text("momentum")
        experiment.log_artifact("state", "epoch", "checkpoint")
        experiment.log_artifact(name="far", type="model", reference=URI)
        experiment.log_artifact(name="farther", type="model", reference=URI.replace("bucket", "other"))
        experiment.log_artifact("net.bin", "table", "dataset")
    return experiment


def read_models(service: ClearMLService, folder: Path) -> dict[str, list[Any]]:
    """By ClearML's own client: tags, framework, comment and the texts of the files."""
    lines = python(READ_MODELS, service.only_task()["id"], folder=folder, **service.environment).splitlines()
    rows = [json.loads(line) for line in lines if line.startswith("[")]
    assert len(rows) == len({row[0] for row in rows})
    return {name: facts for name, *facts in rows}


def check(found: dict[str, list[Any]], service: ClearMLService, *, unknown: str | None) -> None:
    comments = {name: facts.pop(2) for name, facts in found.items()}
    assert {
        "net": [["try0"], "PyTorch", ["weights 0"]],
        "net: v1": [["best", "try1"], "PyTorch", ["weights 1"]],
        "epoch": [[], unknown, ["momentum"]],
        "far": [[], "ONNX", []],
        "farther": [[], "ONNX", []],
    } == found
    assert {"version: v1", f"digest: {DIGEST}"} <= set(comments["net: v1"].splitlines())
    assert URI in {model["uri"] for model in service.models.values()}
    assert 5 == len(service.models) == len({entry["name"] for entry in service.only_task()["models"]["output"]})
    assert ["table"] == [artifact["key"] for artifact in service.only_task()["execution"]["artifacts"]]


def test_clearml_finds_the_models_and_checkpoints_of_a_run(service: ClearMLService, tmp_path: Path):
    train(service.settings)
    check(read_models(service, tmp_path), service, unknown=None)
    (model,) = (model for model in service.models.values() if model["name"] == "net: v1")
    metadata = {name: (item["value"], item["type"]) for name, item in model["metadata"].items()}
    assert {"score": ("1", "int"), "version": ("v1", "str"), "digest": (DIGEST, "str")}.items() <= metadata.items()
    assert service.only_task()["project"] == model["project"]


def test_the_import_of_a_session_makes_models_where_it_is_told_a_destination(service: ClearMLService, tmp_path: Path):
    experiment = train({"mode": "offline", "files_host": service.url})
    folder = str(experiment.url("clearml")).removeprefix("file://")
    python(IMPORT, folder, folder=tmp_path, **service.environment)
    check(read_models(service, tmp_path), service, unknown="Custom")


@pytest.fixture
def net(tmp_path: Path) -> MetricData:
    place = tmp_path / "net.bin"
    place.write_text("weights")
    details = {"type": "model", "version": "v0", "aliases": ["best"]}
    return MetricData("net", str(place), MetricType.ARTIFACT, None, 1.0, None, details)


def deliver(config: dict[str, Any], settings: dict[str, Any], *records: MetricData) -> None:
    backend = ClearMLBackend()
    backend.initialize({**config, **settings})
    backend.start()
    try:
        backend.handle_batch(records)
    finally:
        backend.stop()


def test_a_model_that_comes_again_is_the_same_and_keeps_what_was_written_by_hand(
    service: ClearMLService, config: dict[str, Any], net: MetricData
):
    deliver(config, service.settings, net)
    (model,) = service.models.values()
    model["tags"] = ["by hand"]
    service.files.clear()
    deliver(config, service.settings, net)
    assert ([model], ["by hand"], {}) == (list(service.models.values()), model["tags"], service.files)


@pytest.mark.parametrize(("step", "made"), [("models.create", 0), ("tasks.add_or_update_model", 1)])
def test_an_outage_while_a_model_is_made_leaves_one_whole(
    service: ClearMLService, config: dict[str, Any], net: MetricData, step: str, made: int
):
    with service.refusing(step, 503), pytest.raises(Exception, match="503") as caught:
        deliver(config, service.settings, net)
    assert (Verdict.RETRY, made) == (judge(caught.value), len(service.models))
    deliver(config, service.settings, net)
    (model,) = service.models.values()
    assert b"weights" == service.files[model["uri"]]
    assert [{"name": "net", "model": model["id"]}] == service.only_task()["models"]["output"]


def test_a_model_that_comes_again_is_once_in_a_session(config: dict[str, Any], net: MetricData, tmp_path: Path):
    for _ in range(2):
        deliver(config, {"mode": "offline", "output_uri": "s3://bucket"}, net)
    (session,) = config["state_dir"].rglob("task.json")
    (model,) = json.loads(session.read_text())["offline_output_models"]
    assert ("net", ["best"], "s3://bucket") == (model["init"]["name"], model["init"]["tags"], model["output_uri"])
    assert "weights" == Path(model["weights"]["weights_filename"]).read_text()
    assert f"digest: sha256:{hashlib.sha256(b'weights').hexdigest()}" in model["init"]["comment"].splitlines()


def test_a_digest_that_is_not_there_yet_is_the_one_that_the_run_will_have():
    Path("state", "inner").mkdir(parents=True)
    for name in ("b.txt", "inner/a.txt"):
        Path("state", name).write_text(name)
    with Experiment("digits", collectors=[]) as experiment:
        experiment.log_artifact("state", "epoch", "checkpoint")
    kept = load_run(experiment.run_dir).artifact("epoch")
    facts = ArtifactFacts("epoch", "v0", "checkpoint", (), {}, kept.path, None, digest=None, size_bytes=None)
    assert kept.digest is not None
    assert kept.digest == facts.hashed().digest
