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
import re
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol, final

from tracelet.journal.format import HEADER_BYTES, RECORD_BYTES, SegmentHeader

_MAPPABLE: Final = frozenset({"ext2", "ext3", "ext4", "xfs", "tmpfs", "overlay", "f2fs", "ramfs"})
"""Filesystems on which preallocated space stays ours. btrfs and zfs write elsewhere, network ones lose the server."""

_CANNOT_MAP: Final = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.ENODEV, errno.EBADF, errno.ENOMEM})
"""What `posix_fallocate` and `mmap` answer where there is no preallocation or no map. "No room" is none of these.

EBADF is glibc's, which would fill the file itself and can't in append mode; ENOMEM is a limit of address space or maps.
"""

_OCTAL: Final = re.compile(rb"\\([0-7]{3})")
"""How mountinfo escapes a blank."""


@final
class CannotMapError(OSError):
    """There is no map to be had here: `WrittenSegment` serves."""


class Segment(Protocol):
    """Where scalar records go until it is full."""

    index: int
    write: Callable[[bytes], int]

    def slots(self) -> int:
        """How many records have been written."""

    def sync(self) -> None:
        """Bring what was written to the device. Gives the GIL away; called by the keeper's thread only."""

    def is_intact(self) -> bool:
        """Whether the file is where it should be, and nobody has cut it. Called by the keeper's thread only."""

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
            CannotMapError: The filesystem can't preallocate or map.
        """
        self.index = -1
        self._path = directory / f"{header.segment.hex()}.tmp"
        self._file = open_new(self._path)
        try:
            self._map = _map_preallocated(self._file.fileno(), HEADER_BYTES + size_bytes)
        except BaseException:  # Also for Ctrl-C: neither the file nor its descriptor may stay behind.
            self._file.close()
            self._path.unlink(missing_ok=True)
            raise
        self._map.write(header.encode())
        self.write: Callable[[bytes], int] = self._map.write
        self._end = HEADER_BYTES

    def publish(self, path: Path, index: int) -> None:
        """Give the segment its name: only now readers see it, with a whole header.

        Raises:
            OSError: The directory is gone, or takes nothing.
        """
        os.rename(self._path, path)
        self._path, self.index = path, index

    def slots(self) -> int:
        """How many records have been written."""
        try:
            end = self._map.tell()
        except ValueError:  # Closed by another thread.
            end = self._end
        return (end - HEADER_BYTES) // RECORD_BYTES

    def is_intact(self) -> bool:
        """Whether the file is where it should be, and nobody has cut it."""
        return is_in_place(self._file, self._path, len(self._map))

    def sync(self) -> None:
        """Bring what was written to the device."""
        # Not `mmap.flush`: that holds the GIL, 110 ms for 256 MiB. `fdatasync` covers mapped pages too.
        os.fdatasync(self._file.fileno())

    def discard(self) -> None:
        """Remove a segment that was never published."""
        self._map.close()
        self._file.close()
        self._path.unlink(missing_ok=True)

    def close(self, *, trim: bool = True) -> None:
        """See `Segment`."""
        self._end = end = self._map.tell()
        self._map.close()  # From here on `write` raises ValueError, on every thread.
        with self._file:
            if trim:
                # A record that another thread wrote between those two lines stays.
                while any(os.pread(self._file.fileno(), RECORD_BYTES, end)):
                    end += RECORD_BYTES
                # Nobody of ours maps this file now, and our readers never do: cutting it can't be a SIGBUS.
                self._file.truncate(end)


@final
class WrittenSegment:
    """A segment that grows by one `write(2)` a record. See the module docstring."""

    def __init__(self, path: Path, header: SegmentHeader, index: int) -> None:
        """Make the file with its header; it gets its name when the header is whole.

        Raises:
            OSError: There is no room, or the directory does not take the file.
        """
        self.index = index
        temporary = temporary_path(path)
        self._file = open_new(temporary)
        try:
            write_whole(self._file, header.encode())
            os.rename(temporary, path)
        except BaseException:  # As above; and it may have its name already.
            self._file.close()
            temporary.unlink(missing_ok=True)
            raise
        self.write: Callable[[bytes], int] = self._write
        self._path = path
        self._torn = False
        self._end = HEADER_BYTES

    def _write(self, record: bytes) -> int:
        if self._torn:
            return _refuse(record)
        if self._file.write(record) != len(record):
            self._torn = True  # Half a record would shift all that follow: this segment takes no more.
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return len(record)

    def slots(self) -> int:
        """How many records have been written."""
        try:
            end = os.fstat(self._file.fileno()).st_size
        except ValueError:  # Closed by another thread.
            end = self._end
        return max(0, end - HEADER_BYTES) // RECORD_BYTES

    def is_intact(self) -> bool:
        """Whether the file is where it should be, and nobody has cut it."""
        known, self._end = self._end, os.fstat(self._file.fileno()).st_size
        return is_in_place(self._file, self._path, known)

    def sync(self) -> None:
        """Bring what was written to the device."""
        os.fdatasync(self._file.fileno())

    def close(self, *, trim: bool = True) -> None:
        """See `Segment`."""
        self.write = _refuse
        self._end = os.fstat(self._file.fileno()).st_size
        self._file.close()


def _map_preallocated(file: int, size_bytes: int) -> mmap.mmap:
    try:
        os.posix_fallocate(file, 0, size_bytes)
        return mmap.mmap(file, size_bytes)
    except OSError as error:
        if error.errno in _CANNOT_MAP:
            raise CannotMapError(*error.args) from error
        raise


def _refuse(_record: bytes) -> int:
    raise ValueError("the segment takes no more records")


def temporary_path(path: Path) -> Path:
    """Where to make a file that will be called `path`.

    Never the same twice: a Ctrl-C at the wrong instant can leave a file behind, which must not be in the way for ever.
    """
    return path.with_name(f"{path.stem}-{secrets.token_hex(4)}.tmp")


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
    """Write all of `data` in ONE call, so that lines of several threads never mix.

    Raises:
        OSError: The disk refused; a part may have been written.
        ValueError: The file has been closed.
    """
    if file.write(data) != len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def is_in_place(file: io.FileIO, path: Path, least_bytes: int) -> bool:
    """Whether an open file still has its name and at least this size.

    Inode numbers are not compared: over FUSE they may change while all is well.
    """
    found = os.fstat(file.fileno())
    return found.st_nlink > 0 and found.st_size >= least_bytes and os.path.exists(path)


def filesystem_type(path: Path) -> str:
    """The type of the filesystem that holds `path` (`ext4`, `nfs4`, …), or `""` where it can't be told."""
    try:
        mounts = Path("/proc/self/mountinfo").read_bytes().splitlines()
    except OSError:  # No Linux.
        return ""
    target, best, kind = os.fsencode(os.path.realpath(path)), b"", b""
    for mount in mounts:
        fields, _, rest = mount.partition(b" - ")
        point = _OCTAL.sub(lambda code: bytes([int(code[1], 8)]), fields.split()[4])
        inside = target == point or target.startswith(point.rstrip(b"/") + b"/")
        if inside and len(point) >= len(best):  # The last mount on the same point hides the ones before it.
            best, kind = point, rest.split()[0]
    return kind.decode("ascii", "replace")


def can_map(path: Path) -> bool:
    """Whether a memory map is safe on the filesystem that holds `path`."""
    import sys

    has_gil = getattr(sys, "_is_gil_enabled", lambda: True)()  # Python 3.13 and later; before, there is always one.
    return bool(has_gil) and filesystem_type(path) in _MAPPABLE
