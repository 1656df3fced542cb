"""Files that records refer to: media, artifacts. Called on the thread that logs them.

Guarantee: a file gets its name in the run directory only when it is whole, and the user's own file is never moved,
changed or removed. It is linked where the filesystem can do that (a checkpoint of gigabytes costs nothing, and outlives
the original's deletion), else copied.
"""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

from tracelet.journal.directory import RunDirectory, make_private_directory
from tracelet.utils.names import safe_directory_name


def store_file(run: RunDirectory, source: Path, folder: str, name: str) -> str:
    """Keep a file or a directory with the run.

    Args:
        run: The run.
        source: The user's file or directory.
        folder: `artifacts` or `media`.
        name: What the user calls it.

    Returns:
        Its path relative to the run directory.

    Raises:
        OSError: It can't be read, or the disk does not take it.
    """
    place = _new_place(run, folder, name)
    temporary = place.with_name(place.name + ".tmp")
    if source.is_dir():
        shutil.copytree(source, temporary, copy_function=_link_or_copy, symlinks=True)
    else:
        temporary.mkdir(mode=0o700)
        _link_or_copy(os.fspath(source), os.fspath(temporary / safe_directory_name(source.name)))
    os.rename(temporary, place)
    kept = place if source.is_dir() else place / safe_directory_name(source.name)
    return os.fspath(kept.relative_to(run.path))


def store_bytes(run: RunDirectory, data: bytes, folder: str, name: str, suffix: str) -> str:
    """Keep bytes as a file with the run; returns its path relative to the run directory.

    Raises:
        OSError: The disk does not take it.
    """
    place = _new_place(run, folder, name)
    place = place.with_name(place.name + suffix)
    temporary = place.with_name(place.name + ".tmp")
    with open(temporary, "xb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
        file.write(data)
    os.rename(temporary, place)
    return os.fspath(place.relative_to(run.path))


def _new_place(run: RunDirectory, folder: str, name: str) -> Path:
    """A path in the run directory that nobody has; its name is safe, and still tells what it is."""
    directory = make_private_directory(run.path / folder / safe_directory_name(name))
    return directory / secrets.token_hex(8)


def _link_or_copy(source: str, target: str) -> str:
    try:
        os.link(os.path.realpath(source), target)
    except OSError:  # Another filesystem, or one without links: EXDEV, EPERM, EMLINK, …
        shutil.copy2(source, target)
    return target
