from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tracelet.utils.git import head_commit


def git(*arguments: str, cwd: Path) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "protocol.file.allow=always")
    done = subprocess.run(["git", *identity, *arguments], cwd=cwd, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    place = tmp_path / "repository"
    place.mkdir()
    git("init", "-q", "-b", "main", cwd=place)
    git("commit", "-q", "--allow-empty", "-m", "one", cwd=place)
    return place


def test_the_commit_of_a_branch_is_found_from_a_folder_below(repository: Path):
    below = repository / "a" / "b"
    below.mkdir(parents=True)
    assert git("rev-parse", "HEAD", cwd=repository) == head_commit(below)


@pytest.mark.parametrize(
    "prepare",
    [
        pytest.param(["pack-refs", "--all"], id="packed"),
        pytest.param(["checkout", "-q", "--detach"], id="detached"),
        pytest.param(["checkout", "-q", "-b", "feature/x"], id="branch with a slash"),
    ],
)
def test_the_commit_is_found_in_every_state(repository: Path, prepare: list[str]):
    git("commit", "-q", "--allow-empty", "-m", "two", cwd=repository)
    git(*prepare, cwd=repository)
    assert git("rev-parse", "HEAD", cwd=repository) == head_commit(repository)


@pytest.mark.parametrize("pack", [False, True])
def test_a_worktree_has_a_commit_of_its_own(repository: Path, tmp_path: Path, pack: bool):
    tree = tmp_path / "tree"
    git("worktree", "add", "-q", "-b", "other", str(tree), cwd=repository)
    git("commit", "-q", "--allow-empty", "-m", "three", cwd=tree)
    if pack:
        git("pack-refs", "--all", cwd=repository)
    assert git("rev-parse", "HEAD", cwd=tree) == head_commit(tree) != head_commit(repository)


def test_a_submodule_has_a_commit_of_its_own(repository: Path, tmp_path: Path):
    outer = tmp_path / "outer"
    outer.mkdir()
    git("init", "-q", cwd=outer)
    git("submodule", "--quiet", "add", str(repository), "inner", cwd=outer)
    assert git("rev-parse", "HEAD", cwd=repository) == head_commit(outer / "inner")


def test_no_repository_no_commit_and_no_sense_are_none(tmp_path: Path):
    assert head_commit(tmp_path) is None
    git("init", "-q", cwd=tmp_path)
    assert head_commit(tmp_path) is None
    for text in ("ref: ../../etc/passwd", "nonsense", "", "\xff"):
        (tmp_path / ".git" / "HEAD").write_bytes(text.encode("latin-1"))
        assert head_commit(tmp_path) is None


def test_what_cannot_be_read_is_none(tmp_path: Path):
    (tmp_path / ".git").write_bytes(b"\xff\xfe")
    assert head_commit(tmp_path) is None
