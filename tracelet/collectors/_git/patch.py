"""The working tree's difference from HEAD as one patch, with the text files that git does not know yet.

`git apply` takes it, on top of the commit, as long as no credential had to be hidden in it. The repository is not
touched: new files are added to a copy of its index. Binary files are named only, and so are files that are too large or
whose names say that they hold credentials.
"""

from __future__ import annotations

import fnmatch
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from tracelet.collectors._git.command import GitCommand, Output, lines
from tracelet.collectors._git.status import GitStatus
from tracelet.utils.redaction import Redactor

_CREDENTIAL_FILES: Final = (
    ".env", ".env.*", "*.env", ".netrc", "*.pem", "*.key", "*.p12", "*.pfx", "*.keystore", "id_rsa*", "id_ed25519*",
    "*credentials*", "*secret*", ".pypirc", ".npmrc", "kubeconfig*",
)  # fmt: skip
_MAX_UNTRACKED: Final = 1000
_MAX_INDEX_BYTES: Final = 64 << 20  # The index of half a million files; its copy would take too long.
_MAX_NAMED: Final = 100
_DIFF: Final = (
    "diff", "--no-color", "--no-ext-diff", "--no-textconv", "--no-renames", "--src-prefix=a/", "--dst-prefix=b/",
)  # fmt: skip


@final
@dataclass(frozen=True, slots=True)
class Patch:
    """A difference from HEAD.

    Attributes:
        text: What `git diff` wrote, without credentials.
        left_out: Names of untracked files of which the contents are not in it.
        is_cut: Whether there was more than the limit.
    """

    text: str
    left_out: Sequence[str]
    is_cut: bool


def make_patch(
    git: GitCommand, root: Path, status: GitStatus, scratch: Path, max_bytes: int, redactor: Redactor
) -> Patch:
    """Make the patch of a working tree.

    Args:
        git: Git in `root`.
        root: The working tree.
        status: What `git status` said.
        scratch: A directory for the copy of the index.
        max_bytes: Of the patch, and of each untracked file a quarter.
        redactor: Hides credentials in it.

    Raises:
        GitError: Git does not answer.
        OSError: `scratch` can't be written.
    """
    base = status.commit or git.text("hash-object", "-t", "tree", os.devnull)  # The empty tree has no fixed name.
    untracked, left_out = list[str](), list[str]()
    for name in _untracked(git) if status.has_untracked else ():
        (untracked if _is_shown(root, name, max_bytes // 4) else left_out).append(name)
    environment = _with_announced(git, untracked, scratch) if untracked else {}
    if untracked and not environment:
        left_out += untracked
    output = git.run(*_DIFF, base, "--", environment=environment, max_bytes=max_bytes)
    return Patch(redactor.clean(_text(output)), left_out[:_MAX_NAMED], output.is_cut)


def _untracked(git: GitCommand) -> Iterator[str]:
    names = git.run("ls-files", "--others", "--exclude-standard", "-z").texts()
    yield from (name for name in names[:_MAX_UNTRACKED] if not name.endswith("/"))  # That is another repository.


def _is_shown(root: Path, name: str, max_bytes: int) -> bool:
    """Whether an untracked file's content is part of the patch. Git itself tells which ones are binary."""
    base = os.path.basename(name).lower()
    if any(fnmatch.fnmatchcase(base, pattern) for pattern in _CREDENTIAL_FILES):
        return False
    try:
        return (root / name).lstat().st_size <= max_bytes
    except OSError:
        return False


def _with_announced(git: GitCommand, names: Sequence[str], scratch: Path) -> dict[str, str]:
    """The variables that make git use a copy of the index with these files announced; none where it is too large."""
    places = git.text("rev-parse", "--path-format=absolute", "--git-path", "index", "--git-path", "objects")
    place, objects = map(Path, places.splitlines())
    index, listed, added = scratch / "index", scratch / "untracked", scratch / "objects"
    added.mkdir(exist_ok=True)
    if place.exists():  # There is none before the first `git add`.
        if place.stat().st_size > _MAX_INDEX_BYTES:
            return {}
        shutil.copyfile(place, index)
    listed.write_bytes(lines(names))
    environment = {
        "GIT_INDEX_FILE": str(index),
        "GIT_OBJECT_DIRECTORY": str(added),  # Git writes the empty file.
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": json.dumps(str(objects), ensure_ascii=False),  # Quoted: `:` divides them.
    }
    command = ("add", "--intent-to-add", "--pathspec-from-file=-", "--pathspec-file-nul")
    git.run(*command, stdin=listed, environment=environment)
    return environment


def _text(output: Output) -> str:
    """The patch; of one that is cut, the files that are whole, or the lines where not even the first one is."""
    data = output.data
    if output.is_cut:
        end = data.rfind(b"\ndiff --git ")
        data = data[: (end if end > 0 else data.rfind(b"\n")) + 1]
    return data.decode("utf-8", "surrogateescape")
