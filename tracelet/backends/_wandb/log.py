"""Reads what the SDK of Weights & Biases has written to its `.wandb` file, also while it writes.

In the SDK's process: `TransactionLog` for one thread at a time, `Sent` for any. The file has 7 bytes of header, then
the log format of LevelDB: blocks of 32 KiB with pieces of records, each with a CRC. The guarantee: a record is given
when it is wholly in the file, once, and in order; a torn end is no error, it may still be written.
"""

from __future__ import annotations

import os
import struct
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, final

from tracelet.errors import CorruptJournalError
from tracelet.utils.imports import require

_MAGIC: Final = b":W&B"
_HEADER_BYTES: Final = 7  # The magic, a second one, and a version.
_PIECE: Final = struct.Struct("<IHB")  # CRC, length in bytes, type.
_BLOCK_BYTES: Final = 32_768
_READ_BYTES: Final = 1 << 20
_POLL_S: Final = 0.001
_PROBE_INTERVAL_S: Final = 0.25
_WRITE_TIMEOUT_S: Final = 60.0
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


@final
class TransactionLog:
    """One `.wandb` file, read from its beginning."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._position = 0  # In bytes: where the next piece begins.
        self._pieces = b""  # Of a record whose end has not been read.
        self._seen: Counter[str] = Counter()  # Records that `wait_for` has counted, by kind.

    def read(self) -> Iterator[Any]:
        """The records (`Record` of W&B's protobuf messages) that have come since the last call.

        Raises:
            OSError: The file can't be read.
            CorruptJournalError: It is not W&B's.
        """
        messages = require("wandb.proto.wandb_internal_pb2", "The W&B backend")
        for body in self._bodies():
            yield messages.Record.FromString(body)

    def wait_for(self, expected: Mapping[str, int], probe: Callable[[], object]) -> None:
        """Wait until there are so many records of each kind since the beginning.

        Args:
            expected: Counts by kind: `history`, `config`, …
            probe: Called now and then meanwhile; fails where nobody writes any more.

        Raises:
            TimeoutError: They don't come.
        """
        begin_s = probe_s = time.monotonic()
        while True:
            self._seen.update(record.WhichOneof("record_type") for record in self.read())
            if all(self._seen[kind] >= count for kind, count in expected.items()):
                return
            now_s = time.monotonic()
            if now_s - begin_s > _WRITE_TIMEOUT_S:
                raise TimeoutError(f"wandb-core does not write to {self._path}: is the disk full?")
            if now_s - probe_s > _PROBE_INTERVAL_S:
                probe_s = now_s
                probe()
            time.sleep(_POLL_S)

    def _bodies(self) -> Iterator[bytes]:
        with open(self._path, "rb") as file:
            data, begin = b"", self._position
            while True:
                if not self._position and len(data) >= _HEADER_BYTES:
                    if not data.startswith(_MAGIC):
                        raise CorruptJournalError(f"{self._path} is no file of W&B's")
                    self._position = _HEADER_BYTES
                piece = self._piece(data, begin) if self._position else None
                if piece is not None:
                    kind, body = piece
                    self._pieces = body if kind in (_FULL, _FIRST) else self._pieces + body
                    if kind in (_FULL, _LAST):
                        yield self._pieces
                    continue
                data, begin = data[self._position - begin :], self._position
                file.seek(begin + len(data))
                more = file.read(_READ_BYTES)
                if not more:
                    return
                data += more

    def _piece(self, data: bytes, begin: int) -> tuple[int, bytes] | None:
        """The type and bytes of the next piece; None where it is not whole. `data` begins at the position `begin`."""
        left = _BLOCK_BYTES - self._position % _BLOCK_BYTES
        if left < _PIECE.size:  # Too small for a piece: filled with zeros.
            self._position += left
        start = self._position - begin
        if start + _PIECE.size > len(data):
            return None
        crc, length, kind = _PIECE.unpack_from(data, start)
        body = data[start + _PIECE.size : start + _PIECE.size + length]
        if len(body) < length or not kind or zlib.crc32(bytes([kind]) + body) != crc:
            return None
        self._position += _PIECE.size + length
        return kind, body


@final
class Sent:
    """Counts what wandb-core was sent, and waits until it is in its file."""

    def __init__(self, path: str | os.PathLike[str], probe: Callable[[], object]) -> None:
        """Nothing was sent yet; for the rest see `TransactionLog.wait_for`."""
        self._log = TransactionLog(path)
        self._probe = probe
        self._counts: Counter[str] = Counter()
        self._counting = threading.Lock()
        self._waiting = threading.Lock()

    def add(self, kind: str, count: int = 1) -> None:
        """So many more records of a kind were sent."""
        with self._counting:
            self._counts[kind] += count

    def wait(self, *kinds: str) -> None:
        """Wait until all so far of these kinds is in the file; without any, all of every kind.

        Raises:
            TimeoutError, OSError: It does not come, or wandb-core is gone.
        """
        with self._counting:
            expected = {kind: self._counts[kind] for kind in kinds or self._counts}
        with self._waiting:
            self._log.wait_for(expected, self._probe)
