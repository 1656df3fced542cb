"""How far a backend has come, kept on the disk.

Written by the process that has the `Lease`, on the backend's worker thread and that of its `ArtifactLane`; read by
anybody. The file is replaced as a whole: after a kill it holds the old positions or the new ones, so that at worst the
last batch is sent again. Artifacts that were set aside are in the same file: so they leave the journal's positions and
enter the lane in one step.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple, final

from tracelet.core.records import MetricData, MetricType, is_reference
from tracelet.journal.directory import make_private_directory, write_atomically
from tracelet.journal.format import FORMAT_VERSION
from tracelet.journal.reader import Position
from tracelet.utils.redaction import clean

logger = logging.getLogger(__name__)

CURSOR_FILE: Final = "cursor.json"
REJECTED_FILE: Final = "rejected.jsonl"
_SHOWN_VALUE_CHARS: Final = 1000


class Aside(NamedTuple):
    """An artifact that waits for its `ArtifactLane`. The journal has it in the log of `writer`, before `line_bytes`."""

    record: MetricData
    writer: str
    line_bytes: int


@final
class Cursor:
    """The positions of one backend in the journal of one run, the artifacts set aside, and what it rejected."""

    def __init__(self, directory: Path) -> None:
        """Read the cursor; a new one begins at the start of the journal.

        Args:
            directory: `delivery/<backend>` of the run.
        """
        self._directory = directory
        self.delivered = 0
        self.rejected = 0
        self.positions: dict[str, Position] = {}
        self.aside: list[Aside] = []
        """The artifacts that the lane has not delivered, in their order."""
        self.lock = threading.RLock()
        """Held for each change, and by the lane while it asks whether it still may make one."""
        self.closed: str | None = None
        """The end that the tracker knows of, after which the backend was stopped in order: `finished`, say."""
        self.reload()

    def reload(self) -> None:
        """Read it again: another process may have delivered meanwhile."""
        file = self._directory / CURSOR_FILE
        try:
            fields = json.loads(file.read_bytes())
            self.positions = {writer: _position(parts) for writer, parts in fields["positions"].items()}
            self.aside = [self._aside(item) for item in fields.get("aside", ())]  # An older cursor has none.
            self.delivered, self.rejected = int(fields["delivered"]), int(fields["rejected"])
            self.closed = None if fields.get("closed") is None else str(fields["closed"])
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
            self.positions, self.aside = {}, []
            logger.warning("the cursor %s can't be read (%r): everything is sent again", file, error)

    def advance(self, writer: str, position: Position, aside: Iterable[MetricData] = ()) -> None:
        """All records of `writer` up to `position` are done with, or set aside. Kept by the next `save`."""
        with self.lock:
            self.aside += (Aside(record, writer, position.line_bytes) for record in aside)
            self.positions[writer] = position

    def took(self, count: int) -> None:
        """The backend has taken so many records."""
        with self.lock:
            self.delivered += count

    def save(self) -> None:
        """Put the positions on the disk. A disk that does not take them costs a repeated delivery after a restart."""
        with self.lock:
            fields = {
                "format": FORMAT_VERSION,
                "delivered": self.delivered,
                "rejected": self.rejected,
                "closed": self.closed,
                "positions": {w: [p.line_bytes, p.segment, p.slot] for w, p in self.positions.items()},
                "aside": [self._fields(item) for item in self.aside],
            }
            try:
                make_private_directory(self._directory)
                write_atomically(self._directory / CURSOR_FILE, json.dumps(fields, default=str) + "\n")
            except OSError as error:
                logger.debug("the cursor %s can't be saved: %s", self._directory, error)

    def reject(self, record: MetricData, reason: BaseException) -> None:
        """Keep a record that the backend refuses, with the reason, in `rejected.jsonl`; the journal has it anyway."""
        with self.lock:
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

    # A run may be moved: a path in it is kept as one below the run.

    def _fields(self, item: Aside) -> dict[str, Any]:
        record = item.record
        value = record.value
        if not is_reference(value, record.metadata):
            value = os.path.relpath(value, self._run)
        fields = [record.name, value, record.iteration, record.timestamp, record.source, record.metadata]
        return {"record": fields, "after": [item.writer, item.line_bytes]}

    def _aside(self, fields: Any) -> Aside:
        name, value, iteration, timestamp, source, metadata = fields["record"]
        if not is_reference(value, metadata):
            value = os.path.normpath(self._run / value)
        record = MetricData(name, value, MetricType.ARTIFACT, iteration, timestamp, source, metadata)
        return Aside(record, str(fields["after"][0]), int(fields["after"][1]))

    @property
    def _run(self) -> Path:
        return self._directory.parent.parent


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _position(parts: Any) -> Position:
    line_bytes, segment, slot = parts
    if not all(isinstance(part, int) and part >= 0 for part in parts):
        raise ValueError(f"{parts!r} is no position")
    return Position(line_bytes, segment, slot)
