from __future__ import annotations

import itertools
import json
import logging
import os
import random
import shutil
import threading
import tracemalloc
import zlib
from collections import Counter
from pathlib import Path

import pytest

from tests.journal.support import lines_of, log, new_run, new_writer, records_of
from tracelet.core.records import MetricData, MetricType
from tracelet.errors import CorruptJournalError, JournalError, UnsupportedVersionError
from tracelet.journal import format as bytes_of
from tracelet.journal import reader as reading
from tracelet.journal.format import HEADER_BYTES, RECORD_BYTES, encode_line
from tracelet.journal.load import Run
from tracelet.journal.reader import Damage, JournalReader, Position


def steps(records: list[MetricData], name: str = "loss") -> list[int | None]:
    return [record.iteration for record in records if record.name == name]


def segment_of(path: Path, index: int = 0) -> Path:
    return next(path.glob(f"*-{index:06d}.seg"))


def log_of(path: Path) -> Path:
    return next(path.glob("*.log"))


def append_line(path: Path, fields: dict[str, object]) -> None:
    with log_of(path).open("ab") as file:
        file.write(encode_line(fields))


@pytest.fixture
def logged(tmp_path: Path) -> Path:
    """A closed run with 300 scalars in three segments, and a text every 50."""
    writer = new_writer(tmp_path, max_segment_bytes=100 * RECORD_BYTES)
    for step in range(300):
        log(writer, "loss", step, step / 4)
        if step % 50 == 0:
            writer.write_record("note", f"at {step}", MetricType.TEXT, step=step)
    writer.close()
    return writer.run.path


def reader_of(path: Path, *arguments: object) -> JournalReader:
    return JournalReader(reading.RunDirectory.open(path), *arguments)


def test_lines_and_scalars_come_in_the_order_in_which_they_were_logged(logged: Path):
    records = records_of(reader_of(logged))
    assert list(range(300)) == steps(records)
    assert [f"at {s}" for s in range(0, 300, 50)] == [r.value for r in records if r.name == "note"]
    for before, record in itertools.pairwise(records):
        assert record.name != "note" or before.iteration == record.iteration


@pytest.mark.parametrize("cut", [0, 1, 99, 100, 101, 180, 302])
def test_reading_goes_on_from_any_position(logged: Path, cut: int):
    entries = list(reader_of(logged))
    writer, entry = entries[cut]
    rest = list(reader_of(logged, {writer: entry.after}))
    assert [e.record for _, e in entries[cut + 1 :]] == [e.record for _, e in rest]


@pytest.mark.parametrize("limit", [1, 7, 1000])
def test_no_more_than_asked_for_comes_at_once(logged: Path, limit: int):
    reader, sizes = reader_of(logged), []
    while batch := reader.read(limit):
        sizes.append(len(batch))
    assert 309 == sum(sizes)  # 306 records and the lines of the writer, the series and the close.
    assert max(sizes) <= limit


def test_a_run_that_is_being_written_at_full_speed_is_followed_without_a_gap(tmp_path: Path):
    writer, count = new_writer(tmp_path), 200_000
    key = writer.define("loss").key

    def work() -> None:
        for step in range(count):
            writer.append(key, step, 1.0)

    thread = threading.Thread(target=work)
    thread.start()
    reader, found = JournalReader(writer.run), []
    while thread.is_alive():
        found += [entry.record for _, entry in reader.read(4096)]
    writer.close()
    found += [entry.record for _, entry in reader]
    assert list(range(count)) == steps([record for record in found if record is not None])
    assert not reader.damage


def test_segments_that_come_while_the_first_one_is_looked_for_are_not_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    writer = new_writer(tmp_path)
    key, real, sought = writer.define("loss").key, reading.read_block, []

    def too_early(path: Path, slot: int, count: int) -> reading.Block:
        if sought:
            return real(path, slot, count)
        sought.append(path)
        for step in range(10_000):
            writer.append(key, step, 1.0)
        raise FileNotFoundError(path)

    monkeypatch.setattr(reading, "read_block", too_early)
    reader = JournalReader(writer.run)
    assert list(range(10_000)) == steps(records_of(reader))
    assert 1 < len(list(writer.run.path.glob("*.seg")))
    assert not reader.damage


def test_a_slot_that_was_filled_while_its_block_was_being_copied_is_no_hole(
    logged: Path, monkeypatch: pytest.MonkeyPatch
):
    """A page is copied, the writer fills it and goes on in the next one, and that is copied then."""
    torn = []

    def copy_torn(data: bytes) -> bytes:
        if not torn and len(data) > 6 * RECORD_BYTES:
            torn.append(True)
            data = data[: 4 * RECORD_BYTES] + bytes(2 * RECORD_BYTES) + data[6 * RECORD_BYTES :]
        return bytes_of.used_part(data)

    monkeypatch.setattr(reading, "used_part", copy_torn)
    reader = reader_of(logged)
    assert list(range(300)) == steps(records_of(reader))
    assert torn
    assert not reader.damage


def test_a_line_that_came_after_the_log_was_read_stays_before_the_scalar_that_followed_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    writer = new_writer(tmp_path)
    log(writer, "loss", 0, 0.0)
    real = reading.read_block

    def read_and_meanwhile_a_line(*arguments: object) -> reading.Block:
        monkeypatch.undo()
        writer.write_record("note", "x", MetricType.TEXT)
        log(writer, "loss", 1, 0.0)
        return real(*arguments)

    monkeypatch.setattr(reading, "read_block", read_and_meanwhile_a_line)
    assert ["loss", "note", "loss"] == [record.name for record in records_of(JournalReader(writer.run))]


def test_a_record_that_is_being_copied_is_left_for_later(tmp_path: Path):
    writer = new_writer(tmp_path)
    for step in range(3):
        log(writer, "loss", step, 0.0)
    reader = JournalReader(writer.run)
    path = segment_of(writer.run.path)
    whole = path.read_bytes()
    half = HEADER_BYTES + 2 * RECORD_BYTES + 10
    path.write_bytes(whole[:half] + bytes(len(whole) - half))
    assert [0, 1] == steps(records_of(reader))
    path.write_bytes(whole)
    assert [2] == steps(records_of(reader))
    assert not reader.damage


def test_a_line_that_is_being_written_is_left_for_later(tmp_path: Path):
    run = new_run(tmp_path)
    writer = new_writer(tmp_path)
    writer.write_record("a", 1, MetricType.PARAMETER)
    reader = JournalReader(writer.run)
    assert ["a"] == [record.name for record in records_of(reader)]
    line = encode_line({"kind": "record", "type": "parameter", "name": "b", "value": 2, "time_ns": 1})
    with log_of(run.path).open("ab", buffering=0) as file:
        file.write(line[:20])
        assert [] == list(reader)
        file.write(line[20:])
    assert ["b"] == [record.name for record in records_of(reader)]
    assert not reader.damage


# -- damage ----------------------------------------------------------------------------------------------------------


def test_a_bad_record_in_the_middle_is_skipped_and_counted(logged: Path):
    with segment_of(logged, 1).open("r+b") as file:
        file.seek(HEADER_BYTES + 5 * RECORD_BYTES)
        file.write(b"\xff")
    reader = reader_of(logged)
    assert [step for step in range(300) if step != 105] == steps(records_of(reader))
    assert Damage(records=1) == reader.damage


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_page_of_zeros_is_passed_over_and_counted(logged: Path, index: int):
    with segment_of(logged, index).open("r+b") as file:
        file.seek(HEADER_BYTES + 10 * RECORD_BYTES)
        file.write(bytes(20 * RECORD_BYTES))
    reader = reader_of(logged)
    gone = range(index * 100 + 10, index * 100 + 30)
    assert [step for step in range(300) if step not in gone] == steps(records_of(reader))
    assert Damage(holes=20) == reader.damage


def test_a_segment_that_stayed_empty_does_not_end_the_reading(tmp_path: Path):
    """Ctrl-C just after a segment got its name leaves one without records; the next one goes on."""
    slots = 10_000  # More than a block.
    writer = new_writer(tmp_path, max_segment_bytes=slots * RECORD_BYTES)
    log(writer, "loss", 0, 0.0)
    empty = writer._supply.next()
    writer._write = writer._segment.write = _full
    log(writer, "loss", 1, 0.0)
    assert [0, 1] == steps(records_of(JournalReader(writer.run)))
    empty.close()


def _full(_: bytes) -> int:
    raise ValueError


def test_records_behind_a_closed_writers_tail_that_was_cut_are_counted(logged: Path):
    os.truncate(segment_of(logged, 2), HEADER_BYTES + 90 * RECORD_BYTES)
    reader = reader_of(logged)
    entries = list(reader)
    assert list(range(290)) == steps([entry.record for _, entry in entries if entry.record])
    assert Damage(holes=10) == reader.damage
    assert Position(entries[-1][1].after.line_bytes, 2, 100) == entries[-1][1].after  # Nothing is left behind.


@pytest.mark.parametrize("content", [None, b"", b"GIF89a", b"TRACELET" + bytes(5000)])
def test_a_missing_or_foreign_segment_is_left_out_and_named(logged: Path, content: bytes | None):
    path = segment_of(logged, 1)
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    reader = reader_of(logged)
    assert [*range(100), *range(200, 300)] == steps(records_of(reader))
    assert [path.name] == reader.damage.files


def test_a_line_whose_position_is_beyond_all_segments_costs_no_record(tmp_path: Path):
    """So it can look where a run went on in new files, or where another host sees a file late."""
    writer = new_writer(tmp_path)
    log(writer, "loss", 0, 0.0)
    append_line(
        writer.run.path, {"kind": "record", "at": [7, 7], "type": "text", "name": "t", "value": "x", "time_ns": 1}
    )
    reader = JournalReader(writer.run)
    assert ["loss", "t"] == [record.name for record in records_of(reader)]
    log(writer, "loss", 1, 0.0)
    assert [1] == steps(records_of(reader))
    last = list(JournalReader(writer.run))[-1]
    log(writer, "loss", 2, 0.0)
    assert [2] == steps(records_of(JournalReader(writer.run, {last[0]: last[1].after})))


def test_a_key_without_a_definition_goes_by_its_number(tmp_path: Path):
    writer = new_writer(tmp_path)
    writer.append(77, 5, 1.5)
    (record,) = records_of(writer.run)
    assert ("key#77", 5, 1.5, MetricType.SCALAR) == (record.name, record.iteration, record.value, record.type)
    assert [1.5] == Run(writer.run.path).series("key#77").values.tolist()


def test_a_log_that_vanishes_stops_neither_this_writer_nor_the_others(tmp_path: Path):
    first, second = new_writer(tmp_path), new_writer(tmp_path, role="attached")
    reader = JournalReader(first.run)
    list(reader)
    for writer in (first, second):
        log(writer, "loss", 1, 0.0)
    removed = first.run.path / f"{first.id}.log"  # Its keeper may find that out at any moment, and go on in another.
    removed.unlink()
    assert 2 == len(records_of(reader))
    assert [removed.name] == reader.damage.files
    log(second, "loss", 2, 0.0)
    assert 1 == len(records_of(reader))


def test_what_was_read_before_an_error_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first, second = new_writer(tmp_path), new_writer(tmp_path, role="attached")
    for writer in (first, second):
        log(writer, "loss", 1, 0.0)
    away = second.run.path / f"{second.id}.log"
    original = os.fspath(away) + "~"
    reader = JournalReader(first.run)
    reader._find_writers()
    away.rename(original)
    away.mkdir()  # Opening it is an error of the disk.
    assert ["loss"] == [entry.record.name for _, entry in reader.read(10) if entry.record]
    with pytest.raises(IsADirectoryError):
        reader.read(10)
    away.rmdir()
    Path(original).rename(away)
    assert 1 == len(records_of(reader))


def test_an_error_in_mid_writer_loses_nothing(logged: Path, monkeypatch: pytest.MonkeyPatch):
    reader = reader_of(logged)
    real, calls = reading.read_block, Counter()

    def fails_at_times(path: Path, slot: int, count: int) -> reading.Block:
        calls[path] += 1
        if calls[path] == 1:
            raise OSError(5, "Input/output error")
        return real(path, slot, count)

    monkeypatch.setattr(reading, "read_block", fails_at_times)
    found: list[MetricData] = []
    for _ in range(20):
        try:
            found += [entry.record for _, entry in reader.read(1000) if entry.record]
        except OSError:
            continue
    assert 3 == len([path for path, count in calls.items() if count > 1])
    assert list(range(300)) == steps(found)


def test_a_newer_log_is_refused_every_time_and_left_untouched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tracelet.journal.writer.FORMAT_VERSION", 2)
    writer = new_writer(tmp_path)
    log(writer, "loss", 0, 0.0)
    writer.close()
    before = {path: path.read_bytes() for path in writer.run.path.iterdir()}
    reader = JournalReader(writer.run)
    for _ in range(2):
        with pytest.raises(UnsupportedVersionError, match="pip install -U tracelet"):
            reader.read(10)
    with pytest.raises(UnsupportedVersionError):
        _ = Run(writer.run.path).params
    assert before == {path: path.read_bytes() for path in writer.run.path.iterdir()}


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "parameter", "name": "x"},
        {"type": "nonsense", "name": "x", "value": 1, "time_ns": 1},
        {"type": "scalar", "name": "x", "value": "high", "time_ns": 1},
        {"type": "scalar", "name": "x", "value": 10**400, "time_ns": 1},
        {"type": "scalar", "name": "x", "value": 1, "time_ns": 10**400},
        {"type": "text", "name": "x", "value": "y", "time_ns": 1, "step": "three"},
    ],
)
def test_whole_lines_with_senseless_fields_are_counted(tmp_path: Path, fields: dict[str, object]):
    writer = new_writer(tmp_path)
    append_line(writer.run.path, {"kind": "record", "at": [0, 0], **fields})
    reader = JournalReader(writer.run)
    assert [] == records_of(reader)
    assert 1 == reader.damage.lines


@pytest.mark.parametrize("value", ["/etc/passwd", "../../secret", "link/secret", "a/../../../x", "\0"])
def test_a_path_that_leads_out_of_the_run_is_left_out(tmp_path: Path, value: str):
    writer = new_writer(tmp_path / "runs")
    (writer.run.path / "link").symlink_to(tmp_path)
    writer.write_record("model", value, MetricType.ARTIFACT)
    writer.write_record("good", "artifacts/model.pt", MetricType.ARTIFACT)
    reader = JournalReader(writer.run)
    assert [("good", f"{writer.run.path}/artifacts/model.pt")] == [(r.name, r.value) for r in records_of(reader)]
    assert 1 == reader.damage.lines


def test_an_endless_line_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reading, "_MAX_LINE_BYTES", 3 << 20)
    writer = new_writer(tmp_path)
    with log_of(writer.run.path).open("ab") as file:
        file.write(b"x" * (8 << 20) + b"\n")
    writer.write_record("a", 1, MetricType.PARAMETER)
    assert ["a"] == [record.name for record in records_of(JournalReader(writer.run))]


def test_a_big_backlog_is_read_with_little_memory(tmp_path: Path):
    writer = new_writer(tmp_path)
    key = writer.define("loss").key
    for _ in range(40):
        writer.write_record("text", "x" * (1 << 20), MetricType.TEXT)
    for step in range(100_000):
        writer.append(key, step, 0.0)
    for _ in range(40):
        writer.write_record("text", "x" * (1 << 20), MetricType.TEXT)
    writer.close()
    reader, names = JournalReader(writer.run), Counter()
    tracemalloc.start()
    while batch := reader.read(4096):
        names.update(entry.record.name for _, entry in batch if entry.record)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert {"loss": 100_000, "text": 80} == names
    assert peak_bytes < 20 << 20


# -- mutations -------------------------------------------------------------------------------------------------------


def mutate(data: bytes, chance: random.Random) -> bytes:
    a, b = sorted((chance.randrange(len(data)), chance.randrange(len(data))))
    size = chance.choice([1, 4, 32, 33, 500])
    match chance.choice(["flip", "cut", "zero", "double", "insert", "swap", "overwrite"]):
        case "flip":
            return data[:a] + bytes([data[a] ^ (1 << chance.randrange(8))]) + data[a + 1 :]
        case "cut":
            return data[:a] + (data[b:] if chance.random() < 0.5 else b"")
        case "zero":
            return data[:a] + bytes(min(size, len(data) - a)) + data[a + size :]
        case "double":
            return data[:b] + data[a:b] + data[b:]
        case "insert":
            return data[:a] + chance.randbytes(size) + data[a:]
        case "swap":
            return data[:a] + data[b : b + size] + data[a + size : b] + data[a : a + size] + data[b + size :]
        case _:
            return data[:a] + data[b : b + size] + data[a + size :]


def facts(record: MetricData) -> tuple[object, ...]:
    return record.name, record.value, record.iteration, record.timestamp


def test_3000_mutations_raise_nothing_and_invent_nothing(logged: Path, tmp_path: Path):
    chance = random.Random(11)
    names = sorted(name for name in os.listdir(logged) if name != "run.json")
    contents = {name: (logged / name).read_bytes() for name in names}
    all_facts = {facts(record) for record in records_of(reader_of(logged))}
    logged_facts = all_facts | {("key#1", *rest) for name, *rest in all_facts if name == "loss"}
    copy = tmp_path / "copy"
    shutil.copytree(logged, copy)
    unharmed = 0
    logging.disable(logging.WARNING)
    for _ in range(3000):
        name = chance.choice(names)
        (copy / name).write_bytes(mutate(contents[name], chance))
        found = {facts(record) for record in records_of(reader_of(copy))}
        assert found <= logged_facts
        unharmed += found == all_facts
        run = Run(copy)
        loaded = {(s.name, v, i) for s in map(run.series, run.names()) for v, i in zip(s.values, s.steps, strict=True)}
        assert loaded <= {fact[:3] for fact in logged_facts}
        assert {"note"} >= {record.name for record in run.records(MetricType.TEXT)}
        _ = run.status, run.latest(), run.duration_s, run.lost
        (copy / name).write_bytes(contents[name])
    assert 0 < unharmed < 1500  # Most mutations do harm, and none of what they spared is missing.
    logging.disable(logging.NOTSET)


def test_mutations_of_the_identity_raise_journal_errors_only(logged: Path):
    chance, file = random.Random(3), logged / "run.json"
    content = file.read_bytes()
    for _ in range(500):
        file.write_bytes(mutate(content, chance))
        try:
            Run(logged)
        except JournalError:
            continue


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1}', "[" * 100_000, '{"format": true}', "\x80"])
def test_an_identity_that_is_none_is_refused(logged: Path, text: str):
    (logged / "run.json").write_text(text, encoding="latin-1")
    with pytest.raises(CorruptJournalError):
        Run(logged)


@pytest.mark.parametrize(
    ("field", "value"), [("uuid", "x"), ("uuid", 3), ("run_id", None), ("created_ns", "now"), ("name", 1)]
)
def test_an_identity_with_a_wrong_field_names_it(logged: Path, field: str, value: object):
    fields = json.loads((logged / "run.json").read_text()) | {field: value}
    (logged / "run.json").write_text(json.dumps(fields))
    with pytest.raises(CorruptJournalError, match=field):
        Run(logged)


def test_lines_between_which_anything_can_happen_still_say_where_they_are(logged: Path):
    body = json.dumps({"kind": "record", "type": "text", "name": "z", "value": "", "time_ns": 1, "at": "?"}).encode()
    with log_of(logged).open("ab") as file:
        file.write(b"%08x %s\n" % (zlib.crc32(body), body))
    assert "z" == records_of(reader_of(logged))[-1].name


def test_all_writers_of_a_run_are_read_the_oldest_first(tmp_path: Path):
    first, second = new_writer(tmp_path), new_writer(tmp_path, attempt=2)
    log(second, "loss", 2, 0.0)
    log(first, "loss", 1, 0.0)
    assert [1, 2] == steps(records_of(first.run))
    assert [1, 2] == [line["attempt"] for line in lines_of(first.run, "writer")]
