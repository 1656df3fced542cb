"""Files of lines of JSON that survive a kill. For one thread a file.

Guarantee: a line that a kill or a full disk cut short is removed before the next one is written.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

_TAIL_BYTES: Final = 65_536


def append_line(path: Path, events: Sequence[Mapping[str, Any]]) -> None:
    """Put a line at the end, a list of events."""
    line = json.dumps(events, allow_nan=False) + "\n"
    with open(path, "a+b") as file:
        file.truncate(_end_of_lines(file.fileno(), file.seek(0, os.SEEK_END)))
        file.write(line.encode("ascii"))


def _end_of_lines(descriptor: int, size_bytes: int) -> int:
    """Where the last whole line ends."""
    end = size_bytes
    while end:
        start = max(0, end - _TAIL_BYTES)
        newline = os.pread(descriptor, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0
