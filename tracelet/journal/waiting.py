"""The lines that the disk refused, kept in memory until it takes them again.

Called by `JournalWriter`: `add` on any thread that logs, `first` and `drop_first` on the keeper's alone. Nothing here
waits or locks. The guarantee: lines come out in the order in which each thread put them in, and memory is bounded.
"""

from __future__ import annotations

from collections import deque
from typing import Final, final

from tracelet.journal.format import decode_line, encode_line

MAX_LINES: Final = 10_000
MAX_BYTES: Final = 16 << 20


@final
class WaitingLines:
    """See the module docstring for threads."""

    def __init__(self) -> None:
        self._lines: deque[tuple[str, bytes]] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._lines)

    @property
    def is_full(self) -> bool:
        """Whether no more are taken."""
        return len(self._lines) >= MAX_LINES or self._bytes >= MAX_BYTES

    def add(self, line: bytes, writer: str) -> None:
        """Keep a line.

        Args:
            line: As it was to be written.
            writer: The writer that the position in the line belongs to.
        """
        size_bytes = len(line)
        self._bytes += size_bytes  # No call in this statement: CPython can't switch threads in it.
        self._lines.append((writer, line))

    def first(self, writer: str) -> bytes:
        """The line that has waited longest, for the log of `writer`."""
        owner, line = self._lines[0]
        # A position in files that are gone means nothing in the new ones: there, the line comes before all scalars.
        return line if owner == writer else encode_line({**(decode_line(line) or {}), "at": (0, 0)})

    def drop_first(self) -> None:
        """Forget the line that has waited longest."""
        size_bytes = len(self._lines.popleft()[1])
        self._bytes -= size_bytes
