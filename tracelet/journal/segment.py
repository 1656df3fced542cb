"""The two ways to put a scalar record on the disk: through a memory map, or with `os.write`.

Called by `JournalWriter` on any thread that logs. `write(record)` takes one record of 32 bytes. It raises `ValueError`
when the segment is full or closed and `OSError` when the disk refuses; then nothing of the record counts as written.

`MappedSegment.write` is `mmap.write` itself: ONE C call under the GIL that copies the record and moves on. So there is
no moment between reserving a slot and filling it (400 SIGKILLs, 40 million records: none lost, none torn), no lock
that a signal handler or a forked child could find taken, and the GIL is never given away (with four computing threads
`os.write` waits 42 µs on average for it, the map 1.4).

`WrittenSegment` serves where a map is not safe: network and copy-on-write filesystems, where a full disk would be a
SIGBUS in the middle of a training, and Python without a GIL.
"""

from __future__ import annotations

import errno
import io
import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol, final

from tracelet.journal.format import HEADER_BYTES, RECORD_BYTES, SegmentHeader

_MAPPABLE: Final = frozenset({"ext2", "ext3", "ext4", "xfs", "tmpfs", "overlay", "f2fs", "ramfs"})
"""Filesystems on which preallocated space stays ours. btrfs and zfs write elsewhere, network ones can lose the server."""


class Segment(Protocol):
    """Where scalar records go until it is full."""

    index: int
    write: Callable[[bytes], int]

    def slots(self) -> int:
        """How many records have been written."""

    def sync(self) -> None:
        """Bring what was written to the device. Gives the GIL away; called by the keeper's thread only."""

    def close(self, *, trim: bool = True) -> None:
        """No record goes in any more.

        Args:
            trim: Give space that was not used back to the filesystem. False in a forked child, whose parent writes on.
        """


@final
class MappedSegment:
    """A preallocated, memory-mapped segment. See the module docstring."""

    def __init__(self, directory: Path, header: SegmentHeader, size_bytes: int) -> None:
        """Make the file, under a temporary name.

        Raises:
            OSError: There is no room (here, and never as a SIGBUS later), or the directory does not take the file.
        """
        self.index = -1
        self._path = directory / f"{header.segment.hex()}.tmp"
        self._file = open_new(self._path)
        try:
            os.posix_fallocate(self._file.fileno(), 0, HEADER_BYTES + size_bytes)
            self._map = mmap.mmap(self._file.fileno(), HEADER_BYTES + size_bytes)
        except BaseException:  # Also for Ctrl-C: neither the file nor its descriptor may stay behind.
            self._file.close()
            self._path.unlink()
            raise
        self._map.write(header.encode())
        self.write = self._map.write
        self._end: int | None = None

    def publish(self, path: Path, index: int) -> None:
        """Give the segment its name: only now readers see it, with a whole header."""
        os.rename(self._path, path)
        self._path, self.index = path, index

    def slots(self) -> int:
        try:
            end = self._map.tell()
        except ValueError:  # Closed by another thread.
            end = self._end or 0
        return (end - HEADER_BYTES) // RECORD_BYTES

    def sync(self) -> None:
        # Not `mmap.flush`: that holds the GIL, 110 ms for 256 MiB. `fdatasync` covers mapped pages too.
        os.fdatasync(self._file.fileno())

    def discard(self) -> None:
        """Remove a segment that was never published."""
        self._map.close()
        self._file.close()
        self._path.unlink(missing_ok=True)

    def close(self, *, trim: bool = True) -> None:
        self._end = self._map.tell()
        self._map.close()  # From here on `write` raises ValueError, on every thread.
        with self._file:
            if trim:  # Nobody of ours maps this file now, and our readers never do: cutting it can't be a SIGBUS.
                self._file.truncate(self._end)


@final
class WrittenSegment:
    """A segment that grows by one `write(2)` a record. See the module docstring."""

    def __init__(self, path: Path, header: SegmentHeader, index: int) -> None:
        """Make the file with its header; it gets its name when the header is whole.

        Raises:
            OSError: There is no room, or the directory does not take the file.
        """
        self.index = index
        temporary = path.with_suffix(".tmp")
        self._file = open_new(temporary)
        try:
            write_whole(self._file, header.encode())
            os.rename(temporary, path)
        except BaseException:  # As above.
            self._file.close()
            temporary.unlink()
            raise
        self.write = self._write
        self._end: int | None = None

    def _write(self, record: bytes) -> int:
        if self._file.write(record) != RECORD_BYTES:
            # A torn record shifts all that follow it: this segment takes no more.
            self.write = _refuse
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return RECORD_BYTES

    def slots(self) -> int:
        try:
            end = os.fstat(self._file.fileno()).st_size
        except ValueError:  # Closed by another thread.
            end = self._end or 0
        return (end - HEADER_BYTES) // RECORD_BYTES

    def sync(self) -> None:
        os.fdatasync(self._file.fileno())

    def close(self, *, trim: bool = True) -> None:
        self.write = _refuse
        self._end = os.fstat(self._file.fileno()).st_size
        self._file.close()


def _refuse(record: bytes) -> int:
    raise ValueError("the segment takes no more records")


def open_new(path: Path) -> io.FileIO:
    """A new file, unbuffered, in append mode, 0600, that is no link and was not there before.

    A file object rather than a number: a thread that still writes while another closes gets a `ValueError`, and never
    hits the file that the number was given to next.
    """

    def opener(name: str, flags: int) -> int:
        wanted = (flags & ~os.O_WRONLY) | os.O_RDWR | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
        return os.open(name, wanted, 0o600)

    return io.FileIO(path, "ab", opener=opener)


def write_whole(file: io.FileIO, data: bytes) -> None:
    """Write all of `data`. In the common case that is ONE call, so that lines of several threads never mix.

    Raises:
        OSError: The disk refused; a part may have been written.
        ValueError: The file has been closed.
    """
    written = file.write(data) or 0
    while written < len(data):
        written += file.write(data[written:]) or 0


def filesystem_type(path: Path) -> str:
    """The type of the filesystem that holds `path` (`ext4`, `nfs4`, …), or `""` where it can't be told."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
            lines = mounts.readlines()
    except OSError:  # No Linux.
        return ""
    target, best, kind = os.path.realpath(path), "", ""
    for line in lines:
        fields, _, rest = line.partition(" - ")
        point = fields.split()[4].encode("ascii", "surrogateescape").decode("unicode_escape")
        inside = target == point or target.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):  # The last mount on the same point hides the ones before it.
            best, kind = point, rest.split()[0]
    return kind


def can_map(path: Path) -> bool:
    """Whether a memory map is safe on the filesystem that holds `path`."""
    import sys

    has_gil = getattr(sys, "_is_gil_enabled", lambda: True)()  # Python 3.13 and later; before, there is always one.
    return bool(has_gil) and filesystem_type(path) in _MAPPABLE
