"""Artifacts through the experiment, and as a reader finds them."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import tracelet
from tests.artifacts.support import LARGE, finished, sha256
from tracelet import Experiment, MetricData, MetricType, Run
from tracelet.core.records import USED_NAME
from tracelet.errors import ArtifactNotFoundError, CorruptJournalError, InvalidNameError, UsageError
from tracelet.journal import manifests
from tracelet.journal.artifacts import list_artifacts
from tracelet.journal.directory import RunDirectory
from tracelet.journal.manifests import Finisher, tree_digest


def record(experiment: Experiment) -> MetricData:
    return Run(experiment.run_dir).records(MetricType.ARTIFACT)[-1]


# -- versions, aliases, metadata ---------------------------------------------------------------------------------------


def test_what_is_logged_under_one_name_are_its_versions(experiment: Experiment, data: Path):
    logged = [
        experiment.log_artifact(data, "d"),
        experiment.log_artifact(data, "d"),
        experiment.log_artifact(data, "x"),
    ]
    assert ["v0", "v1", "v0"] == [artifact.version for artifact in logged]
    found = [(artifact.name, artifact.version, artifact.aliases) for artifact in experiment.list_artifacts()]
    assert [("d", "v0", ()), ("d", "v1", ("latest",)), ("x", "v0", ("latest",))] == found


def test_an_alias_moves_to_the_version_that_is_given_it_last(experiment: Experiment, data: Path):
    experiment.log_artifact(data, aliases=["best", "first"])
    experiment.log_artifact(data, aliases="best")
    experiment.log_artifact(data, aliases=("latest",))
    aliases = {artifact.version: artifact.aliases for artifact in experiment.list_artifacts()}
    assert {"v0": ("first",), "v1": ("best",), "v2": ("latest",)} == aliases
    assert ["v2", "v1", "v0", "v1"] == [
        experiment.get_artifact(name).version for name in ("data", "data:best", "data:first", "data:v1")
    ]


def test_what_is_said_of_it_is_read_back(experiment: Experiment, data: Path):
    made = experiment.log_artifact(data, "set", "dataset", metadata={"rows": 3, "parts": [1, {"a": None}]}, iteration=7)
    found = Run(experiment.run_dir).artifact("set")
    for artifact in (made, found):
        assert ("set", "v0", "dataset", 7) == (artifact.name, artifact.version, artifact.type, artifact.step)
        assert {"rows": 3, "parts": [1, {"a": None}]} == artifact.metadata
        assert (experiment.run_id, len(LARGE) + 3) == (artifact.run_id, artifact.size_bytes)
        assert made.path == artifact.path


def test_types_choose(experiment: Experiment, data: Path):
    experiment.log_artifact(data, "a", "dataset")
    experiment.log_artifact(data, "b", "my own")
    assert ["custom"] == [experiment.log_artifact(data, "c").type]
    assert ["b"] == [artifact.name for artifact in experiment.list_artifacts("my own")]


def test_a_resumed_run_counts_on(data: Path):
    for expected in ("v0", "v1"):
        with Experiment("e", run_id="r") as experiment:
            assert expected == experiment.log_artifact(data).version
    assert ["v0", "v1"] == [artifact.version for artifact in tracelet.load_run("r").artifacts()]


def test_threads_that_log_one_name_get_a_version_each(experiment: Experiment, data: Path):
    versions: list[str] = []
    threads = [
        threading.Thread(target=lambda: versions.append(experiment.log_artifact(data / "part").version))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(f"v{number}" for number in range(8)) == sorted(versions)


def test_no_version_is_given_again_when_its_files_are_gone(experiment: Experiment, data: Path):
    experiment.log_artifact(data)
    shutil.rmtree(experiment.run_dir / "artifacts" / "data" / "v0")
    assert "v1" == experiment.log_artifact(data).version
    gone, there = experiment.list_artifacts()
    assert (False, True) == (gone.is_kept, there.is_kept)
    with pytest.raises(UsageError, match="data:v0 are not in the run any more"):
        gone.download("out")


def test_a_run_of_before_there_were_versions_is_read(experiment: Experiment, data: Path):
    for _ in range(2):
        experiment.log_artifact(data / "part" / "small.csv", "old")
    folder = experiment.run_dir / "artifacts" / "old"
    experiment.stop()
    for number in range(2):
        (folder / f"v{number}").rename(folder / (str(number) * 16))
        (folder / f"v{number}.json").unlink()
    records = [
        MetricData("old", os.fspath(folder / (f"{n}" * 16) / "small.csv"), MetricType.ARTIFACT, n, metadata=facts)
        for n, facts in enumerate([None, {"type": "model", "aliases": ["best"], "epoch": 2.0}])
    ]
    run = Run(experiment.run_dir)
    first, second = list_artifacts(records, run.path, RunDirectory.open(run.path).identity)
    assert ("v0", "custom", (), {}) == (first.version, first.type, first.aliases, first.metadata)
    assert ("v1", "model", ("best", "latest")) == (second.version, second.type, second.aliases)
    assert ({"epoch": 2.0}, None, 3) == (second.metadata, second.digest, second.size_bytes)
    with second.open() as opened:
        assert b"1,2" == opened.read()


@pytest.mark.parametrize("alias", ["", "v3", "a:b", 7], ids=repr)
def test_what_is_no_alias_is_refused(experiment: Experiment, data: Path, alias: Any):
    with pytest.raises(UsageError, match="an alias is a word"):
        experiment.log_artifact(data, aliases=[alias])
    assert [] == experiment.list_artifacts()


def test_what_is_not_there_is_named_with_what_is_near(experiment: Experiment, data: Path):
    experiment.log_artifact(data, "dataset", aliases="best")
    with pytest.raises(ArtifactNotFoundError, match=r"no artifact 'datset'.*dataset"):
        experiment.get_artifact("datset")
    with pytest.raises(ArtifactNotFoundError, match="has no 'worst'; it has best, latest, v0"):
        experiment.get_artifact("dataset:worst")
    with pytest.raises(InvalidNameError):
        experiment.get_artifact(7)  # type: ignore[arg-type]  # The user's mistake.


def test_a_name_may_hold_a_colon(experiment: Experiment, data: Path):
    experiment.log_artifact(data, "a:b")
    assert "a:b" == experiment.get_artifact("a:b").name == experiment.get_artifact("a:b:v0").name


# -- references and lineage --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reference", "name", "uri"),
    [
        ("s3://bucket/set/", "set", "s3://bucket/set/"),
        ("file:///data/x.bin", "x.bin", "file:///data/x.bin"),
        ("/data/no such.bin", "no%20such.bin", "file:///data/no%20such.bin"),
        (Path("/data/y.bin"), "y.bin", "file:///data/y.bin"),
    ],
)
def test_a_reference_is_recorded_and_not_looked_at(experiment: Experiment, reference: Any, name: str, uri: str):
    made = experiment.log_artifact(reference=reference, type="dataset")
    assert (uri, {"reference": uri, "version": "v0"}) == (
        record(experiment).value,
        {key: (record(experiment).metadata or {})[key] for key in ("reference", "version")},
    )
    for artifact in (made, experiment.get_artifact(name)):
        assert (name, uri, None, None) == (artifact.name, artifact.reference, artifact.path, artifact.digest)
    with pytest.raises(UsageError, match="is a reference to"):
        made.download("out")


def test_a_path_that_says_it_is_a_reference_leads_out_of_no_run(experiment: Experiment):
    secret = os.path.realpath("/etc/hostname")
    experiment._intake.journal.write_record("a", secret, MetricType.ARTIFACT, metadata={"reference": secret})
    run = Run(experiment.run_dir)
    assert ([], 1) == (run.records(MetricType.ARTIFACT), run.damage.lines)


def test_a_path_or_a_reference_is_needed(experiment: Experiment, data: Path):
    with pytest.raises(UsageError, match="a path or a reference, and not both"):
        experiment.log_artifact(data, reference="s3://b/k")
    with pytest.raises(UsageError, match="takes a path, not None"):
        experiment.log_artifact()
    with pytest.raises(UsageError, match="a reference is a URI or a path, not 7"):
        experiment.log_artifact(reference=7)  # type: ignore[arg-type]  # The user's mistake.


def test_what_a_run_uses_is_recorded_with_where_it_comes_from(data: Path):
    with Experiment("maker") as maker:
        maker.log_artifact(data, "set", "dataset", aliases="clean")
        assert maker.flush(60)
        made = maker.get_artifact("set:clean")
    with Experiment("user") as user:
        own = user.log_artifact(data, "mine")
        found = [
            user.use_artifact("set:clean", maker.run_id),
            user.use_artifact("set", maker.run_dir),
            user.use_artifact("set:v0", tracelet.load_run(maker.run_id)),
            user.use_artifact(made),
            user.use_artifact("mine"),
        ]
        with pytest.raises(ArtifactNotFoundError):
            user.use_artifact("set")
    assert [made, made, made, made] == found[:4]
    used = tracelet.load_run(user.run_id).used_artifacts()
    assert [("set", "v0", made.digest, maker.run_id)] * 4 == [
        (use["name"], use["version"], use["digest"], use["run_id"]) for use in used[:4]
    ]
    assert ("mine", own.run_uuid) == (used[4]["name"], used[4]["run_uuid"])
    assert 5 == sum(r.name == USED_NAME for r in tracelet.load_run(user.run_id).records(MetricType.CUSTOM))


def test_a_disabled_run_keeps_nothing_and_says_so(data: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TRACELET_DISABLED", "1")
    with Experiment("e") as experiment:
        assert not experiment.log_artifact(data).is_kept
        assert [] == experiment.list_artifacts()


# -- digests -----------------------------------------------------------------------------------------------------------


def test_the_digest_is_that_of_the_bytes(experiment: Experiment, data: Path):
    assert experiment.log_artifact(data).digest is None
    experiment.log_artifact(data / "large.bin", "file")
    directory, file = finished(experiment, "data"), finished(experiment, "file")
    digests = {"large.bin": sha256(LARGE), "part/small.csv": sha256(b"1,2")}
    assert digests == {name: facts.digest for name, facts in directory.files.items()}
    listed = json.dumps(sorted(digests.items()), separators=(",", ":"))
    assert sha256(listed.encode()) == directory.digest == tree_digest(digests)
    assert sha256(LARGE) == file.digest


def test_equal_files_are_kept_once(experiment: Experiment, data: Path):
    (data / "copy.bin").write_bytes(LARGE)
    experiment.log_artifact(data)
    experiment.log_artifact(data / "part" / "small.csv", "small")
    first, small = finished(experiment, "data"), finished(experiment, "small")
    assert first.path is not None
    assert small.path is not None
    assert os.path.samefile(first.path / "copy.bin", first.path / "large.bin")
    assert os.path.samefile(first.path / "part" / "small.csv", small.path)
    assert LARGE == (first.path / "copy.bin").read_bytes()
    assert not os.path.samefile(data / "copy.bin", data / "large.bin")  # The user's own stay what they were.


def test_a_large_file_is_linked_and_a_small_one_copied(experiment: Experiment, data: Path):
    kept = experiment.log_artifact(data).path
    assert kept is not None
    assert os.path.samefile(data / "large.bin", kept / "large.bin")
    (data / "part" / "small.csv").write_bytes(b"other")
    assert b"1,2" == (kept / "part" / "small.csv").read_bytes()


def test_without_links_a_large_file_is_copied(experiment: Experiment, data: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(os, "copy_file_range", refuse)
    kept = experiment.log_artifact(data / "large.bin").path
    assert kept is not None
    assert LARGE == kept.read_bytes()
    assert not os.path.samefile(kept, data / "large.bin")


def test_a_change_in_place_is_told(experiment: Experiment, data: Path, caplog: pytest.LogCaptureFixture):
    experiment._intake.hashing.close(60)  # As if it had not come to it yet.
    experiment.log_artifact(data)
    with open(data / "large.bin", "r+b") as file:
        file.write(b"changed")
    Finisher(experiment.run_dir).finish_all()
    found = experiment.get_artifact("data")
    now = (data / "large.bin").read_bytes()
    assert (("large.bin",), sha256(now)) == (found.changed, found.files["large.bin"].digest)
    assert "was changed in place after it was logged: large.bin" in caplog.text


def test_a_change_after_it_was_hashed_is_found_by_a_download(experiment: Experiment, data: Path, tmp_path: Path):
    experiment.log_artifact(data)
    found = finished(experiment, "data")
    with open(data / "large.bin", "r+b") as file:
        file.write(b"changed")
    with pytest.raises(CorruptJournalError, match=r"large\.bin is not what was logged"):
        found.download(tmp_path / "out")
    assert [] == [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_a_stop_that_can_not_wait_leaves_it_to_the_next_attempt(data: Path):
    settings = tracelet.TraceletSettings(stop_timeout_s=0)
    with Experiment("e", run_id="r", settings=settings) as experiment:
        for number in range(100):  # More than is hashed at once.
            experiment.log_artifact(data, f"d{number}")
    assert list(manifests.pending(experiment.run_dir))
    with Experiment("e", run_id="r") as experiment:
        assert experiment.flush(60)
        assert [] == list(manifests.pending(experiment.run_dir))
        assert 100 == len({artifact.digest and artifact.name for artifact in experiment.list_artifacts()})


def test_hashing_takes_no_time_from_the_call(experiment: Experiment, data: Path, monkeypatch: pytest.MonkeyPatch):
    goes_on = threading.Event()
    real = manifests.hash_file
    monkeypatch.setattr(manifests, "hash_file", lambda *arguments: goes_on.wait(60) and real(*arguments))
    assert experiment.log_artifact(data).digest is None
    assert not experiment.flush(0.01)
    goes_on.set()
    assert finished(experiment, "data").digest is not None


def test_a_directory_that_was_let_go_before_it_was_hashed_is_no_trouble(experiment: Experiment, data: Path):
    experiment._intake.hashing.close(60)
    experiment.log_artifact(data)
    shutil.rmtree(experiment.run_dir / "artifacts" / "data" / "v0")
    Finisher(experiment.run_dir).finish_all()
    assert experiment.get_artifact("data").digest is None


# -- downloads ---------------------------------------------------------------------------------------------------------


def test_a_download_is_a_copy_of_its_own(experiment: Experiment, data: Path, tmp_path: Path):
    experiment.log_artifact(data)
    experiment.log_artifact(data / "large.bin", "file")
    assert tmp_path / "a" / "b" == finished(experiment, "data").download(tmp_path / "a" / "b")
    assert tmp_path / "c" / "large.bin" == finished(experiment, "file").download(tmp_path / "c")
    assert (LARGE, b"1,2", LARGE) == tuple(
        (tmp_path / name).read_bytes() for name in ("a/b/large.bin", "a/b/part/small.csv", "c/large.bin")
    )
    assert 1 == os.stat(tmp_path / "c" / "large.bin").st_nlink


def test_a_download_replaces_nothing_unless_it_may(experiment: Experiment, data: Path, tmp_path: Path):
    artifact = experiment.log_artifact(data)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "large.bin").write_text("mine")
    with pytest.raises(UsageError, match=r"large\.bin' is there already"):
        artifact.download(tmp_path / "out")
    assert "mine" == (tmp_path / "out" / "large.bin").read_text()
    artifact.download(tmp_path / "out", overwrite=True)
    assert LARGE == (tmp_path / "out" / "large.bin").read_bytes()


def test_a_manifest_of_a_stranger_reads_no_file_outside(experiment: Experiment, data: Path, tmp_path: Path):
    experiment.log_artifact(data)
    experiment.stop()
    (tmp_path / "secret").write_text("secret")
    place = experiment.run_dir / "artifacts" / "data"
    fields = {**json.loads((place / "v0.json").read_text()), "digest": None, "is_complete": False}
    facts = {"size_bytes": 6, "mtime_ns": 0, "inode": 0, "digest": None}
    for relative in ("../../../../../../secret", os.fspath(tmp_path / "secret"), "a/../../b", "\0", ""):
        (place / "v0.json").write_text(json.dumps({**fields, "files": {relative: facts}}))
        with pytest.raises(CorruptJournalError, match="leads out of the artifact"):
            manifests.Manifest.read(place / "v0.json")
    os.symlink(tmp_path, place / "v0" / "link")
    (place / "v0.json").write_text(json.dumps({**fields, "files": {"link/secret": facts}}))
    Finisher(experiment.run_dir).finish_all()
    found = Run(experiment.run_dir).artifact("data")
    assert (("link/secret",), None) == (found.changed, found.files["link/secret"].digest)
    with pytest.raises(CorruptJournalError, match="leads out of the artifact"):
        found.download(tmp_path / "out")
    assert not (tmp_path / "out" / "link" / "secret").exists()


def test_a_run_of_a_stranger_has_nothing_outside_written_or_removed(experiment: Experiment, data: Path, tmp_path: Path):
    experiment.log_artifact(data)
    experiment.stop()
    place = experiment.run_dir / "artifacts" / "data"
    fields = json.loads((place / "v0.json").read_text())
    victim = tmp_path / "victim"
    (victim / "v7").mkdir(parents=True)
    (victim / "v0").mkdir()
    for name in ("old.tmp", "v7/file", "v0/large.bin", "large.bin"):
        (victim / name).write_bytes(b"mine")
    (victim / "v0.json").write_text(manifest := json.dumps({**fields, "digest": None, "is_complete": False}))
    for path in (*victim.rglob("*"), victim):
        os.utime(path, (0, 0))
    os.symlink(victim, place.with_name("evil"))
    shutil.rmtree(place / "v0")
    os.symlink(victim, place / "v0")
    (place / "v0.json").write_text(manifest)
    Finisher(experiment.run_dir).finish_all()
    assert {"old.tmp", "v7", "v7/file", "v0", "v0/large.bin", "large.bin", "v0.json"} == {
        path.relative_to(victim).as_posix() for path in victim.rglob("*")
    }
    assert {0.0} == {path.stat().st_mtime for path in (*victim.rglob("*"), victim)}
    assert not manifests.Manifest.read(victim / "v0.json").is_complete


def test_a_reference_is_one_also_without_its_credentials(experiment: Experiment):
    experiment.log_artifact(reference="https://me:hunter2secret@host/x?X-Amz-Signature=0123456789abcdef0123", name="r")
    found = experiment.get_artifact("r").reference
    assert found is not None
    assert found.startswith("https://")
    assert "hunter2secret" not in found + next(experiment.run_dir.glob("*.log")).read_text()


def test_what_an_adapter_hands_over_has_a_version_and_its_own_metadata(experiment: Experiment, data: Path):
    facts = {"type": "model", "aliases": ["best"], "epoch": 2.0}
    experiment.emit_metric(MetricData("model/a", os.fspath(data), MetricType.ARTIFACT, 5, metadata=facts))
    found = finished(experiment, "model/a:best")
    assert ("v0", "model", 5, {"epoch": 2.0}) == (found.version, found.type, found.step, found.metadata)
    assert {**facts, "version": "v0", "size_bytes": len(LARGE) + 3, "files": 2} == record(experiment).metadata


def test_a_forked_child_logs_artifacts_of_its_own(experiment: Experiment, data: Path):
    experiment.log_artifact(data)
    pid = os.fork()
    if pid == 0:
        try:
            experiment.log_artifact(data)
            os._exit(0 if experiment.flush(60) else 2)
        except BaseException:  # noqa: BLE001  pytest must not go on in the child
            os._exit(1)
    deadline_s = time.monotonic() + 120
    while (ended := os.waitpid(pid, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert (pid, 0) == ended
    assert experiment.flush(60)
    assert [("v0", True), ("v1", True)] == [(a.version, a.digest is not None) for a in experiment.list_artifacts()]
