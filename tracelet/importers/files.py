"""Files of a source, which may come from a stranger: nothing outside of it is read. On the thread that imports."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from tracelet.errors import UsageError


def given_path(source: str) -> Path:
    """The file or directory that the user named.

    Raises:
        UsageError: There is none.
    """
    path = Path(source).expanduser()
    if not os.path.exists(path):
        raise UsageError(f"there is no file or directory {source!r}")
    return path


def files_below(root: Path) -> Iterator[Path]:
    """The plain files of a directory and of all below it, in order; or the file itself. No link is followed."""
    if root.is_file():
        yield root
        return
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            path = Path(folder, name)
            if path.is_file() and not path.is_symlink():
                yield path


def inside(root: Path, relative: str) -> Path | None:
    """The file or directory at a path that a source's metadata names; None where it is missing or leads out of it."""
    path = Path(os.path.realpath(root / relative))
    return path if path.is_relative_to(os.path.realpath(root)) and path.exists() else None
