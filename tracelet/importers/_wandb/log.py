"""The log of an offline run, `run-ID.wandb`: LevelDB's format, with W&B's header of 7 bytes, of protobuf records.

A block has 32 KiB and holds pieces: `u32 CRC-32 of type and data | u16 length | u8 type | data`. A record is one piece
of type 1, or a first (2), middle (3) and last one (4). Called on the thread that imports; reads a block at a time.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, final

_BLOCK_BYTES: Final = 32_768
_PIECE: Final = struct.Struct("<IHB")
_MAGIC: Final = b":W&B"
_HEADER_BYTES: Final = 7
_WHOLE, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


@final
class WandbLog:
    """The records of one file. `faults` says afterwards what could not be read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.faults: list[str] = []

    def __iter__(self) -> Iterator[bytes]:
        self.faults = []
        parts: list[bytes] = []
        with open(self._path, "rb") as file:
            if file.read(_HEADER_BYTES)[:4] != _MAGIC:
                self.faults.append("no log of W&B: it does not begin with ':W&B'")
                return
            start = _HEADER_BYTES
            while block := file.read(_BLOCK_BYTES - start):
                for kind, data in self._pieces(block, len(block) + start == _BLOCK_BYTES):
                    if kind in (_WHOLE, _FIRST):
                        parts = []
                    parts.append(data)
                    if kind in (_WHOLE, _LAST):
                        yield b"".join(parts)
                        parts = []
                start = 0
        if parts:
            self.faults.append("cut off in a record")

    def _pieces(self, block: bytes, is_whole: bool) -> Iterator[tuple[int, bytes]]:
        at = 0
        while len(block) - at >= _PIECE.size:
            crc, length, kind = _PIECE.unpack_from(block, at)
            data = block[at + _PIECE.size : at + _PIECE.size + length]
            if kind == 0 and length == 0:  # Not written to.
                return
            if len(data) < length:
                self.faults.append("damaged: a record reaches beyond its block" if is_whole else "cut off in a record")
                return
            if zlib.crc32(data, zlib.crc32(bytes([kind]))) != crc or kind > _LAST:
                self.faults.append("damaged: a checksum is wrong, and the rest of its 32 KiB is left out")
                return
            yield kind, data
            at += _PIECE.size + length
        if at < len(block) and not is_whole:
            self.faults.append("cut off in a record")
