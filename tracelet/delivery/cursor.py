"""How far a backend has come, kept on the disk.

Written on the backend's worker thread only, by the process that has the `Lease`; read by anybody. The file is replaced
as a whole: after a kill it holds the old positions or the new ones, so that at worst the last batch is sent again.
"""

from __future__ import annotations

import json
import logging
import os
import time
from pathlib import Path
from typing import Any, Final, final

from tracelet.core.records import MetricData
from tracelet.journal.directory import make_private_directory, write_atomically
from tracelet.journal.format import FORMAT_VERSION
from tracelet.journal.reader import Position
from tracelet.utils.redaction import clean

logger = logging.getLogger(__name__)

CURSOR_FILE: Final = "cursor.json"
REJECTED_FILE: Final = "rejected.jsonl"
_SHOWN_VALUE_CHARS: Final = 1000


@final
class Cursor:
    """The positions of one backend in the journal of one run, and what it rejected."""

    def __init__(self, directory: Path) -> None:
        """Read the cursor; a new one begins at the start of the journal.

        Args:
            directory: `delivery/<backend>` of the run.
        """
        self._directory = directory
        self.delivered = 0
        self.rejected = 0
        self.positions: dict[str, Position] = {}
        self.closed: str | None = None
        """The end that the tracker knows of, after which the backend was stopped in order: `finished`, say."""
        self.reload()

    def reload(self) -> None:
        """Read it again: another process may have delivered meanwhile."""
        file = self._directory / CURSOR_FILE
        try:
            fields = json.loads(file.read_bytes())
            self.positions = {writer: _position(parts) for writer, parts in fields["positions"].items()}
            self.delivered, self.rejected = int(fields["delivered"]), int(fields["rejected"])
            self.closed = None if fields.get("closed") is None else str(fields["closed"])
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
            self.positions = {}
            logger.warning("the cursor %s can't be read (%r): everything is sent again", file, error)

    def advance(self, writer: str, position: Position) -> None:
        """All records of `writer` up to `position` are done with. Kept by the next `save`."""
        self.positions[writer] = position

    def save(self) -> None:
        """Put the positions on the disk. A disk that does not take them costs a repeated delivery after a restart."""
        fields = {
            "format": FORMAT_VERSION,
            "delivered": self.delivered,
            "rejected": self.rejected,
            "closed": self.closed,
            "positions": {w: [p.line_bytes, p.segment, p.slot] for w, p in self.positions.items()},
        }
        try:
            make_private_directory(self._directory)
            write_atomically(self._directory / CURSOR_FILE, json.dumps(fields) + "\n")
        except OSError as error:
            logger.debug("the cursor %s can't be saved: %s", self._directory, error)

    def reject(self, record: MetricData, reason: BaseException) -> None:
        """Keep a record that the backend refuses, with the reason, in `rejected.jsonl`; the journal has it anyway."""
        self.rejected += 1
        fields = {
            "name": record.name,
            "type": record.type.value,
            "iteration": record.iteration,
            "timestamp": record.timestamp,
            "value": repr(record.value)[:_SHOWN_VALUE_CHARS],
            "reason": clean(f"{type(reason).__name__}: {reason}"),
            "rejected_at": time.time(),
        }
        try:
            make_private_directory(self._directory)
            with open(self._directory / REJECTED_FILE, "a", encoding="ascii", opener=_private) as file:
                file.write(json.dumps(fields) + "\n")
        except OSError as error:
            logger.warning("the rejected record %r can't be noted: %s", record.name, error)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _position(parts: Any) -> Position:
    line_bytes, segment, slot = parts
    if not all(isinstance(part, int) and part >= 0 for part in parts):
        raise ValueError(f"{parts!r} is no position")
    return Position(line_bytes, segment, slot)
