"""The git collector, in real repositories of every kind."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from tests.collectors.support import git, parameters, running
from tracelet import Experiment, load_run
from tracelet.collectors.git_collector import GitCollector, without_credentials
from tracelet.core.records import MetricData, MetricType

PASSWORD = "-".join(["not", "a", "real", "one"])


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    place = tmp_path / "repository"
    place.mkdir()
    git("init", "-q", cwd=place)
    (place / "train.py").write_text("lr = 1e-3\nsteps = 100\n")
    git("add", ".", cwd=place)
    git("commit", "-q", "-m", "one", cwd=place)
    return place


@pytest.fixture
def collected():
    """Reads a repository; the patch comes as a text."""
    open_ones = []

    def collect(place: Path, **config: Any) -> tuple[dict[str, Any], str, MetricData | None]:
        collector = running(GitCollector(), directory=place, **config)
        open_ones.append(collector)
        records = collector.collect()
        artifacts = [record for record in records if record.type is MetricType.ARTIFACT]
        text = artifacts[0].value.read_text(errors="surrogateescape") if artifacts else ""
        return parameters(records), text, artifacts[0] if artifacts else None

    yield collect
    for collector in open_ones:
        collector.stop()


def state_of(repository: Path) -> dict[str, str]:
    files = (path for path in (repository / ".git").rglob("*") if path.is_file())
    return {os.fspath(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_clean_repository_has_its_standing_and_no_patch(repository, collected):
    git("tag", "v1", cwd=repository)
    git("tag", "-a", "v1-annotated", "-m", "x", cwd=repository)
    found, patch, _ = collected(repository)
    assert found == {
        "env/git/root": str(repository),
        "env/git/commit": git("rev-parse", "HEAD", cwd=repository),
        "env/git/branch": "main",
        "env/git/is_detached": False,
        "env/git/is_dirty": False,
        "env/git/changed_files": 0,
        "env/git/tags": ["v1", "v1-annotated"],
    }
    assert "" == patch


def test_the_patch_makes_of_the_commit_what_ran(repository, collected, tmp_path):
    (repository / "train.py").write_text("lr = 3e-4\nsteps = 100\n")
    (repository / "staged.py").write_text("staged = True\n")
    git("add", "staged.py", cwd=repository)
    (repository / "a folder").mkdir()
    (repository / "a folder" / "nëw.py").write_text("new = True\n")
    before = state_of(repository)
    found, patch, record = collected(repository)
    assert before == state_of(repository)  # Neither the index nor the objects are touched.
    assert (found["env/git/is_dirty"], found["env/git/changed_files"]) == (True, 2)
    assert record.metadata == {"type": "diff", "base": found["env/git/commit"], "is_cut": False}
    copy = tmp_path / "copy"
    git("clone", "-q", str(repository), str(copy), cwd=tmp_path)
    git("apply", str(record.value), cwd=copy)
    for file in ("train.py", "staged.py", "a folder/nëw.py"):
        assert (repository / file).read_text() == (copy / file).read_text()
    assert patch.count("diff --git") == 3


def test_deleted_files_and_names_with_odd_characters_are_in_the_patch(repository, collected):
    (repository / "train.py").unlink()
    (repository / "a\nb\t*.py").write_text("odd = 1\n")
    _, patch, _ = collected(repository)
    assert "-lr = 1e-3" in patch
    assert "+odd = 1" in patch


def test_binary_files_are_only_named(repository, collected):
    (repository / "weights.bin").write_bytes(bytes(range(256)) * 40)
    _, patch, _ = collected(repository)
    assert "Binary files /dev/null and b/weights.bin differ" in patch


def test_files_that_are_large_or_hold_credentials_are_only_named(repository, collected):
    (repository / ".env").write_text(f"DB_PASSWORD={PASSWORD}\n")
    (repository / "server.pem").write_text(f"{PASSWORD}\n")
    (repository / "large.csv").write_text("1,2\n" * 100_000)
    (repository / "small.csv").write_text("3,4\n")
    _, patch, record = collected(repository)
    assert [".env", "large.csv", "server.pem"] == sorted(record.metadata["left_out"])
    assert PASSWORD not in patch
    assert "+3,4" in patch


def test_ignored_files_and_repositories_inside_are_left_out(repository, collected):
    (repository / ".gitignore").write_text("*.log\n")
    (repository / "run.log").write_text("noise\n")
    (repository / "inner").mkdir()
    git("init", "-q", cwd=repository / "inner")
    (repository / "inner" / "x.py").write_text("inner = 1\n")
    _, patch, _ = collected(repository)
    assert "+*.log" in patch
    assert "noise" not in patch
    assert "inner" not in patch


def test_a_credential_in_a_change_is_hidden(repository, collected):
    (repository / "train.py").write_text(f'db_password = "{PASSWORD}"\nurl = "https://me:{PASSWORD}@host/x"\n')
    _, patch, _ = collected(repository)
    assert PASSWORD not in patch
    assert "+db_password" in patch


def test_a_patch_that_is_too_large_ends_after_a_whole_file(repository, collected):
    for name in "abc":
        (repository / f"{name}.py").write_text("x = 1\n" * 60)
    git("add", ".", cwd=repository)
    _, patch, record = collected(repository, max_diff_bytes=1400)
    assert record.metadata["is_cut"]
    assert 1400 >= len(patch)
    assert 2 == patch.count("diff --git")
    assert 120 == patch.count("+x = 1\n")


def test_the_diff_can_be_switched_off(repository, collected):
    (repository / "train.py").write_text("lr = 3e-4\n")
    found, _, record = collected(repository, diff=False)
    assert record is None
    assert found["env/git/is_dirty"]


def test_remotes_are_kept_without_their_credentials(repository, collected):
    git(
        "remote",
        "add",
        "origin",
        f"https://me:{PASSWORD}@host.example:8443/x.git?access_token={PASSWORD}",
        cwd=repository,
    )
    git("remote", "add", "backup", "git@host.example:me/x.git", cwd=repository)
    found, _, _ = collected(repository)
    assert "https://host.example:8443/x.git" == found["env/git/remote/origin"]
    assert "git@host.example:me/x.git" == found["env/git/remote/backup"]
    assert PASSWORD not in str(found)


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("ssh://git@host/x.git", "ssh://git@host/x.git"),
        ("ssh://token@host/x.git", "ssh://host/x.git"),
        ("/a/path", "/a/path"),
        ("https://[broken/x", "https://[broken/x"),
        ("", ""),
    ],
)
def test_an_address_keeps_what_is_no_credential(url, kept):
    assert kept == without_credentials(url)


def test_a_branch_tells_how_it_stands_to_the_one_that_it_follows(repository, collected, tmp_path):
    copy = tmp_path / "copy"
    git("clone", "-q", str(repository), str(copy), cwd=tmp_path)
    git("commit", "-q", "--allow-empty", "-m", "two", cwd=copy)
    found, _, _ = collected(copy)
    assert ("origin/main", 1, 0) == tuple(found[f"env/git/{name}"] for name in ("upstream", "ahead", "behind"))


def test_a_detached_head_has_no_branch(repository, collected):
    git("checkout", "-q", "--detach", cwd=repository)
    found, _, _ = collected(repository)
    assert found["env/git/is_detached"]
    assert "env/git/branch" not in found


def test_without_a_commit_the_patch_holds_everything(tmp_path, collected):
    git("init", "-q", cwd=tmp_path)
    (tmp_path / "a.py").write_text("a = 1\n")
    (tmp_path / "b.py").write_text("b = 1\n")
    git("add", "a.py", cwd=tmp_path)
    found, patch, record = collected(tmp_path)
    assert "main" == found["env/git/branch"]
    assert "env/git/commit" not in found
    assert "+a = 1" in patch
    assert "+b = 1" in patch
    assert record.metadata["base"] is None


def test_a_worktree_tells_whose_it_is(repository, collected, tmp_path):
    tree = tmp_path / "tree"
    git("worktree", "add", "-q", "-b", "other", str(tree), cwd=repository)
    (tree / "new.py").write_text("n = 1\n")
    found, patch, _ = collected(tree)
    assert ("other", str(repository)) == (found["env/git/branch"], found["env/git/worktree_of"])
    assert "+n = 1" in patch


def test_submodules_are_told_with_their_commits(repository, collected, tmp_path):
    outer = tmp_path / "outer"
    outer.mkdir()
    git("init", "-q", cwd=outer)
    git("submodule", "--quiet", "add", str(repository), "lib/inner", cwd=outer)
    git("commit", "-q", "-m", "one", cwd=outer)
    commit = git("rev-parse", "HEAD", cwd=repository)
    assert commit == collected(outer)[0]["env/git/submodule/lib/inner"]
    git("commit", "-q", "--allow-empty", "-m", "two", cwd=outer / "lib" / "inner")
    found, patch, _ = collected(outer)
    assert "+" + git("rev-parse", "HEAD", cwd=outer / "lib" / "inner") == found["env/git/submodule/lib/inner"]
    assert f"-Subproject commit {commit}" in patch
    assert "main" == collected(outer / "lib" / "inner")[0]["env/git/branch"]


def test_a_bare_repository_has_a_commit_and_no_changes(repository, collected, tmp_path):
    bare = tmp_path / "bare.git"
    git("clone", "-q", "--bare", str(repository), str(bare), cwd=tmp_path)
    found, _, record = collected(bare)
    assert "it has no working tree" == found["env/git/incomplete"]
    assert record is None


def test_a_repository_of_somebody_else_is_read_by_its_files_alone(repository, collected, monkeypatch):
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    (repository / "train.py").write_text("lr = 3e-4\n")
    found, _, record = collected(repository)
    assert git_commit_by_file(repository) == found["env/git/commit"]
    assert "main" == found["env/git/branch"]
    assert "it belongs to somebody else, and git refuses" == found["env/git/incomplete"]
    assert record is None


def git_commit_by_file(repository: Path) -> str:
    return (repository / ".git" / "refs" / "heads" / "main").read_text().strip()


def test_without_git_the_files_are_read(repository, collected, monkeypatch):
    monkeypatch.setenv("PATH", "")
    found, _, record = collected(repository)
    assert git_commit_by_file(repository) == found["env/git/commit"]
    assert ("main", "git is not installed") == (found["env/git/branch"], found["env/git/incomplete"])
    assert record is None


def test_outside_of_a_repository_it_is_quiet(tmp_path, collected, caplog):
    assert ({}, "", None) == collected(tmp_path)
    assert [] == caplog.records


def test_programs_that_a_repository_names_do_not_run(repository, collected, tmp_path):
    spy, trace = tmp_path / "spy.sh", tmp_path / "ran"
    spy.write_text(f"#!/bin/sh\ntouch {trace}\ncat\n")
    spy.chmod(0o755)
    for name in ("core.fsmonitor", "diff.external", "diff.spy.textconv", "core.pager", "filter.lfs.clean"):
        git("config", name, str(spy), cwd=repository)
    (repository / ".git" / "hooks" / "post-index-change").write_text(spy.read_text())
    (repository / ".git" / "hooks" / "post-index-change").chmod(0o755)
    (repository / ".gitattributes").write_text("*.py diff=spy filter=lfs\n")
    (repository / "train.py").write_text("lr = 3e-4\n")
    (repository / "new.py").write_text("n = 1\n")
    _, patch, _ = collected(repository)
    assert "+lr = 3e-4" in patch
    assert not trace.exists()


def test_a_git_that_hangs_is_killed_and_reported_once(repository, collected, tmp_path, monkeypatch, caplog):
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "git").write_text("#!/bin/sh\nexec sleep 1000\n")
    (programs / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    found, _, _ = collected(repository, timeout_s=0.1)
    assert "no end within 0.1 s" in found["env/git/incomplete"]
    assert git_commit_by_file(repository) == found["env/git/commit"]


def test_a_part_that_fails_is_reported_once_and_costs_only_itself(repository, monkeypatch, caplog):
    monkeypatch.setattr("tracelet.collectors.git_collector._tags", lambda *arguments: 1 / 0)
    collector = running(GitCollector(), directory=repository)
    with caplog.at_level(logging.WARNING):
        found = parameters(collector.collect())
        collector.stop()
        collector.start()
        assert found == parameters(collector.collect())
    collector.stop()
    assert "main" == found["env/git/branch"]
    assert 1 == sum("goes on without the tags" in record.getMessage() for record in caplog.records)


def test_it_is_read_once_and_the_run_keeps_the_patch(repository, monkeypatch, tmp_path):
    monkeypatch.chdir(repository)
    (repository / "train.py").write_text("lr = 3e-4\n")
    experiment = Experiment("x", collectors=[], dir=tmp_path / "runs")
    experiment.register_plugin(GitCollector(), {"interval": 0.001})
    with experiment:
        pass
    run = load_run(experiment.run_dir)
    (record,) = run.records(MetricType.ARTIFACT)
    assert "+lr = 3e-4" in Path(record.value).read_text()
    assert "main" == run.params["env/git/branch"]
