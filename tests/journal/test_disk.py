"""Disks that are full, gone, read-only or not what they seem: training goes on, and every loss is counted."""

from __future__ import annotations

import errno
import logging
import os
import resource
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.journal.support import file_size_limit, lines_of, log, new_run, new_writer, records_of, wait_until
from tracelet.core.records import MetricType
from tracelet.journal import supply
from tracelet.journal import writer as writing
from tracelet.journal.load import Run
from tracelet.journal.reader import JournalReader
from tracelet.journal.waiting import MAX_BYTES, MAX_LINES
from tracelet.journal.writer import JournalWriter


@pytest.fixture(autouse=True)
def short_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "_DISK_BACKOFF_S", 0.02)


def steps_of(path: Path, name: str = "loss") -> list[int | None]:
    """In the order in which the run shows them."""
    return Run(new_run(path).path).series(name).steps.tolist()


def eager(path: Path, **options: object) -> JournalWriter:
    return new_writer(path, sync_interval_s=0.01, **options)


def is_well_again(writer: JournalWriter) -> bool:
    return not writer._in_trouble


# -- full ------------------------------------------------------------------------------------------------------------


def test_where_files_may_not_grow_the_rest_waits_is_counted_and_goes_on_afterwards(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    writer, count = eager(tmp_path, mode="map"), 60_000
    with caplog.at_level(logging.WARNING), file_size_limit(64 << 10):  # Less than a segment.
        for step in range(count):
            log(writer, "loss", step, step / 8)
        writer.write_record("note", "x", MetricType.TEXT)
        assert writer._in_trouble
    assert 0 < writer.lost < count
    wait_until(lambda: is_well_again(writer))
    log(writer, "loss", count, 0.5)
    lost = writer.lost
    writer.close()
    run = Run(writer.run.path)
    assert lost == writer.lost == run.lost
    assert count + 2 - lost == len(run.series("loss")) + len(run.texts("note"))
    steps = run.series("loss").steps.tolist()
    assert sorted(set(steps)) == steps  # In order, none twice.
    assert count == steps[-1]
    assert 1 == len([message for message in caplog.messages if "cannot be written" in message])
    assert 1 == len([message for message in caplog.messages if "is written again" in message])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MiB."""
    point = tmp_path / "disk"
    point.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", point], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip("mounting needs the rights of root; the tests with a limit of the file size cover the same code")
    yield point
    subprocess.run(["umount", "--lazy", point], check=True)


@pytest.mark.parametrize("mode", ["map", "write"])
def test_a_full_disk_stops_nothing_and_when_it_has_room_again_the_gap_is_marked(small_disk: Path, mode: str):
    (small_disk / "other").write_bytes(bytes(3 << 20))
    writer, count = eager(small_disk, mode=mode), 80_000
    for step in range(count):
        log(writer, "loss", step, step / 8)
    assert writer._in_trouble
    (small_disk / "other").unlink()
    wait_until(lambda: is_well_again(writer) and not writer._waiting)
    log(writer, "loss", count, 0.5)
    lost = writer.lost
    assert 0 < lost
    writer.close()
    steps = steps_of(small_disk)
    assert count + 1 - lost == len(steps)
    assert sorted(set(steps)) == steps
    assert lost == sum(line["lost"] for line in lines_of(writer.run, "gap"))


def test_a_disk_that_is_full_from_the_start_costs_no_exception(small_disk: Path):
    (small_disk / "other").write_bytes(bytes((4 << 20) - 4096))
    writer = eager(small_disk)
    for step in range(100):
        log(writer, "loss", step, 0.0)
    writer.write_record("lr", 0.1, MetricType.PARAMETER)
    (small_disk / "other").unlink()
    wait_until(lambda: not writer._waiting)
    assert list(range(100)) == steps_of(small_disk)
    assert {"lr": 0.1} == Run(writer.run.path).params
    assert 0 == writer.lost


def test_while_the_disk_is_full_a_call_stays_cheap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Not timed: what takes time are system calls and JSON. It is left alone; and what can't wait is only counted."""
    writer = new_writer(tmp_path, sync_interval_s=3600.0)
    key = writer.define("loss").key
    writer._retry_at_s = time.monotonic() + 3600
    calls = []
    open_log, supply_next = writer._open_log, writer._supply.next
    writer._open_log = lambda: (calls.append("open"), open_log())  # type: ignore[method-assign]  # to count its calls
    writer._supply.next = lambda: (calls.append("next"), supply_next())[1]  # type: ignore[method-assign]  # to count its calls
    for step in range(MAX_LINES):
        writer.append(key, step, 0.0)
    with monkeypatch.context() as without_json:
        without_json.setattr(writing, "encode_line", calls.append)
        for step in range(500):
            writer.append(key, step, 0.0)
    assert [] == calls
    assert (MAX_LINES, 500) == (len(writer._waiting), writer.lost)


def test_what_waits_is_bounded_in_bytes_too(tmp_path: Path):
    writer = eager(tmp_path)
    writer._retry_at_s = time.monotonic() + 3600
    for _ in range(100):
        writer.write_record("text", "x" * (1 << 20), MetricType.TEXT)
    assert len(writer._waiting) <= (MAX_BYTES >> 20) + 1
    assert 100 == len(writer._waiting) + writer.lost


def test_a_line_that_was_torn_by_a_full_disk_is_written_again_as_a_whole(tmp_path: Path):
    writer = eager(tmp_path)
    with file_size_limit(1 << 20):
        for number in range(30):
            writer.write_record(f"text{number}", str(number) * (50 << 10), MetricType.TEXT)
        assert writer._in_trouble
    wait_until(lambda: is_well_again(writer))
    writer.write_record("last", "x", MetricType.TEXT)
    reader = JournalReader(writer.run)
    assert [f"text{number}" for number in range(30)] + ["last"] == [record.name for record in records_of(reader)]
    assert 0 < reader.damage.lines


def test_records_that_wait_at_the_end_count_as_lost(tmp_path: Path):
    (tmp_path / "runs").write_text("a file where a directory should be")
    writer = JournalWriter(new_run(tmp_path / "runs"))
    writer.open()
    log(writer, "loss", 0, 0.0)
    writer.write_record("lr", 0.1, MetricType.PARAMETER)
    writer.close()
    assert 2 == writer.lost


def test_what_was_lost_and_not_yet_said_the_close_says(tmp_path: Path):
    writer = new_writer(tmp_path)
    writer.lost = 5
    writer.close()
    assert 5 == Run(writer.run.path).lost


# -- a place that can't be written to --------------------------------------------------------------------------------


def test_a_place_that_becomes_usable_gets_everything_that_waited(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    place = tmp_path / "runs"
    place.write_text("a file where a directory should be")
    writer = eager(place)
    writer.write_record("lr", 0.1, MetricType.PARAMETER)  # Nothing but the keeper can find out that it is usable now.
    log(writer, "loss", 0, 1.0)
    place.unlink()
    wait_until(lambda: not writer._waiting)
    log(writer, "loss", 1, 2.0)
    assert [0, 1] == steps_of(place)
    assert {"lr": 0.1} == Run(writer.run.path).params
    assert 1 == len([message for message in caplog.messages if "cannot be written" in message])


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.EDQUOT, errno.ENOSPC, errno.EIO])
def test_an_error_of_the_place_reaches_no_log_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int):
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(writing, "open_new", refuse)
    writer = eager(tmp_path)
    for step in range(10):
        log(writer, "loss", step, 0.0)
    monkeypatch.undo()
    monkeypatch.setattr(writing, "_DISK_BACKOFF_S", 0.02)
    wait_until(lambda: not writer._waiting)
    assert list(range(10)) == steps_of(tmp_path)


def test_a_damaged_identity_reaches_no_log_call(tmp_path: Path):
    writer = JournalWriter(new_run(tmp_path))
    writer.run.path.mkdir(parents=True)
    (writer.run.path / "run.json").write_text("damaged")
    writer.open()
    log(writer, "loss", 0, 0.0)
    writer.close()
    assert 1 == writer.lost


def test_without_file_descriptors_records_wait(tmp_path: Path):
    writer = eager(tmp_path, max_segment_bytes=4096)
    log(writer, "loss", 0, 0.0)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        for step in range(1, 1000):
            log(writer, "loss", step, 0.0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    wait_until(lambda: not writer._waiting)
    log(writer, "loss", 1000, 0.0)
    assert list(range(1001)) == sorted(steps_of(tmp_path))
    assert 0 == writer.lost


def test_without_a_free_thread_records_are_written_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("threading.Thread.start", refuse)
    writer = new_writer(tmp_path, max_segment_bytes=4096)
    for step in range(500):
        log(writer, "loss", step, 0.0)
    writer.close()
    assert list(range(500)) == steps_of(tmp_path)


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.EINVAL])
def test_where_nothing_can_be_preallocated_nothing_is_mapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, caplog: pytest.LogCaptureFixture
):
    def refuse(*_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    writer = eager(tmp_path, mode="map")
    for step in range(100):
        log(writer, "loss", step, 0.0)
    (segment,) = writer.run.path.glob("*.seg")
    assert 4096 + 100 * 32 == segment.stat().st_size  # It grew by each record: no map.
    assert list(range(100)) == steps_of(tmp_path)
    assert [] == [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_on_a_network_filesystem_nothing_is_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(supply, "can_map", lambda _: False)
    monkeypatch.setattr(os, "posix_fallocate", lambda *_: pytest.fail("a map was made"))
    writer = eager(tmp_path)
    log(writer, "loss", 0, 0.0)
    assert [0] == steps_of(tmp_path)


# -- files that somebody else touches --------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["map", "write"])
def test_a_run_directory_that_is_removed_in_mid_run_comes_back(tmp_path: Path, mode: str):
    writer = new_writer(tmp_path, mode=mode, sync_interval_s=3600.0)
    log(writer, "loss", 0, 0.0)
    wait_until(lambda: writer._supply.is_ready)  # From now on the keeper rests, and the test does its work.
    before, identity = writer.id, writer.run.identity
    # Under another name first: the journal makes new files there while the tree is taken apart.
    shutil.rmtree(writer.run.path.rename(writer.run.path.with_name("removed")))
    writer.tend(heartbeat=False)
    log(writer, "loss", 1, 1.0)
    writer.write_record("lr", 0.1, MetricType.PARAMETER)
    writer.close()
    run = Run(writer.run.path)
    assert [1] == run.series("loss").steps.tolist()  # The name survived as well.
    assert {"lr": 0.1} == run.params
    assert identity == writer.run.identity
    assert [before] == [line["parent"] for line in lines_of(writer.run, "writer")]


def test_an_identity_that_is_removed_comes_back(tmp_path: Path):
    writer = eager(tmp_path)
    log(writer, "loss", 0, 0.0)
    (writer.run.path / "run.json").unlink()
    wait_until((writer.run.path / "run.json").exists)
    assert writer.run.identity.uuid == Run(writer.run.path).uuid


@pytest.mark.parametrize("pattern", ["*.log", "*.seg"])
def test_a_single_file_that_is_removed_is_noticed(tmp_path: Path, pattern: str):
    writer = eager(tmp_path)
    log(writer, "loss", 0, 0.0)
    before = writer.id
    next(writer.run.path.glob(pattern)).unlink()
    wait_until(lambda: writer.id != before and writer._log is not None)
    log(writer, "loss", 1, 1.0)
    writer.close()
    assert 1 == steps_of(tmp_path)[-1]


@pytest.mark.parametrize(("mode", "pattern"), [("write", "*.seg"), ("write", "*.log"), ("map", "*.log")])
def test_a_file_that_somebody_cuts_is_left_and_a_new_one_begun(tmp_path: Path, mode: str, pattern: str):
    writer = eager(tmp_path, mode=mode)
    log(writer, "loss", 0, 0.0)
    before = writer.id
    wait_until(lambda: writer._log_bytes > 0 and writer._segment is not None)
    writer._segment.is_intact()  # The keeper has seen it whole.
    os.truncate(next(writer.run.path.glob(pattern)), 0)
    wait_until(lambda: writer.id != before and writer._log is not None)
    log(writer, "loss", 1, 1.0)
    writer.write_record("lr", 0.1, MetricType.PARAMETER)
    writer.close()
    run = Run(writer.run.path)
    assert 1 == run.series("loss").steps[-1]
    assert {"lr": 0.1} == run.params


def test_lines_that_waited_when_files_were_begun_anew_cost_no_record(tmp_path: Path):
    """They say how far the scalars of the old files had come, which means nothing in the new ones."""
    writer = new_writer(tmp_path, sync_interval_s=3600.0)
    for step in range(1000):
        log(writer, "loss", step, 0.0)
    writer._retry_at_s = time.monotonic() + 3600
    writer.write_record("waited", 1, MetricType.PARAMETER)
    assert 1 == len(writer._waiting)
    writer._start_over("a test wants it")
    writer._retry_at_s = 0.0
    for step in range(1000, 1010):
        log(writer, "loss", step, 0.0)
    writer.close()
    records = records_of(writer.run)
    assert list(range(1010)) == [record.iteration for record in records if record.name == "loss"]
    assert ["waited"] == [record.name for record in records if record.type is MetricType.PARAMETER]
    assert [0, 0] == next(line["at"] for line in lines_of(writer.run, "record"))


def test_a_series_that_is_being_defined_when_files_are_begun_anew_keeps_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    writer = new_writer(tmp_path, sync_interval_s=3600.0)
    write_line = writer._write_line

    def write_and_meanwhile_the_keeper(line: bytes) -> bool:
        written = write_line(line)
        monkeypatch.undo()
        writer._start_over("a test wants it")
        return written

    monkeypatch.setattr(writer, "_write_line", write_and_meanwhile_the_keeper)
    log(writer, "loss", 0, 0.0)
    assert [0] == steps_of(tmp_path)


def test_a_device_error_is_reported_and_new_files_are_begun_but_not_every_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    failures = []

    def fail(_: int) -> None:
        failures.append(1)
        raise OSError(errno.EIO, "Input/output error")

    writer = eager(tmp_path)
    log(writer, "loss", 0, 0.0)
    before = writer.id
    monkeypatch.setattr(os, "fdatasync", fail)
    wait_until(lambda: writer.id != before and len(failures) > 5)
    log(writer, "loss", 1, 1.0)
    monkeypatch.undo()
    assert 2 == len(list(writer.run.path.glob("*.log")))
    assert [0, 1] == steps_of(tmp_path)
    assert ["the device reported"] == [m[m.index("the device") :][:19] for m in caplog.messages if "the device" in m]
