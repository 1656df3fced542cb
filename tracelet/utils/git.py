"""Which commit and branch are checked out, read from the repository's own files: no git, no process, some 50 µs.

Called on the thread that starts an experiment. Everything else about the repository is the git collector's.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

_COMMIT: Final = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")  # SHA-1 or SHA-256.
_MAX_BYTES: Final = 64 << 20  # Of `packed-refs`; a repository with more references than that keeps its secret.


def head_commit(directory: Path | None = None) -> str | None:
    """The commit that is checked out in a directory or the nearest one above it.

    Args:
        directory: None: the working directory.

    Returns:
        40 or 64 hexadecimal digits; None where there is no repository, no commit, or nothing that can be read.
    """
    try:
        directory = directory or Path.cwd()
        places = (directory, *directory.parents)
        repository = next((found for place in places if (found := _git_directory(place))), None)
        return None if repository is None else _resolved(repository)
    except (OSError, ValueError):  # Not ours to read, or no text: the run does without.
        return None


def head_branch(directory: Path | None = None) -> str | None:
    """The branch that is checked out, also one without a commit; None where HEAD is detached, and as `head_commit`."""
    try:
        directory = directory or Path.cwd()
        found = (repository for place in (directory, *directory.parents) if (repository := _git_directory(place)))
        head = next(((repository / "HEAD").read_text(encoding="utf-8").strip() for repository in found), "")
    except (OSError, ValueError):
        return None
    return head.removeprefix("ref: refs/heads/") if head.startswith("ref: refs/heads/") else None


def _git_directory(place: Path) -> Path | None:
    """The directory with `HEAD`: `.git`, or where a `.git` file of a worktree or submodule points to."""
    found = place / ".git"
    if found.is_file():
        target = found.read_text(encoding="utf-8").removeprefix("gitdir:").strip()
        found = place / target  # An absolute target stays what it is.
    return found if (found / "HEAD").is_file() else None


def _resolved(repository: Path) -> str | None:
    head = (repository / "HEAD").read_text(encoding="utf-8").strip()
    if not head.startswith("ref:"):
        return head if _COMMIT.fullmatch(head) else None  # Detached.
    name = head.removeprefix("ref:").strip()
    common = repository / "commondir"  # A worktree has its own HEAD, and shares the branches.
    shared = repository / common.read_text(encoding="utf-8").strip() if common.is_file() else repository
    for place in (repository, shared):
        if (place / name).is_file():
            commit = (place / name).read_text(encoding="utf-8").strip()
            return commit if _COMMIT.fullmatch(commit) else None
    packed = shared / "packed-refs"
    if not packed.is_file() or packed.stat().st_size > _MAX_BYTES:
        return None
    lines = (line.split() for line in packed.read_text(encoding="utf-8", errors="replace").splitlines())
    return next((parts[0] for parts in lines if parts[1:] == [name] and _COMMIT.fullmatch(parts[0])), None)
