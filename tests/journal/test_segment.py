from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.journal.support import file_size_limit
from tracelet.journal import segment as segments
from tracelet.journal.format import HEADER_BYTES, RECORD_BYTES, SegmentHeader, decode_slots, encode_record
from tracelet.journal.segment import CannotMapError, MappedSegment, Segment, WrittenSegment, filesystem_type

HEADER = SegmentHeader(b"r" * 16, b"s" * 16, 1, 2)
RECORD = encode_record(1.5, 1, 2, 3)


made: list[Segment] = []


def mapped(folder: Path, slots: int = 4) -> MappedSegment:
    segment = MappedSegment(folder, HEADER, slots * RECORD_BYTES)
    segment.publish(folder / "a.seg", 0)
    made.append(segment)
    return segment


def written(folder: Path) -> WrittenSegment:
    segment = WrittenSegment(folder / "a.seg", HEADER, 0)
    made.append(segment)
    return segment


@pytest.fixture(params=[mapped, written])
def segment(request: pytest.FixtureRequest, tmp_path: Path) -> Segment:
    return request.param(tmp_path)


@pytest.fixture(autouse=True)
def no_segment_stays_open() -> Iterator[None]:
    yield
    while made:
        with suppress(ValueError):  # Closed by the test.
            made.pop().close()


def test_what_was_written_can_be_read_at_once(segment: Segment, tmp_path: Path):
    segment.write(RECORD)
    data = (tmp_path / "a.seg").read_bytes()
    assert HEADER == SegmentHeader.decode(data, "a.seg")
    assert (1.5, 1, 2, 3) == decode_slots(data[HEADER_BYTES : HEADER_BYTES + RECORD_BYTES])[0]
    assert 1 == segment.slots()


def test_a_closed_segment_takes_nothing_holds_its_records_alone_and_knows_how_many(segment: Segment, tmp_path: Path):
    segment.write(RECORD * 2)
    segment.sync()
    segment.close()
    with pytest.raises(ValueError, match=r"closed|takes no more"):
        segment.write(RECORD)
    assert HEADER_BYTES + 2 * RECORD_BYTES == (tmp_path / "a.seg").stat().st_size
    assert 2 == segment.slots()


def test_files_are_private_and_nothing_temporary_stays(segment: Segment, tmp_path: Path):
    assert ["a.seg"] == os.listdir(tmp_path)
    assert 0o600 == stat.S_IMODE((tmp_path / "a.seg").stat().st_mode)


def test_a_removed_or_cut_file_is_noticed(segment: Segment, tmp_path: Path):
    segment.write(RECORD)
    assert segment.is_intact()
    os.truncate(tmp_path / "a.seg", 100)
    assert not segment.is_intact()
    os.remove(tmp_path / "a.seg")
    assert not segment.is_intact()


def test_a_full_map_refuses_a_record_or_a_group_as_a_whole(tmp_path: Path):
    segment = mapped(tmp_path, slots=2)
    segment.write(RECORD)
    with pytest.raises(ValueError, match="out of range"):
        segment.write(RECORD * 2)
    assert 1 == segment.slots()
    segment.write(RECORD)
    with pytest.raises(ValueError, match="out of range"):
        segment.write(RECORD)


def test_a_map_is_preallocated_and_never_sparse(tmp_path: Path):
    mapped(tmp_path, slots=10_000)
    found = (tmp_path / "a.seg").stat()
    assert found.st_blocks * 512 >= found.st_size == HEADER_BYTES + 10_000 * RECORD_BYTES


def test_a_record_that_comes_while_a_map_is_being_closed_is_kept(tmp_path: Path):
    segment = mapped(tmp_path)

    class Overtaken:
        """Another thread writes between the look at the end and the close."""

        def tell(self) -> int:
            end = inner.tell()
            segment.write(RECORD)
            return end

        def close(self) -> None:
            inner.close()

    inner, segment._map = segment._map, Overtaken()
    segment.close()
    assert HEADER_BYTES + RECORD_BYTES == (tmp_path / "a.seg").stat().st_size


def test_a_forked_child_closes_without_cutting(tmp_path: Path):
    segment = mapped(tmp_path)
    segment.close(trim=False)
    assert HEADER_BYTES + 4 * RECORD_BYTES == (tmp_path / "a.seg").stat().st_size


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF])
def test_a_filesystem_that_cannot_preallocate_says_so_and_keeps_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
):
    def refuse(*_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(CannotMapError):
        MappedSegment(tmp_path, HEADER, 64)
    assert [] == os.listdir(tmp_path)


def test_no_room_is_no_reason_to_do_without_a_map(tmp_path: Path):
    with file_size_limit(1 << 20), pytest.raises(OSError, match="File too large") as caught:
        MappedSegment(tmp_path, HEADER, 2 << 20)
    assert not isinstance(caught.value, CannotMapError)
    assert [] == os.listdir(tmp_path)


def test_a_torn_write_ends_a_segment(tmp_path: Path):
    segment = written(tmp_path)
    held = segment.write  # As the writer holds it.
    half_bytes = HEADER_BYTES + RECORD_BYTES // 2
    held(RECORD * 32768)
    with file_size_limit((1 << 20) + half_bytes), pytest.raises(OSError, match="No space left"):
        held(RECORD)
    with pytest.raises(ValueError, match="takes no more"):
        held(RECORD)
    slots = decode_slots((tmp_path / "a.seg").read_bytes()[HEADER_BYTES:])
    assert [None] == slots[-1:]
    assert None not in slots[:-1]


def test_a_link_where_a_file_should_come_is_not_followed(tmp_path: Path):
    (tmp_path / "secret").write_text("x")
    (tmp_path / "new").symlink_to(tmp_path / "secret")
    with pytest.raises(FileExistsError):
        segments.open_new(tmp_path / "new")
    assert "x" == (tmp_path / "secret").read_text()


MOUNTS = b"""22 1 0:20 / / rw - ext4 /dev/vda rw
23 22 0:21 / /data rw,relatime shared:5 - nfs4 server:/x rw
24 22 0:22 / /mnt/a\\040b rw - tmpfs tmpfs rw
25 22 0:23 / /mnt/\xc3\xa9t\xc3\xa9 rw - xfs /dev/sdb rw
26 22 0:24 / /over rw - ext4 /dev/sdc rw
27 26 0:25 / /over rw - btrfs /dev/sdd rw
"""


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/home/me", "ext4"),
        ("/data", "nfs4"),
        ("/data/runs", "nfs4"),
        ("/database", "ext4"),
        ("/mnt/a b/runs", "tmpfs"),
        ("/mnt/été", "xfs"),
        ("/over/runs", "btrfs"),
    ],
)
def test_the_filesystem_of_a_path_is_that_of_its_mount(monkeypatch: pytest.MonkeyPatch, path: str, expected: str):
    monkeypatch.setattr(Path, "read_bytes", lambda _: MOUNTS)
    monkeypatch.setattr(os.path, "realpath", os.fspath)
    assert expected == filesystem_type(Path(path))
    assert (expected in ("ext4", "tmpfs", "xfs")) == segments.can_map(Path(path))


def test_without_a_gil_nothing_is_mapped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(segments, "filesystem_type", lambda _: "ext4")
    assert segments.can_map(tmp_path)
    monkeypatch.setattr("sys._is_gil_enabled", lambda: False, raising=False)
    assert not segments.can_map(tmp_path)
