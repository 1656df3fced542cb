"""Collects which code ran: commit, branch, tags, remotes, submodules, and what was changed since the commit.

Every call comes on the thread `tracelet-git`. The first reading has it all, and no later one has anything: the code was
loaded when the program started. The repository is only read; where git is missing or refuses, what its files say is
recorded. The commit itself is recorded at the start of every run, without this collector.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, final
from urllib.parse import urlsplit, urlunsplit

from pydantic import Field

from tracelet.collectors._base import CollectorSettings, Sources, facts
from tracelet.collectors._git.command import GitCommand, GitError
from tracelet.collectors._git.patch import make_patch
from tracelet.collectors._git.status import GitStatus
from tracelet.core.plugins import CollectorPlugin, PluginMetadata, PluginType
from tracelet.core.records import MetricData, MetricType
from tracelet.utils.git import head_branch, head_commit
from tracelet.utils.imports import require
from tracelet.utils.redaction import Redactor, clean

if TYPE_CHECKING:
    import git

_SOURCE: Final = "git_collector"
_MAX_ITEMS: Final = 50  # Of remotes, tags and submodules.
_REFUSED: Final = "dubious ownership"


@final
class GitSettings(CollectorSettings):
    """What can be set.

    Attributes:
        directory: In the repository. None: the working directory, else where the program is.
        diff: Whether the changes are kept.
        max_diff_bytes: Of the patch; what is more is left out.
        timeout_s: How long one git command may take.
    """

    directory: Path | None = None
    diff: bool = True
    max_diff_bytes: Annotated[int, Field(ge=0)] = 1 << 20
    timeout_s: Annotated[float, Field(gt=0)] = 10.0


@final
class GitCollector(CollectorPlugin):
    """Collects parameters `env/git/…` and the artifact `git/diff.patch`."""

    def __init__(self) -> None:
        self._settings = GitSettings()
        self._places: Sequence[Path] = ()
        self._redactor = Redactor()
        self._scratch: Path | None = None
        self._sources = Sources("git")
        self._open = ExitStack()
        self._told = False
        self._found: str | None = None

    @classmethod
    def get_metadata(cls) -> PluginMetadata:
        """Needs GitPython, and git itself."""
        return PluginMetadata(
            name="git",
            version="1.0.0",
            type=PluginType.COLLECTOR,
            description="Commit, branch, remotes, changes",
            author="Tracelet",
            dependencies=["gitpython>=3.1.43"],
            capabilities={"code", "artifacts"},
        )

    def initialize(self, config: dict[str, Any]) -> None:
        """Take the settings.

        Raises:
            SettingsError: They are wrong.
        """
        self._settings = GitSettings.parse("git", config)
        program = config.get("run_program")
        places = [self._settings.directory] if self._settings.directory else [Path.cwd()]
        if program and not self._settings.directory:
            places.append(Path(program).parent)
        self._places = places
        self._redactor = config.get("run_redactor", self._redactor)
        self._scratch = config.get("run_dir")

    def start(self) -> None:
        """Nothing is read yet."""
        self._active, self._told, self._found = True, False, None

    def stop(self) -> None:
        """Remove the scratch files."""
        self._active = False
        self._open.close()

    def get_status(self) -> dict[str, Any]:
        """Where the repository is."""
        return {"active": self._active, "repository": self._found, "failed": self._sources.failed}

    def collect(self) -> Sequence[MetricData]:
        """All there is to know, at the first reading."""
        if not self._active or self._told:
            self._open.close()  # The run has its own link to what the first reading gave.
            return []
        self._told = True
        if shutil.which("git") is None:  # GitPython can't even be imported then.
            return self._from_files("git is not installed")
        git = require("git", "The git collector", extra="git")
        for place in self._places:
            try:
                repository = git.Repo(place, search_parent_directories=True)
            except (git.InvalidGitRepositoryError, git.NoSuchPathError):
                continue
            with repository:
                return self._read(repository)
        return []

    def _read(self, repository: git.Repo) -> list[MetricData]:
        root = Path(repository.working_tree_dir or repository.git_dir)
        self._found = os.fspath(root)
        command = GitCommand(type(repository.git)(root), self._settings.timeout_s)
        records = facts(_SOURCE, [("git/root", self._found)])
        records += facts(_SOURCE, self._sources.read("the remotes", _remotes, repository))
        if repository.bare:
            return records + self._from_files("it has no working tree")
        try:
            status = GitStatus.read(command)
        except GitError as error:
            reason = "it belongs to somebody else, and git refuses" if _REFUSED in str(error) else str(error)
            return records + self._from_files(reason)
        records += facts(_SOURCE, _standing(repository, status))
        records += facts(_SOURCE, self._sources.read("the tags", _tags, command, status))
        records += facts(_SOURCE, self._sources.read("the submodules", _submodules, command, root))
        if self._settings.diff and (status.changed or status.has_untracked):
            records += self._sources.read("the changes", self._changes, command, root, status)
        return records

    def _from_files(self, reason: str) -> list[MetricData]:
        """What can be told without git."""
        place = next((place for place in self._places if head_commit(place) or head_branch(place)), None)
        if place is None and self._found is None:
            return []
        place = place or self._places[0]
        known = {"commit": head_commit(place), "branch": head_branch(place), "incomplete": clean(reason)}
        return facts(_SOURCE, ((f"git/{name}", value) for name, value in known.items()))

    def _changes(self, command: GitCommand, root: Path, status: GitStatus) -> Iterator[MetricData]:
        scratch = Path(self._open.enter_context(tempfile.TemporaryDirectory(prefix=".git-", dir=self._scratch)))
        patch = make_patch(command, root, status, scratch, self._settings.max_diff_bytes, self._redactor)
        if not patch.text and not patch.left_out:
            return
        file = scratch / "diff.patch"
        file.write_text(patch.text, encoding="utf-8", errors="surrogateescape")
        details: dict[str, Any] = {"type": "diff", "base": status.commit, "is_cut": patch.is_cut}
        if patch.left_out:
            details["left_out"] = [self._redactor.clean(name) for name in patch.left_out]
        yield MetricData("git/diff.patch", file, MetricType.ARTIFACT, source=_SOURCE, metadata=details)


def _standing(repository: git.Repo, status: GitStatus) -> Iterable[tuple[str, Any]]:
    yield "git/commit", status.commit
    yield "git/branch", status.branch
    yield "git/is_detached", status.branch is None
    yield "git/is_dirty", bool(status.changed) or status.has_untracked
    yield "git/changed_files", len(status.changed)
    yield "git/upstream", status.upstream
    yield "git/ahead", status.ahead
    yield "git/behind", status.behind
    if repository.git_dir != repository.common_dir:
        yield "git/worktree_of", os.path.dirname(os.path.abspath(repository.common_dir))


def _remotes(repository: git.Repo) -> Iterator[tuple[str, str]]:
    for remote in list(repository.remotes)[:_MAX_ITEMS]:
        yield f"git/remote/{remote.name}", without_credentials(str(remote.config_reader.get_value("url", "")))


def _tags(command: GitCommand, status: GitStatus) -> Iterator[tuple[str, Any]]:
    if status.commit is not None:
        tags = command.text("tag", "--points-at", "HEAD").splitlines()
        if tags:
            yield "git/tags", tags[:_MAX_ITEMS]


def _submodules(command: GitCommand, root: Path) -> Iterator[tuple[str, str]]:
    """Path and commit; `-` before it: not checked out, `+`: another one than HEAD has."""
    if (root / ".gitmodules").exists():
        for line in command.text("submodule", "status").splitlines()[:_MAX_ITEMS]:
            state, rest = (line[0], line[1:]) if line[:1] in "+-U" else ("", line.strip())
            commit, _, path = rest.partition(" ")
            yield f"git/submodule/{path.partition(' (')[0]}", f"{state}{commit}"


def without_credentials(url: str) -> str:
    """A remote's address without user, password and query: they may all be tokens. `git@host:path` stays."""
    if "://" not in url:
        return clean(url)
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        user = "git@" if parts.scheme == "ssh" and parts.netloc.startswith("git@") else ""
        return clean(urlunsplit((parts.scheme, user + host, parts.path, "", "")))
    except ValueError:  # No address at all.
        return clean(url)
