"""Turns what a program prints into texts of the run, each of some lines, all together of a bounded size.

Called by the relay alone. A long run is recorded up to the limit; of what comes after it, the last lines are kept, for
they tell how it ended.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, final

from tracelet.collectors._environment.screen import Screen
from tracelet.utils.redaction import Redactor

MAX_TEXT_CHARS: Final = 16_000  # Neptune takes 16,384.
_TAIL_LINES: Final = 100


@final
class Transcript:
    """The output of one channel."""

    def __init__(self, write: Callable[[str, int], None], max_chars: int, redactor: Redactor) -> None:
        """Make one.

        Args:
            write: Records a text, with its number: 0, 1, 2, …
            max_chars: Of all texts together.
            redactor: Hides credentials in them.
        """
        self._write = write
        self._room = max_chars
        self._redactor = redactor
        self._screen = Screen()
        self._count = 0
        self._left_out = 0
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)

    def feed(self, data: bytes) -> None:
        """Take what was printed. Nothing is recorded before `flush`."""
        self._screen.feed(data)

    def flush(self, *, is_last: bool = False) -> None:
        """Record the lines that are complete; all there is where it is the last time."""
        text = ""
        for line in self._screen.take(is_last=is_last):
            if self._room < len(line):
                self._left_out += 1
                self._tail.append(line)
                continue
            self._room -= len(line) + 1
            if len(text) + len(line) >= MAX_TEXT_CHARS:
                self._record(text)
                text = ""
            text += line + "\n"
        self._record(text)
        if is_last and self._left_out:
            skipped = self._left_out - len(self._tail)
            text = f"… {skipped} lines are left out: the limit was reached …\n" if skipped else ""
            text += "\n".join(self._tail)
            self._record(text if len(text) <= MAX_TEXT_CHARS else "…" + text[1 - MAX_TEXT_CHARS :])

    def _record(self, text: str) -> None:
        if text.strip():
            self._write(self._redactor.clean(text).rstrip("\n"), self._count)
            self._count += 1
