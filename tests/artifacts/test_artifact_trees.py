"""What a directory may hold, and what a name, when it becomes an artifact."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.artifacts.support import LARGE, finished, sha256
from tracelet import Experiment, MetricType, Run
from tracelet.errors import UsageError
from tracelet.journal import manifests
from tracelet.journal.manifests import tree_digest


def test_only_files_are_kept_and_only_those_within(
    experiment: Experiment, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "secret").write_text("secret")
    os.symlink(tmp_path / "secret", data / "out")
    os.symlink(tmp_path, data / "out_directory")
    os.symlink("large.bin", data / "within")
    os.symlink("part", data / "within_directory")
    os.symlink("..", data / "part" / "circle")
    os.symlink("nowhere", data / "broken")
    os.mkfifo(data / "pipe")
    server = socket.socket(socket.AF_UNIX)
    server.bind("data/socket")  # A relative path: these are short.
    (data / "empty").mkdir()
    (data / "nothing").touch()
    found = experiment.log_artifact(data)
    server.close()
    assert found.path is not None
    expected = {"large.bin", "nothing", "part/small.csv", "within", "within_directory/small.csv"}
    assert expected == set(found.files)
    kept = {path.relative_to(found.path).as_posix() for path in found.path.rglob("*") if path.is_file()}
    assert expected == kept
    assert [] == [path for path in found.path.rglob("*") if path.is_symlink()]
    assert (found.path / "empty").is_dir()
    for name in ("out", "out_directory", "pipe", "socket", "broken", "part/circle"):
        assert name in manifests.Manifest.read(found.path.with_suffix(".json")).left_out
    assert "entries of the artifact 'data' are left out" in caplog.text


def test_a_link_that_is_logged_itself_is_followed(experiment: Experiment, data: Path, tmp_path: Path):
    os.symlink(data, tmp_path / "current")
    os.symlink(data / "large.bin", tmp_path / "best.bin")
    directory, file = experiment.log_artifact(tmp_path / "current"), experiment.log_artifact(tmp_path / "best.bin")
    assert ["current", "best.bin"] == [directory.name, file.name]
    assert {"large.bin", "part/small.csv"} == set(directory.files)
    with file.open() as opened:
        assert LARGE == opened.read()


def test_a_directory_and_a_file_without_content_are_kept(experiment: Experiment, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "nothing").touch()
    experiment.log_artifact(tmp_path / "empty")
    experiment.log_artifact(tmp_path / "nothing")
    assert (True, tree_digest({})) == ((found := finished(experiment, "empty")).is_kept, found.digest)
    assert sha256(b"") == finished(experiment, "nothing").digest


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../b", "\0", "", "..", "v0.json", "a\nb"], ids=repr)
def test_no_name_leaves_the_directory(experiment: Experiment, data: Path, name: str):
    path = experiment.log_artifact(data, name).path
    assert path is not None
    assert path.parent.parent == experiment.run_dir / "artifacts"
    assert name == experiment.list_artifacts()[0].name


@pytest.mark.parametrize("path", ["no such", "a\0b", 7, "pipe"], ids=repr)
def test_what_is_no_file_is_refused(experiment: Experiment, tmp_path: Path, path: Any):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match=r"log_artifact\(\)"):
        experiment.log_artifact(path)


@pytest.mark.parametrize("error", [FileNotFoundError, PermissionError])
def test_a_file_that_can_not_be_read_costs_itself_only(
    experiment: Experiment, data: Path, monkeypatch: pytest.MonkeyPatch, error: type[OSError]
):
    real = os.open

    def refuse(path: Any, *arguments: Any, **named: Any) -> int:
        if os.fspath(path).endswith(("data/part/small.csv", "alone.bin")):
            raise error(1, "can't be opened", path)
        return real(path, *arguments, **named)

    (data.parent / "alone.bin").touch()
    monkeypatch.setattr(os, "open", refuse)
    found, alone = experiment.log_artifact(data), experiment.log_artifact(data.parent / "alone.bin")
    assert ({"large.bin"}, False) == (set(found.files), alone.is_kept)
    text = Run(experiment.run_dir).records(MetricType.TEXT)[-1]
    assert ("alone.bin", "artifact") == (text.name, (text.metadata or {})["failed"])


def test_ten_thousand_small_files_are_kept(experiment: Experiment, tmp_path: Path):
    for number in range(10_000):
        folder = tmp_path / "many" / str(number // 1000)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / str(number)).write_bytes(b"%d" % number)
    experiment.log_artifact(tmp_path / "many")
    found = finished(experiment, "many")
    assert (10_000, 38_890) == (len(found.files), found.size_bytes)
    assert all(facts.digest == sha256(name.rpartition("/")[2].encode()) for name, facts in found.files.items())
