"""The frames of a TFRecord file: `u64 length | u32 CRC of the length | data | u32 CRC of the data`, little-endian.

Called on the thread that imports. Reads a block at a time, up to the last whole frame. The CRC of the length is
checked: a damaged one would shift all that follows. That of the data is not: in Python it would take longer than all
the rest.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, final

_BLOCK_BYTES: Final = 1 << 20
_LONGEST_BYTES: Final = 1 << 30
_HEADER: Final = struct.Struct("<QI")


def _crc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return tuple(table)


_TABLE: Final = _crc_table()


def masked_crc(data: bytes) -> int:
    """CRC-32C, masked as TFRecord has it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


@final
class Frames:
    """The frames of one file. `fault` says, after the last one, why the rest can't be read; None: there is none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.fault: str | None = None

    def __iter__(self) -> Iterator[bytes]:
        self.fault = None
        good: set[bytes] = set()  # Lengths with their CRC: a file has few.
        with open(self._path, "rb", buffering=0) as file:
            data, at, offset = b"", 0, 0
            while True:
                if len(data) - at >= 12:
                    header = data[at : at + 12]
                    length, crc = _HEADER.unpack(header)
                    if header not in good:
                        if length > _LONGEST_BYTES or masked_crc(header[:8]) != crc:
                            self.fault = f"damaged at byte {offset + at}"
                            return
                        good.add(header)
                    end = at + 16 + length
                    if end <= len(data):
                        yield data[at + 12 : end - 4]
                        at = end
                        continue
                    wanted = max(_BLOCK_BYTES, end - len(data))
                else:
                    wanted = _BLOCK_BYTES
                offset, data, at = offset + at, data[at:], 0
                if not (more := file.read(wanted)):
                    if data:
                        self.fault = f"cut off at byte {offset}, in the middle of a record"
                    return
                data += more
