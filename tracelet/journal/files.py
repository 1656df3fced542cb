"""Files that records refer to: media, artifacts. Called on the thread that logs them.

Guarantee: a record names a file only when it is whole, and the user's own file is never moved, changed or removed. A
large file is linked where the filesystem can do that (a checkpoint of gigabytes costs nothing, and outlives the
original's deletion). A small one is copied: a link would show what is later written into the user's file.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, final

from tracelet.journal.directory import RunDirectory, make_private_directory
from tracelet.utils.names import safe_directory_name

COPIED_BYTES: Final = 1 << 20
"""A file of up to this size is copied, in 0.3 ms; a larger one is linked."""

_MAX_LEVELS: Final = 100


@final
@dataclass(frozen=True, slots=True)
class FileFacts:
    """A file as it was when it was looked at.

    Attributes:
        size_bytes: Its size.
        mtime_ns: When it was written last.
        inode: Which file of its filesystem it is.
        digest: `sha256:` and 64 hex digits; None before it has been computed.
    """

    size_bytes: int
    mtime_ns: int
    inode: int
    digest: str | None = None

    @classmethod
    def of(cls, status: os.stat_result, digest: str | None = None) -> FileFacts:
        """The facts that `os.stat` gives."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ino, digest)

    def is_same(self, other: FileFacts) -> bool:
        """Whether nobody has written to the file in between, as far as its filesystem tells."""
        return (self.size_bytes, self.mtime_ns, self.inode) == (other.size_bytes, other.mtime_ns, other.inode)


@final
@dataclass(slots=True)
class Tree:
    """What was kept of a file or a directory: by relative path, the files, and why others were left out."""

    files: dict[str, FileFacts] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def store_file(run: RunDirectory, source: Path, folder: str, name: str) -> str:
    """Keep a file or a directory with the run.

    Args:
        run: The run.
        source: The user's file or directory.
        folder: Below the run directory: `media`.
        name: What the user calls it.

    Returns:
        Its path relative to the run directory.

    Raises:
        OSError: It can't be read, or the disk does not take it.
    """
    place = _new_place(run, folder, name)
    temporary = place.with_name(place.name + ".tmp")
    temporary.mkdir(mode=0o700)
    store_tree(source, temporary)
    os.rename(temporary, place)
    kept = place if source.is_dir() else place / safe_directory_name(source.name)
    return os.fspath(kept.relative_to(run.path))


def store_tree(source: Path, target: Path) -> Tree:
    """Link or copy a file, or what is in a directory, into a directory that is there and empty.

    Links within the source become what they point to. Left out of a directory is what can't or must not be kept:
    links that lead out of it or in a circle, pipes, sockets, devices, and what can't be read or is gone meanwhile.

    Raises:
        OSError: The source can't be read, or the disk does not take it.
    """
    tree = Tree()
    if not source.is_dir():
        name = safe_directory_name(source.name)
        tree.files[name] = _link_or_copy(os.path.realpath(source), target / name)
        return tree
    root = os.path.realpath(source)
    for relative, path in _walk(root, "", root, (root,), tree.left_out):
        place = target / relative
        try:
            if path is None:
                place.mkdir(mode=0o700)
            else:
                tree.files[relative] = _link_or_copy(path, place)
        except (FileNotFoundError, PermissionError) as error:
            if not place.parent.is_dir():  # It is the run that is gone, not the file.
                raise
            tree.left_out[relative] = error.strerror or str(error)
    return tree


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


def _walk(
    directory: str, prefix: str, root: str, above: tuple[str, ...], left_out: dict[str, str]
) -> Iterator[tuple[str, str | None]]:
    """The files and directories below one, as (path relative to the root, real path of a file or None)."""
    try:
        with os.scandir(directory) as entries:
            names = sorted(entry.name for entry in entries)
    except OSError as error:
        left_out[prefix or "."] = error.strerror or str(error)
        return
    for name in names:
        relative, path = prefix + name, os.path.join(directory, name)
        try:
            real = os.path.realpath(path) if os.path.islink(path) else path
            if real != path and os.path.commonpath((root, real)) != root:
                left_out[relative] = "a link that leads out of the directory"
                continue
            mode = os.stat(real).st_mode
        except OSError as error:
            left_out[relative] = error.strerror or str(error)
            continue
        if stat.S_ISREG(mode):
            yield relative, real
        elif not stat.S_ISDIR(mode):
            left_out[relative] = "neither a file nor a directory"
        elif real in above or len(above) > _MAX_LEVELS:
            left_out[relative] = "a link to a directory above it" if real in above else "too deep"
        else:
            yield relative, None
            yield from _walk(real, f"{relative}/", root, (*above, real), left_out)


def _link_or_copy(source: str, target: Path) -> FileFacts:
    """Keep the file at a real path, and say what has been kept."""
    with open(os.open(source, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:  # A pipe would wait for ever.
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "neither a file nor a directory", source)
        if status.st_size > COPIED_BYTES:
            try:
                os.link(source, target)
                return FileFacts.of(os.stat(target))
            except OSError as error:  # Another filesystem, or one without links: EXDEV, EPERM, EMLINK, …
                if error.errno in (errno.ENOENT, errno.ENOSPC, errno.EEXIST):
                    raise
        with open(target, "xb") as copy:
            _copy_bytes(file.fileno(), copy.fileno(), status.st_size)
    shutil.copystat(source, target)
    return FileFacts.of(os.stat(target))


def _copy_bytes(source: int, target: int, size_bytes: int) -> None:
    """Copy in the kernel: where the filesystem can share blocks (btrfs, XFS) that takes no time and no space."""
    try:
        while os.copy_file_range(source, target, max(size_bytes, 1 << 20)):
            pass
    except (AttributeError, OSError):  # Not on this platform, or not between these filesystems.
        os.lseek(source, 0, os.SEEK_SET)
        os.ftruncate(target, 0)
        os.lseek(target, 0, os.SEEK_SET)
        with open(source, "rb", closefd=False) as reading, open(target, "wb", closefd=False) as writing:
            shutil.copyfileobj(reading, writing, 1 << 20)
