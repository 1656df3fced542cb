"""Where the working tree stands, from one `git status`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, final

from tracelet.collectors._git.command import GitCommand

_MAX_BYTES = 4 << 20


@final
@dataclass(frozen=True, slots=True)
class GitStatus:
    """What `git status` says.

    Attributes:
        commit: None before the first one.
        branch: None where HEAD is detached.
        upstream: What the branch follows, as `origin/main`.
        ahead, behind: Commits that the upstream does not have, and that it has besides; None without one.
        changed: Files that differ from HEAD, submodules among them.
        has_untracked: Whether there are files that git does not know.
    """

    commit: str | None
    branch: str | None
    upstream: str | None
    ahead: int | None
    behind: int | None
    changed: Sequence[str]
    has_untracked: bool

    @classmethod
    def read(cls, git: GitCommand) -> Self:
        """Ask git.

        Raises:
            GitError: It does not answer.
        """
        output = git.run(
            "status", "--porcelain=v2", "--branch", "-z", "--untracked-files=normal", "--no-renames",
            max_bytes=_MAX_BYTES,
        )  # fmt: skip
        head: dict[str, str] = {}
        changed: list[str] = []
        has_untracked = False
        for line in output.texts():
            kind, _, rest = line.partition(" ")
            if kind == "#":
                name, _, value = rest.partition(" ")
                head[name] = value
            elif kind == "?":
                has_untracked = True
            else:
                changed.append(rest.split(" ", 9 if kind == "u" else 7)[-1])
        ahead, _, behind = head.get("branch.ab", "").partition(" ")
        commit, branch = head.get("branch.oid"), head.get("branch.head")
        return cls(
            commit=None if commit == "(initial)" else commit,
            branch=None if branch == "(detached)" else branch,
            upstream=head.get("branch.upstream"),
            ahead=int(ahead[1:]) if ahead else None,
            behind=int(behind[1:]) if behind else None,
            changed=changed,
            has_untracked=has_untracked,
        )
