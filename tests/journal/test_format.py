from __future__ import annotations

import json
import math
import random
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracelet.errors import CorruptJournalError, UnsupportedVersionError
from tracelet.journal import format as bytes_of

RECORDS = [(0.25, 3, 1_700_000_000_000_000_000, 1), (-1e300, -(2**63), 0, 2**32 - 1), (0.0, 2**63 - 1, 5, 7)]
SLOTS = [bytes_of.encode_record(*record) for record in RECORDS]
HEADER = bytes_of.SegmentHeader(b"r" * 16, b"s" * 16, 4711, 1_700_000_000_000_000_000)


@given(st.floats(), st.integers(-(2**63), 2**63 - 1), st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**32 - 1))
def test_a_record_comes_back_bit_by_bit(value: float, step: int, time_ns: int, key: int):
    (fields,) = bytes_of.decode_slots(bytes_of.encode_record(value, step, time_ns, key))
    assert struct.pack("<d", fields[0]) == struct.pack("<d", value)
    assert fields[1:] == (step, time_ns, key)


def test_records_decode_alike_one_by_one_and_as_arrays():
    records, bad = bytes_of.decode_records(b"".join(SLOTS))
    assert RECORDS == bytes_of.decode_slots(b"".join(SLOTS))
    assert (RECORDS, []) == ([tuple(row)[:4] for row in records.tolist()], bad)


@pytest.mark.parametrize("bit", range(bytes_of.RECORD_BYTES * 8))
def test_a_flipped_bit_costs_its_own_record_only(bit: int):
    damaged = bytearray(b"".join(SLOTS))
    damaged[bytes_of.RECORD_BYTES + bit // 8] ^= 1 << bit % 8
    assert [RECORDS[0], None, RECORDS[2]] == bytes_of.decode_slots(bytes(damaged))
    assert [1] == bytes_of.decode_records(bytes(damaged))[1]


def test_one_checksum_finds_every_kind_of_damage_in_a_block():
    """As surely as the checksum of each record: `are_whole` must say yes exactly where all of them agree."""
    chance = random.Random(5)
    block = b"".join(bytes_of.encode_record(chance.random(), i, chance.getrandbits(60), i % 9) for i in range(200))
    assert bytes_of.are_whole(block)
    for _ in range(3000):
        a, b = sorted(chance.sample(range(len(block)), 2))
        size = min(b - a, chance.choice([1, 4, 28, 32, 64, 1000]))
        damaged = bytearray(block)
        match chance.randrange(4):
            case 0:
                damaged[a : a + size] = bytes(size)
            case 1:
                damaged[a : a + size], damaged[b : b + size] = damaged[b : b + size], damaged[a : a + size]
            case 2:
                damaged[a : a + size] = chance.randbytes(size)
            case _:
                damaged[a:a] = damaged[b : b + size]
        slots = (damaged[at : at + 32] for at in range(0, len(damaged), 32))
        each = all(len(slot) == 32 and zlib.crc32(slot[:28]) == int.from_bytes(slot[28:], "little") for slot in slots)
        assert each == bytes_of.are_whole(bytes(damaged))


def test_the_used_part_ends_with_the_last_slot_that_has_anything_in_it():
    empty = bytes_of.EMPTY_SLOT
    assert SLOTS[0] + empty + SLOTS[1] == bytes_of.used_part(SLOTS[0] + empty + SLOTS[1] + empty * 3)
    assert b"" == bytes_of.used_part(empty * 3)


# -- headers ---------------------------------------------------------------------------------------------------------


def test_a_header_comes_back():
    assert HEADER == bytes_of.SegmentHeader.decode(HEADER.encode(), "f")
    assert bytes_of.HEADER_BYTES == len(HEADER.encode())


@pytest.mark.parametrize("data", [b"", b"TRACELET", b"\0" * 4096, b"GIF89a" + b"\0" * 4090])
def test_what_is_no_header_is_refused(data: bytes):
    with pytest.raises(CorruptJournalError, match="f is no Tracelet segment"):
        bytes_of.SegmentHeader.decode(data, "f")


def test_every_flipped_bit_of_a_header_is_damage_and_never_a_newer_version():
    for bit in range(bytes_of._HEADER.size * 8):
        damaged = bytearray(HEADER.encode())
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CorruptJournalError):
            bytes_of.SegmentHeader.decode(bytes(damaged), "f")


def test_a_newer_version_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bytes_of, "FORMAT_VERSION", 2)
    newer = HEADER.encode()
    monkeypatch.undo()
    with pytest.raises(UnsupportedVersionError, match=r"format version 2.*pip install -U tracelet"):
        bytes_of.SegmentHeader.decode(newer, "f")


@pytest.mark.parametrize("version", [None, "1", 0, -1, 1.0])
def test_what_is_no_version_is_damage(version: object):
    with pytest.raises(CorruptJournalError, match="which is none"):
        bytes_of.check_version(version, "f")


# -- names -----------------------------------------------------------------------------------------------------------


def test_file_names_come_back():
    writer = "0123456789abcdef" * 2
    assert (writer, 12) == bytes_of.writer_of_segment(bytes_of.segment_name(writer, 12))
    assert (writer, 10**7) == bytes_of.writer_of_segment(bytes_of.segment_name(writer, 10**7))
    assert writer == bytes_of.writer_of_log(bytes_of.log_name(writer))


@pytest.mark.parametrize(
    "name",
    [
        "run.json",
        "x.log",
        "0" * 32 + ".log.tmp",
        "0" * 32 + "-1.seg",
        "0" * 32 + "-\u0660\u0660\u0660\u0660\u0660\u0660.seg",
    ],
)
def test_foreign_file_names_are_nobodys(name: str):
    assert bytes_of.writer_of_log(name) is None
    assert bytes_of.writer_of_segment(name) is None


# -- lines -----------------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner) | st.dictionaries(st.text().filter(lambda key: key != "__float__"), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.text().filter(lambda key: key != "__float__"), JSON))
def test_a_line_comes_back_and_is_strict_json_in_ascii(fields: dict[str, object]):
    line = bytes_of.encode_line(fields)
    assert fields == bytes_of.decode_line(line)
    assert line.isascii()
    assert line.endswith(b"\n")
    assert 1 == line.count(b"\n")
    json.loads(line[9:], parse_constant=pytest.fail)  # NaN and Infinity are no JSON.


def test_floats_that_json_has_not_come_back_from_any_depth():
    fields = {"a": math.nan, "b": [math.inf, {"c": -math.inf}], "d": (1.5, None)}
    back = bytes_of.decode_line(bytes_of.encode_line(fields))
    assert math.isnan(back.pop("a"))
    assert {"b": [math.inf, {"c": -math.inf}], "d": [1.5, None]} == back


@pytest.mark.parametrize("text", ["\ud800", "a\0b", "x" * 10_000, "\r\n\u2028", '{"kind":', "日本語"])
def test_any_text_comes_back(text: str):
    line = bytes_of.encode_line({text: text})
    assert [({text: text}, len(line))] == list(bytes_of.decode_lines(line))


def test_each_bit_of_a_line_is_guarded():
    line = bytes_of.encode_line({"kind": "record", "value": [1, "x"]})
    for bit in range((len(line) - 1) * 8):
        damaged = bytearray(line)
        damaged[bit // 8] ^= 1 << bit % 8
        assert bytes_of.decode_line(bytes(damaged)) is None


@pytest.mark.parametrize("line", [b"", b"\n", b"x", b"00000000 \n", b"deadbeef {}\n"])
def test_what_is_no_line_is_none(line: bytes):
    assert bytes_of.decode_line(line) is None


@pytest.mark.parametrize("body", [b"[1]", b"nonsense", b"[" * 100_000, b"9" * 5000])
def test_a_line_that_holds_no_object_is_none(body: bytes):
    assert bytes_of.decode_line(b"%08x %s\n" % (zlib.crc32(body), body)) is None


def test_a_last_line_without_its_end_is_left_for_later():
    whole, half = bytes_of.encode_line({"kind": "a"}), bytes_of.encode_line({"kind": "b"})[:-1]
    assert [({"kind": "a"}, len(whole))] == list(bytes_of.decode_lines(whole + half))


def test_the_line_after_a_torn_one_is_found():
    torn, whole = bytes_of.encode_line({"kind": "text", "value": "x" * 50})[:40], bytes_of.encode_line({"kind": "b"})
    assert [(None, len(torn + whole)), ({"kind": "b"}, len(torn + whole))] == list(bytes_of.decode_lines(torn + whole))


def test_a_line_that_hides_in_the_text_of_a_damaged_one_is_not_taken():
    hidden = bytes_of.encode_line({"kind": "forged"}).decode().strip()
    line = bytearray(bytes_of.encode_line({"kind": "text", "value": "x", "tail": hidden}))
    line[20] ^= 1
    assert [None] == [fields for fields, _ in bytes_of.decode_lines(bytes(line))]
