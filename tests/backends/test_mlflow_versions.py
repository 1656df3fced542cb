"""Versions of artifacts, references and models in MLflow, as they come beside all else, read back by its client."""

# ruff: noqa: F811  The fixtures are imported.

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.backends.mlflow_server import MlflowServer, mlflow_on_sqlite  # noqa: F401 - imported fixtures
from tests.backends.mlflow_support import QUIET, TIME_S, Remote, database, make_remote  # noqa: F401 - imported fixtures
from tracelet.backends._mlflow.artifacts import Artifacts
from tracelet.core.records import MetricData, MetricType
from tracelet.errors import PermanentError, RejectedError, RetryableError

pytestmark = QUIET


@pytest.fixture(params=["database", "mlflow_on_sqlite"])
def remote(request: pytest.FixtureRequest, make_remote: Callable[[str], Remote]) -> Remote:
    place = request.getfixturevalue(request.param)
    return make_remote(place.uri if isinstance(place, MlflowServer) else place)


def version(name: str, path: Path | str, number: int = 0, **details: Any) -> MetricData:
    facts = {"version": f"v{number}", "aliases": [], "metadata": {}, **details}
    return MetricData(name, str(path), MetricType.ARTIFACT, 3, TIME_S, None, facts)


def kept(tmp_path: Path, name: str, number: int, **files: str) -> Path:
    """A version as it is kept in a run."""
    place = tmp_path / "run" / "artifacts" / name / f"v{number}"
    for file, text in files.items():
        (place / file.replace("__", "/")).parent.mkdir(parents=True, exist_ok=True)
        (place / file.replace("__", "/")).write_text(text)
    return place


def tag_of(remote: Remote, label: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(remote.run.data.tags[f"tracelet.artifact.{label}"])
    return found


def test_each_version_stays_and_is_described(remote: Remote, tmp_path: Path):
    backend = remote.start()
    for number in range(2):
        path = kept(tmp_path, "data", number, csv=f"version {number}") / "csv"
        backend.handle_artifact(version("data", path, number, type="dataset", aliases=["best"], metadata={"rows": 3}))
    backend.handle_artifact(version("folder", kept(tmp_path, "folder", 1, a__b="deep"), 1))
    found = {path: remote.read(path) for path in remote.artifacts()}
    assert {"data": b"version 0", "versions/data/v1/csv": b"version 1", "versions/folder/v1/a/b": b"deep"} == found
    expected = {"name": "data", "version": "v1", "type": "dataset", "aliases": ["best"], "metadata": {"rows": 3}}
    assert expected | {"path": "versions/data/v1/csv"} == tag_of(remote, "data:v1")


def test_a_reference_is_recorded_and_not_fetched(remote: Remote):
    uri = "s3://bucket/nothing here"
    remote.start().handle_artifact(version("data", uri, reference=uri))
    assert (uri, []) == (tag_of(remote, "data:v0")["reference"], list(remote.artifacts()))


def test_a_model_is_a_logged_model_once_and_whole(remote: Remote, tmp_path: Path):
    path = kept(tmp_path, "net", 0, config="{}", layers__one="1")
    record = version("my/net", path, type="model", aliases=["best"])
    for backend in (remote.start(), remote.start()):
        backend.handle_artifact(record)
    run = remote.run
    found = remote.client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run.info.run_id}'")
    (model,) = found
    assert ("READY", []) == (model.status.value, list(remote.artifacts()))
    assert ["best"] == json.loads(model.tags["tracelet.artifact"])["aliases"]
    files = Artifacts(model.artifact_location, str(remote.config["tracking_uri"]), 60.0)
    assert {"config": 2} == files._sizes_bytes(Path("."))  # type: ignore[arg-type]  # any path does
    assert {"one": 1} == files._sizes_bytes(Path("layers"))  # type: ignore[arg-type]  # any path does


def test_an_interrupted_directory_goes_on_with_the_file_that_it_had_come_to(
    remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = kept(tmp_path, "data", 0, a="a" * 10, b="b" * 10, c="c" * 10)
    sent: list[str] = []
    put = Artifacts._put

    def breaks(self: Artifacts, source: Path, place: str) -> None:
        sent.append(place)
        if sent == ["data/a", "data/b"]:
            raise RetryableError("the cable is out")
        put(self, source, place)

    monkeypatch.setattr(Artifacts, "_put", breaks)
    backend = remote.start()
    with pytest.raises(RetryableError):
        backend.handle_artifact(version("data", path))
    backend.handle_artifact(version("data", path))
    backend.handle_artifact(version("data", path))
    assert ["data/a", "data/b", "data/b", "data/c"] == sent
    assert {f"data/{name}": name.encode() * 10 for name in "abc"} == {p: remote.read(p) for p in remote.artifacts()}


def test_a_file_that_is_gone_is_rejected_and_a_deleted_run_says_so(remote: Remote, tmp_path: Path):
    backend = remote.start()
    with pytest.raises(RejectedError, match="no longer in the run directory"):
        backend.handle_artifact(version("data", tmp_path / "nothing"))
    remote.client.delete_run(remote.run.info.run_id)
    with pytest.raises(PermanentError, match="was deleted"):
        backend.handle_artifact(version("data", "s3://a/b", reference="s3://a/b"))
