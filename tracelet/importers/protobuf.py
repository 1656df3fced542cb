"""Reads protocol buffers without their classes: a message is its fields, by number.

Called by importers, on their thread. Pure. Small enough to do without the `protobuf` package, whose generated classes
TensorBoard, TensorFlow and wandb each bring in versions of their own.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

Field = int | bytes


def fields(message: bytes) -> Iterator[tuple[int, Field]]:
    """Number and value of each field: an integer for a varint, else its bytes (8, 4, or a text, message or list).

    Raises:
        ValueError: It is no whole message.
    """
    at, end = 0, len(message)
    while at < end:
        tag, at = varint(message, at)
        match tag & 7:
            case 0:
                value, at = varint(message, at)
                yield tag >> 3, value
                continue
            case 1:
                size = 8
            case 2:
                size, at = varint(message, at)
            case 5:
                size = 4
            case kind:
                raise ValueError(f"the wire type {kind} at byte {at}")
        if at + size > end:
            raise ValueError(f"a field of {size} bytes at byte {at} of {end}")
        yield tag >> 3, message[at : at + size]
        at += size


def varint(data: bytes, at: int) -> tuple[int, int]:
    """The integer that begins at a place, and the place after it.

    Raises:
        ValueError: None does.
    """
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError(f"an integer without an end at byte {at}")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def signed(value: Field) -> int:
    """An int64 of a varint."""
    number = value if isinstance(value, int) else 0
    number &= (1 << 64) - 1
    return number - (1 << 64) if number >> 63 else number


def message(value: Field) -> bytes:
    """The bytes of a field that should hold some.

    Raises:
        ValueError: It holds a number.
    """
    if isinstance(value, int):
        raise ValueError("a number in place of a message")
    return value


def text(value: Field) -> str:
    """The text of a field."""
    return message(value).decode("utf-8", "replace")


def doubles(values: bytes) -> list[float]:
    """A packed list of float64, or a single one.

    Raises:
        ValueError: The length is none.
    """
    if len(values) % 8:
        raise ValueError(f"{len(values)} bytes are no list of doubles")
    return list(struct.unpack(f"<{len(values) // 8}d", values))
