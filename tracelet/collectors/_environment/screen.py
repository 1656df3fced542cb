"""What a terminal shows of a program's output, line by line: a progress bar becomes the one line that it ended as.

Called by the relay. Knows carriage returns, backspaces, and the escapes that progress bars use (cursor up and down,
erase the line); colours and all other escapes are left out. Holds a bounded number of characters.
"""

from __future__ import annotations

import codecs
import re
from typing import Final, final

MAX_LINE_CHARS: Final = 4000
_MAX_ROWS: Final = 5000  # More are given out although the cursor might still come back to them.
_MAX_ESCAPE_CHARS: Final = 256
_TOKEN: Final = re.compile(
    r"\x1b\[(?P<arguments>[0-9;?]*)(?P<command>[@-~])"  # A control sequence.
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)"  # An operating system command, such as a window's title.
    r"|\x1b[^\[\]]"
    r"|(?P<text>[^\x00-\x08\x0a-\x1f\x7f]+)"
    r"|(?P<control>[\x00-\x1f\x7f])"
)
_UNFINISHED: Final = re.compile(r"\x1b(?:\[[0-9;?]*|\][^\x07\x1b]*\x1b?)?\Z")


@final
class Screen:
    """See the module docstring."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""
        self._rows = [""]
        self._row = self._column = 0

    def feed(self, data: bytes) -> None:
        """Take what the program wrote."""
        text = self._rest + self._decoder.decode(data)
        unfinished = _UNFINISHED.search(text)
        is_waiting = unfinished is not None and len(text) - unfinished.start() <= _MAX_ESCAPE_CHARS
        end = unfinished.start() if unfinished is not None and is_waiting else len(text)
        self._rest = text[end:]
        for token in _TOKEN.finditer(text, 0, end):
            if token["text"] is not None:
                self._write(token["text"])
            elif token["control"] is not None:
                self._control(token["control"])
            elif token["command"] is not None:
                self._command(token["command"], token["arguments"])

    def take(self, *, is_last: bool = False) -> list[str]:
        """The lines that no progress bar will change any more, as far as can be told; they are given once.

        Args:
            is_last: Nothing follows: give the line that has no end yet, too.
        """
        count = len(self._rows) if is_last else max(self._row, len(self._rows) - _MAX_ROWS)
        lines, self._rows = self._rows[:count], self._rows[count:] or [""]
        self._row = max(0, self._row - count)
        if is_last:
            self._column = 0
            if lines and not lines[-1]:
                lines.pop()
        return [line.rstrip() for line in lines]

    def _write(self, text: str) -> None:
        row, end = self._rows[self._row], self._column + len(text)
        if self._column < MAX_LINE_CHARS:
            line = row[: self._column].ljust(self._column) + text + row[end:]
            self._rows[self._row] = line if len(line) <= MAX_LINE_CHARS else line[: MAX_LINE_CHARS - 1] + "…"
        self._column = end

    def _control(self, character: str) -> None:
        if character == "\n":
            self._move(1)
            self._column = 0
        elif character == "\r":
            self._column = 0
        elif character == "\b":
            self._column = max(0, self._column - 1)

    def _command(self, command: str, arguments: str) -> None:
        count = min(int(arguments), _MAX_ROWS) if arguments.isdecimal() and len(arguments) < 6 else 1
        if command == "A":
            self._row = max(0, self._row - count)
        elif command == "B":
            self._move(count)
        elif command == "C":
            self._column = min(self._column + count, MAX_LINE_CHARS)
        elif command == "D":
            self._column = max(0, self._column - count)
        elif command == "G":
            self._column = min(count - 1, MAX_LINE_CHARS)
        elif command == "K":
            row = self._rows[self._row]
            self._rows[self._row] = "" if arguments == "2" else row[: self._column]

    def _move(self, count: int) -> None:
        """Down; new lines are made at the bottom."""
        self._row += count
        self._rows += [""] * (self._row + 1 - len(self._rows))
