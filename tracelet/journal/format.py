"""The bytes of a run directory: the only module that knows them. `docs/journal-format.md` is its specification.

A *writer* is one process (or one forked child) that logs into a run. It owns two kinds of file:

* segments `<writer>-000000.seg`: a 4,096-byte header, then scalar records of 32 bytes, little-endian:
  `f64 value | i64 step | i64 time_ns | u32 key | u32 crc32 of the first 28 bytes`. A slot of zeros was never written.
* a line log `<writer>.log`: one JSON object a line, framed as `crc32 in 8 hex digits | space | ASCII JSON | newline`.

Every line carries `at: [segment, slot]`: how far the scalars had come when it was written. So a reader can put lines
and scalars of one thread back into the order in which they were logged.
"""

from __future__ import annotations

import functools
import json
import math
import re
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, final

from tracelet.errors import CorruptJournalError, UnsupportedVersionError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FORMAT_VERSION: Final = 1
MAGIC: Final = b"TRACELET"
HEADER_BYTES: Final = 4096  # One page, so that the records are page-aligned.
RECORD_BYTES: Final = 32
EMPTY_SLOT: Final = bytes(RECORD_BYTES)
IDENTITY_FILE: Final = "run.json"

RECORD: Final = struct.Struct("<dqqI")
CRC: Final = struct.Struct("<I")
_FIELDS: Final = struct.Struct("<dqqI4x")
_HEADER: Final = struct.Struct("<8sII16s16sQqI")  # The CRC of all before it comes last.
_SEGMENT_NAME: Final = re.compile(r"([0-9a-f]{32})-([0-9]{6,})\.seg")
_LINE_START: Final = re.compile(rb'[0-9a-f]{8} \{"kind":')
_LOG_NAME: Final = re.compile(r"([0-9a-f]{32})\.log")


@final
@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """The first page of a segment file.

    Attributes:
        run: UUID of the run, 16 bytes.
        segment: UUID of the segment, 16 bytes.
        pid: The writing process.
        created_ns: Unix time in nanoseconds.
    """

    run: bytes
    segment: bytes
    pid: int
    created_ns: int

    def encode(self) -> bytes:
        """The header as `HEADER_BYTES` bytes."""
        fields = (MAGIC, FORMAT_VERSION, RECORD_BYTES, self.run, self.segment, self.pid, self.created_ns, 0)
        checked = _HEADER.pack(*fields)[: -CRC.size]
        return (checked + CRC.pack(zlib.crc32(checked))).ljust(HEADER_BYTES, b"\0")

    @classmethod
    def decode(cls, data: bytes, path: str) -> SegmentHeader:
        """Read a header.

        Raises:
            CorruptJournalError: `data` is no header of ours, or is damaged.
            UnsupportedVersionError: A newer Tracelet wrote it.
        """
        if len(data) < _HEADER.size or data[: len(MAGIC)] != MAGIC:
            raise CorruptJournalError(f"{path} is no Tracelet segment: it does not begin with {MAGIC!r}")
        _, version, record_bytes, run, segment, pid, created_ns, crc = _HEADER.unpack_from(data)
        # These fields stay where they are in every version, so that damage is not taken for a newer one.
        if zlib.crc32(data[: _HEADER.size - CRC.size]) != crc:
            raise CorruptJournalError(f"{path} has a damaged header")
        check_version(version, path)
        if record_bytes != RECORD_BYTES:
            raise CorruptJournalError(f"{path} has records of {record_bytes} bytes, which its version has not")
        return cls(run, segment, pid, created_ns)


def check_version(version: object, path: str) -> None:
    """Refuse a file of a newer format.

    Raises:
        UnsupportedVersionError: `version` is newer than `FORMAT_VERSION`.
        CorruptJournalError: `version` is no version.
    """
    if not isinstance(version, int) or version < 1:
        raise CorruptJournalError(f"{path} has the format version {version!r}, which is none")
    if version > FORMAT_VERSION:
        raise UnsupportedVersionError(
            f"{path} has format version {version}; this Tracelet reads up to {FORMAT_VERSION}. Upgrade with: "
            "pip install -U tracelet"
        )


# -- file names --------------------------------------------------------------------------------------------------------


def log_name(writer: str) -> str:
    """The file name of a writer's line log."""
    return f"{writer}.log"


def segment_name(writer: str, index: int) -> str:
    """The file name of a writer's segment number `index`."""
    return f"{writer}-{index:06d}.seg"


def writer_of_log(file_name: str) -> str | None:
    """The writer whose line log this is, or None."""
    match = _LOG_NAME.fullmatch(file_name)
    return match[1] if match else None


def writer_of_segment(file_name: str) -> tuple[str, int] | None:
    """The writer and the index of a segment, or None."""
    match = _SEGMENT_NAME.fullmatch(file_name)
    return (match[1], int(match[2])) if match else None


def segments_by_writer(file_names: Sequence[str]) -> dict[str, list[int]]:
    """The writers among the files of a run, and the indices of each one's segments, in the order of the names."""
    segments: dict[str, list[int]] = {writer: [] for name in file_names if (writer := writer_of_log(name))}
    for writer, index in filter(None, map(writer_of_segment, file_names)):
        segments.setdefault(writer, []).append(index)
    return segments


# -- scalar records ----------------------------------------------------------------------------------------------------


def encode_record(value: float, step: int, time_ns: int, key: int) -> bytes:
    """One scalar record.

    Raises:
        struct.error: `step`, `time_ns` or `key` is no integer or does not fit.
    """
    record = RECORD.pack(value, step, time_ns, key)
    return record + CRC.pack(zlib.crc32(record))


def are_whole(data: bytes) -> bool:
    """Whether these are whole records and nothing else, told by ONE checksum, at 2 GB/s.

    The CRC of a message that ends in its own CRC does not depend on the message. A record is such a message; so the CRC
    of n records depends on n alone. This finds whatever the CRC of each record would find, but for one damage in 2**32.
    """
    count, rest = divmod(len(data), RECORD_BYTES)
    return not rest and zlib.crc32(data) == _crc_of_whole(count)


def decode_slots(data: bytes) -> list[tuple[float, int, int, int] | None]:
    """`(value, step, time_ns, key)` of each slot, or None where a slot is empty, damaged or incomplete."""
    if are_whole(data):
        return list(_FIELDS.iter_unpack(data))
    slots = (data[start : start + RECORD_BYTES] for start in range(0, len(data), RECORD_BYTES))
    return [_FIELDS.unpack(slot) if are_whole(slot) else None for slot in slots]


def decode_records(data: bytes) -> tuple[NDArray[np.void], list[int]]:
    """The same for analysis: millions of records at once.

    Returns:
        A structured array with the fields `value` (f64), `step` (i64), `time_ns` (i64) and `key` (u32), shape (slots,),
        and the slots that are empty or damaged, ascending. A last piece shorter than a record is left out.
    """
    import numpy as np

    layout = np.dtype([("value", "<f8"), ("step", "<i8"), ("time_ns", "<i8"), ("key", "<u4"), ("crc", "<u4")])
    records = np.frombuffer(data, layout, count=len(data) // RECORD_BYTES)
    if are_whole(data):
        return records, []
    return records, [slot for slot, found in enumerate(decode_slots(data)[: len(records)]) if found is None]


def used_part(data: bytes) -> bytes:
    """The slots up to the last one that has anything in it."""
    return data[: -(-len(data.rstrip(b"\0")) // RECORD_BYTES) * RECORD_BYTES]


@functools.lru_cache(maxsize=64)
def _crc_of_whole(count: int) -> int:
    return zlib.crc32(encode_record(0.0, 0, 0, 0) * count)


# -- lines -------------------------------------------------------------------------------------------------------------


def encode_line(fields: Mapping[str, Any]) -> bytes:
    """One framed line. NaN and infinities become `{"__float__": "nan"}`, so that the JSON is valid everywhere."""
    try:
        text = json.dumps(fields, separators=(",", ":"), allow_nan=False)
    except ValueError:
        text = json.dumps(_without_non_finite(fields), separators=(",", ":"), allow_nan=False)
    body = text.encode("ascii")
    return b"%08x %s\n" % (zlib.crc32(body), body)


def decode_line(line: bytes) -> dict[str, Any] | None:
    """The object of one line (with or without its newline), or None where the line is damaged or incomplete."""
    body = line[9:].rstrip(b"\n")
    if line[8:9] != b" " or line[:8] != b"%08x" % zlib.crc32(body):
        return None
    try:
        fields = json.loads(body, object_hook=_restore_float)
    except (ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) else None


def decode_lines(data: bytes) -> Iterator[tuple[dict[str, Any] | None, int]]:
    """Each whole line of `data` and the offset of its end. A last piece without a newline is left out.

    A line that a full disk took half of has no newline of its own, so that the next one stands in the same row: the
    damaged piece gives None, and the whole one after it is found.
    """
    start = 0
    while (end := data.find(b"\n", start) + 1) > 0:
        line = data[start:end]
        fields = decode_line(line)
        yield fields, end
        if fields is None:
            for found in _LINE_START.finditer(line, 1):  # Never inside a string: there, JSON escapes the quotes.
                if (glued := decode_line(line[found.start() :])) is not None:
                    yield glued, end
        start = end


def _without_non_finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return {"__float__": repr(value)}
    if isinstance(value, Mapping):
        return {key: _without_non_finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_non_finite(item) for item in value]
    return value


def _restore_float(fields: dict[str, Any]) -> Any:
    if len(fields) == 1 and fields.get("__float__") in ("nan", "inf", "-inf"):
        return float(fields["__float__"])
    return fields
