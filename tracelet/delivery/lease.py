"""The right to deliver one run to one backend: one process has it at a time.

Called by a delivery worker on its own thread, and by commands that ask before they start. It is a lock on the file
`delivery/<backend>/lock`, which the kernel takes back when the process is gone, however it went. A forked child lets go
of its copy, or a data-loading process that outlives its killed parent would keep the lock.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from pathlib import Path
from typing import Final, final

from tracelet.journal import forking
from tracelet.journal.directory import make_private_directory

logger = logging.getLogger(__name__)

LOCK_FILE: Final = "lock"
_TAKEN: Final = (errno.EAGAIN, errno.EACCES)


@final
class Lease:
    """See the module docstring."""

    def __init__(self, directory: Path) -> None:
        """Nothing is taken yet.

        Args:
            directory: `delivery/<backend>` of the run.
        """
        self._file = directory / LOCK_FILE
        self._descriptor: int | None = None

    @property
    def is_held(self) -> bool:
        """Whether this process has it, through this object."""
        return self._descriptor is not None

    def acquire(self) -> bool:
        """Take it, or say that another process has it. Never waits.

        Raises:
            OSError: The run directory takes no file.
        """
        make_private_directory(self._file.parent)
        descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _TAKEN:
                os.close(descriptor)
                return False
            # A filesystem without locks: two who deliver at once may send a record twice, and lose none.
            logger.debug("%s can't be locked, and is not: %s", self._file, error)
        self._descriptor = descriptor
        forking.watch(self)
        return True

    def release(self) -> None:
        """Let go of it; nothing happens where it is not held."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def become_child(self) -> None:
        """The parent's lock is not the child's."""
        self.release()


def is_leased(directory: Path) -> bool:
    """Whether a process delivers at this moment."""
    if not (directory / LOCK_FILE).exists():
        return False
    lease = Lease(directory)
    try:
        return not lease.acquire()
    finally:
        lease.release()
