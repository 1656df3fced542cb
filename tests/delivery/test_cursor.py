from __future__ import annotations

import json
import logging
import math
import stat
from pathlib import Path

import pytest

from tests.delivery.support import scalar
from tracelet.core.records import MetricData, MetricType
from tracelet.delivery.cursor import CURSOR_FILE, REJECTED_FILE, Cursor
from tracelet.errors import RejectedError
from tracelet.journal.reader import Position

POSITION = Position(1234, 2, 17)


def saved(folder: Path) -> Cursor:
    cursor = Cursor(folder)
    cursor.advance("w1", POSITION)
    cursor.delivered, cursor.rejected = 40, 2
    cursor.save()
    return cursor


def test_positions_and_counts_are_kept(tmp_path: Path):
    saved(tmp_path / "acme")
    again = Cursor(tmp_path / "acme")
    assert ({"w1": POSITION}, 40, 2) == (again.positions, again.delivered, again.rejected)


def test_files_are_the_owners_alone(tmp_path: Path):
    saved(tmp_path / "acme").reject(scalar(), RejectedError("bad"))
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "acme").iterdir()}
    assert {CURSOR_FILE: 0o600, REJECTED_FILE: 0o600} == modes
    assert 0o700 == stat.S_IMODE((tmp_path / "acme").stat().st_mode)


def test_new_cursor_begins_at_the_start_without_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    assert {} == Cursor(tmp_path / "acme").positions
    assert [] == caplog.records


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b"\xff\xfe",
        b'{"delivered": 1, "rejected": 0}',
        b'{"delivered": 1, "rejected": 0, "positions": []}',
        b'{"delivered": 1, "rejected": 0, "positions": {"w1": [1, 2]}}',
        b'{"delivered": 1, "rejected": 0, "positions": {"w1": [1, 2, -3]}}',
        b'{"delivered": 1, "rejected": 0, "positions": {"w1": ["1", "2", "3"]}}',
        b'{"delivered": "x", "rejected": 0, "positions": {"w1": [1, 2, 3]}}',
        b'{"delivered": NaN, "rejected": 0, "positions": {"w1": [1, 2, 3]}}',
        b'{"delivered": 1e999, "rejected": 0, "positions": {"w1": [1, 2, 3]}}',
        b"[" * 100_000,
    ],
)
def test_damaged_cursor_begins_at_the_start_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
):
    (tmp_path / CURSOR_FILE).write_bytes(content)
    cursor = Cursor(tmp_path)
    assert ({}, 0, 0) == (cursor.positions, cursor.delivered, cursor.rejected)
    (record,) = caplog.records
    assert "everything is sent again" in record.getMessage()


def test_disk_that_takes_nothing_is_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "acme").write_text("a file where the directory should be")
    cursor = Cursor(tmp_path / "acme")
    with caplog.at_level(logging.DEBUG):
        cursor.save()
        cursor.reject(scalar("bad"), RejectedError("no"))
    assert 1 == cursor.rejected
    assert any("'bad' can't be noted" in record.getMessage() for record in caplog.records)


def test_rejected_record_is_kept_with_its_reason_as_valid_json(tmp_path: Path):
    cursor = Cursor(tmp_path)
    cursor.reject(MetricData("größe\n\ud800", math.nan, MetricType.SCALAR, 3, 1.5), RejectedError("no NaN here"))
    cursor.reject(MetricData("note", "x" * 100_000, MetricType.TEXT), ValueError("too long"))
    first, second = [
        json.loads(line, parse_constant=pytest.fail) for line in (tmp_path / REJECTED_FILE).read_text().splitlines()
    ]
    expected = {"name": "größe\n\ud800", "type": "scalar", "iteration": 3, "timestamp": 1.5, "value": "nan"}
    assert expected | {"reason": "RejectedError: no NaN here"} == {
        key: value for key, value in first.items() if key != "rejected_at"
    }
    assert len(second["value"]) <= 1000
