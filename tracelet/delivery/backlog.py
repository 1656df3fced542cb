"""How much of a journal a backend has not got yet: counted without decoding a record. Any thread."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from tracelet.journal.format import EMPTY_SLOT, HEADER_BYTES, RECORD_BYTES, writer_of_log, writer_of_segment
from tracelet.journal.reader import Position

_RECORD_MARKS = (b'"kind":"record"', b'"kind":"scalar"')


def backlog(directory: Path, positions: Mapping[str, Position]) -> int:
    """Records behind the positions, over all writers. A file that can't be read counts as empty.

    Args:
        directory: The run directory.
        positions: By writer; one that is missing here has not been read at all.
    """
    try:
        names = os.listdir(directory)
    except OSError:
        return 0
    count = 0
    for name in names:
        try:
            count += _behind(directory, name, positions)
        except OSError:  # Removed meanwhile.
            continue
    return count


def _behind(directory: Path, name: str, positions: Mapping[str, Position]) -> int:
    segment = writer_of_segment(name)
    writer = segment[0] if segment is not None else writer_of_log(name)
    if writer is None:
        return 0
    position = positions.get(writer, Position())
    with open(directory / name, "rb") as file:
        if segment is None:
            file.seek(position.line_bytes)
            return sum(any(mark in line for mark in _RECORD_MARKS) for line in file)
        if segment[1] < position.segment:
            return 0
        passed = position.slot if segment[1] == position.segment else 0
        return max(0, _used_slots(file) - passed)


def _used_slots(file: BinaryIO) -> int:
    """The number of the first empty slot, by bisection: slots are filled in order."""
    low, high = 0, max(0, os.fstat(file.fileno()).st_size - HEADER_BYTES) // RECORD_BYTES
    while low < high:
        middle = (low + high) // 2
        file.seek(HEADER_BYTES + middle * RECORD_BYTES)
        if file.read(RECORD_BYTES) == EMPTY_SLOT:
            high = middle
        else:
            low = middle + 1
    return low
