"""Tells every writer of a process, in a forked child, that it is in one.

Called by `JournalWriter` when it is made, on any thread; and by Python in the child, before anything else runs there.
The guarantee: no record of a child reaches its parent's files.
"""

from __future__ import annotations

import functools
import os
import weakref
from typing import Protocol


class Forkable(Protocol):
    """A `JournalWriter`."""

    def become_child(self) -> None:
        """Let go of all that is the parent's. Must not wait for a lock: whoever held it is not in the child."""


_watched: weakref.WeakSet[Forkable] = weakref.WeakSet()


def watch(writer: Forkable) -> None:
    """Tell `writer` about forks, as long as it lives."""
    _register()
    _watched.add(writer)


def watched() -> list[Forkable]:
    """What is told about forks."""
    return list(_watched)


@functools.cache  # Once a process: hooks of a fork can't be taken back.
def _register() -> None:
    os.register_at_fork(after_in_child=_after_fork_in_child)


def _after_fork_in_child() -> None:
    for writer in watched():
        writer.become_child()
