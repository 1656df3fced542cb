from __future__ import annotations

import os
from pathlib import Path

import pytest

from tracelet import Experiment


@pytest.fixture
def run(tmp_path: Path) -> str:
    """The id of a run with two versions of a model, a reference and a hostile name, and a run that uses one."""
    (tmp_path / "model.bin").write_bytes(b"weights")
    with Experiment("maker", run_id="maker") as maker:
        maker.log_artifact("model.bin", "model", "model", aliases="best", metadata={"[b]score": 0.5}, iteration=3)
        maker.log_artifact("model.bin", "model", "model", iteration=4)
        maker.log_artifact(reference="s3://bucket/set", type="dataset")
        maker.log_artifact("model.bin", "[red]x[/]\x1b[31m", "evil")
    with Experiment("user", run_id="user") as user:
        user.use_artifact("model:best", "maker")
    return "maker"


def test_a_line_a_version_tells_aliases_type_size_digest_step_and_users(run, tracelet, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    lines = [line.split() for line in tracelet("artifacts", run).stdout.splitlines()]
    assert ["NAME", "VERSION", "ALIASES", "TYPE", "SIZE", "STEP", "DIGEST", "USED", "BY"] == lines[0]
    assert ["model", "v0", "best", "model", "7", "B", "3", "9a129038d9a0", "user"] in lines
    assert ["model", "v1", "latest", "model", "7", "B", "4", "9a129038d9a0"] in lines
    assert ["set", "v0", "latest", "dataset", "reference"] in lines


def test_names_and_metadata_are_no_markup_and_no_escapes(run, tracelet):
    output = tracelet("artifacts", run).stdout
    assert r"[red]x[/]\x1b[31m" in output
    assert "\x1b" not in output
    assert "metadata [b]score  0.5" in tracelet("artifacts", run, "model:best").stdout


def test_one_version_is_shown_with_its_files(run, tracelet):
    text = tracelet("artifacts", run, "model:v0").stdout
    for part in ("model:v0", "step", "sha256:9a129038d9a0", "model.bin  7 B", "used by", "user"):
        assert part in text


def test_a_name_and_a_type_choose(run, read_json):
    chosen = read_json("artifacts", run, "model")["artifacts"]
    assert [("v0", ["user"]), ("v1", [])] == [(one["version"], one["used_by"]) for one in chosen]
    assert ["set"] == [one["name"] for one in read_json("artifacts", run, "--type", "dataset")["artifacts"]]


def test_lineage_goes_both_ways(run, tracelet):
    assert "model:v0 by the run user" in tracelet("artifacts", run, "--lineage").stdout
    assert "model:v0 of the run maker" in tracelet("artifacts", "user", "--lineage").stdout


def test_a_download_replaces_nothing_without_force(run, tracelet):
    assert (
        f"model:v0 is in {os.path.join('out', 'model.bin')}"
        in tracelet("artifacts", run, "model:best", "--download", "out").stdout
    )
    Path("out/model.bin").write_bytes(b"mine")
    assert "is there already" in tracelet("artifacts", run, "model:best", "--download", "out", code=1).stderr
    assert b"mine" == Path("out/model.bin").read_bytes()
    tracelet("artifacts", run, "model", "--download", "out", "--force")
    assert b"weights" == Path("out/model.bin").read_bytes()


def test_what_can_not_be_downloaded_says_why(run, tracelet):
    assert "name the artifact" in tracelet("artifacts", run, "--download", "out", code=1).stderr
    assert "is a reference to s3://bucket/set" in tracelet("artifacts", run, "set", "--download", "out", code=1).stderr
    assert "no artifact 'modle' (did you mean" in tracelet("artifacts", run, "modle", code=1).stderr


def test_a_run_without_artifacts_says_how_to_keep_one(run, tracelet):
    assert "log_artifact" in tracelet("artifacts", "user").stdout


def test_a_reference_is_shown_and_exported_as_it_is(run, tracelet, read_json):
    assert "s3://bucket/set" in tracelet("show", run).stdout
    assert "the file is gone" not in tracelet("show", run).stdout
    assert "s3://bucket/set" in [file["value"] for file in read_json("show", run)["files"]]
