from __future__ import annotations

import logging
import math
import random
import signal
import struct
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

from tests.journal.support import lines_of, log, new_run, new_writer, records_of, wait_until
from tracelet.core.records import MetricType
from tracelet.journal import segment as segments
from tracelet.journal import writer as writing
from tracelet.journal.load import Run
from tracelet.journal.reader import Damage, Entry, JournalReader
from tracelet.journal.writer import JournalWriter


@pytest.fixture
def frequent_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.fixture
def timer() -> Iterator[None]:
    """Puts the handler of SIGALRM back that was there before (pytest-timeout's)."""
    handler, rest_s = signal.getsignal(signal.SIGALRM), signal.setitimer(signal.ITIMER_REAL, 0)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, *rest_s)


# -- what a record becomes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["map", "write"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.0, 5e-324, 1.7976931348623157e308])
def test_every_float_comes_back_bit_by_bit(tmp_path: Path, mode: str, value: float):
    writer = new_writer(tmp_path, mode=mode)
    log(writer, "loss", 0, value)
    writer.write_record("loss", value, MetricType.SCALAR, step=1)
    writer._keep_scalar_as_line(struct.pack("<dqqII", value, 2, 1, writer.series["loss"].key, 0))
    found = [struct.pack("<d", record.value) for record in records_of(writer.run)]
    assert [struct.pack("<d", value)] * 3 == found
    assert found == [struct.pack("<d", number) for number in Run(writer.run.path).series("loss").values.tolist()]


@pytest.mark.parametrize("step", [0, -1, 2**63 - 1, -(2**63)])
def test_every_step_of_64_bits_comes_back(tmp_path: Path, step: int):
    writer = new_writer(tmp_path)
    log(writer, "loss", step, 1.0)
    writer.write_record("loss", 1.0, MetricType.SCALAR, step=step)
    assert [step, step] == [record.iteration for record in records_of(writer.run)]
    assert [step, step] == Run(writer.run.path).series("loss").steps.tolist()


@pytest.mark.parametrize("step", [2**63, 1.5, None, "1"])
def test_a_step_that_does_not_fit_is_the_callers_mistake_and_writes_nothing(tmp_path: Path, step: object):
    writer = new_writer(tmp_path)
    with pytest.raises(struct.error):
        log(writer, "loss", step, 1.0)  # type: ignore[arg-type]  # the mistake is what is tested
    assert [] == records_of(writer.run)


@pytest.mark.parametrize("name", ["", "a/b", "\ud800", "a\0b", "x" * 10_000, "../../x", "日本\n語", "<script>"])
def test_every_name_comes_back(tmp_path: Path, name: str):
    writer = new_writer(tmp_path)
    log(writer, name, 0, 1.0)
    writer.write_record(name, name, MetricType.TEXT)
    assert [name, name] == [record.name for record in records_of(writer.run)]
    run = Run(writer.run.path)
    assert ([name], [(None, name)], [1.0]) == (run.names(), run.texts(name), run.series(name).values.tolist())


def test_type_source_and_metadata_come_back(tmp_path: Path):
    writer = new_writer(tmp_path)
    series = writer.define(("gpu", MetricType.SYSTEM, "system_collector"))
    writer.append(series.key, 3, 0.5, time_ns=2_000_000_000)
    writer.write_record("x", [1, {"a": None}], MetricType.CUSTOM, time_ns=10**9, source="me", metadata={"why": [1]})
    system, custom = records_of(writer.run)
    assert (MetricType.SYSTEM, "system_collector", 2.0) == (system.type, system.source, system.timestamp)
    assert ([1, {"a": None}], "me", {"why": [1]}) == (custom.value, custom.source, custom.metadata)
    assert 1.0 == custom.timestamp


def test_a_group_of_scalars_shares_step_and_time(tmp_path: Path):
    writer = new_writer(tmp_path, max_segment_bytes=5 * 32)
    names = ["a", "b", "c"]
    for name in names:
        writer.define(name)
    for step in range(10):  # A group does not fit into a segment's rest, now and then.
        writer.append_all(dict.fromkeys(names, step / 2), step)
    records = records_of(writer.run)
    assert [(name, step) for step in range(10) for name in names] == [(r.name, r.iteration) for r in records]
    assert 10 == len({record.timestamp for record in records})


def test_a_group_may_hold_integers_that_a_float_can_hold(tmp_path: Path):
    writer = new_writer(tmp_path)
    writer.define("a"), writer.define("epoch")
    writer.append_all({"a": 0.5, "epoch": 2**53}, 7)
    assert [("a", 0.5), ("epoch", float(2**53))] == [(r.name, r.value) for r in records_of(writer.run)]


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"a": 1.0, "new": 1.0}, KeyError),
        ({"a": 1.0, "b": 2**53 + 1}, TypeError),
        ({"a": 1.0, "b": True}, TypeError),
        ({"a": 1.0, "b": "1"}, TypeError),
    ],
)
def test_a_group_that_is_not_good_as_a_whole_writes_nothing(tmp_path: Path, values: dict, error: type[Exception]):
    writer = new_writer(tmp_path)
    writer.define("a"), writer.define("b")
    with pytest.raises(error):
        writer.append_all(values, 0)
    assert [] == records_of(writer.run)


def test_a_series_is_defined_once_and_before_its_first_record(tmp_path: Path):
    writer = new_writer(tmp_path)
    assert writer.define("loss") is writer.define("loss")
    assert ["loss"] == [line["name"] for line in lines_of(writer.run, "series")]
    assert [0, 1, 2] == [writer.define("loss").next_step() for _ in range(3)]


def test_beyond_the_limit_of_series_records_are_kept_and_one_warning_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(writing, "MAX_SERIES", 10)
    writer = new_writer(tmp_path)
    with caplog.at_level(logging.WARNING):
        for number in range(50):
            log(writer, f"series{number}", 0, float(number))
    assert 10 == len(writer.series)
    assert {f"series{number}": (0, float(number)) for number in range(50)} == Run(writer.run.path).latest()
    assert 1 == len(caplog.messages)
    assert "10 series" in caplog.text


# -- life ------------------------------------------------------------------------------------------------------------


def test_nothing_touches_the_disk_before_the_first_record_or_open(tmp_path: Path):
    writer = JournalWriter(new_run(tmp_path / "runs"))
    writer.close()
    assert not (tmp_path / "runs").exists()
    JournalWriter(new_run(tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()


def test_the_first_record_opens(tmp_path: Path):
    writer = JournalWriter(new_run(tmp_path))
    writer.write_record("lr", 0.1, MetricType.PARAMETER)
    assert ["lr"] == [record.name for record in records_of(writer.run)]


def test_a_closed_writer_counts_what_still_comes(tmp_path: Path):
    writer = new_writer(tmp_path)
    log(writer, "loss", 0, 0.0)
    writer.close()
    writer.close()
    log(writer, "loss", 1, 0.0)
    writer.write_record("lr", 0.1, MetricType.PARAMETER)
    assert 2 == writer.lost
    assert [0] == [record.iteration for record in records_of(writer.run)]


def test_a_closed_run_takes_32_bytes_a_point_and_little_more(tmp_path: Path):
    writer, count = new_writer(tmp_path), 50_000
    key = writer.define("loss").key
    for step in range(count):
        writer.append(key, step, 0.0)
    writer.close()
    assert sum(path.stat().st_blocks * 512 for path in writer.run.path.iterdir()) < 40 * count
    assert {"json", "log", "seg"} == {path.suffix[1:] for path in writer.run.path.iterdir()}


def test_what_threads_still_log_while_it_closes_is_kept_or_counted(tmp_path: Path):
    for attempt in range(20):
        writer, counts = new_writer(tmp_path / str(attempt), max_segment_bytes=1 << 14), [0] * 2

        def work(thread: int, writer: JournalWriter = writer, counts: list[int] = counts) -> None:
            key = writer.define(f"loss{thread}").key
            while writer.lost < 100:
                writer.append(key, counts[thread], 0.0)
                counts[thread] += 1

        threads = [threading.Thread(target=work, args=(thread,)) for thread in range(2)]
        for thread in threads:
            thread.start()
        wait_until(lambda counts=counts: min(counts) > 500)
        writer.close()
        for thread in threads:
            thread.join()
        run = Run(writer.run.path)
        assert sum(counts) == sum(len(run.series(name)) for name in run.names()) + writer.lost


# -- threads and signals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["map", "write"])
def test_four_threads_and_a_signal_handler_log_while_a_reader_follows(
    tmp_path: Path, mode: str, frequent_switches: None, timer: None
):
    writer, count, signals = new_writer(tmp_path, mode=mode, max_segment_bytes=4096), 5000, [0]

    def log_one(name: str, step: int, chance: random.Random) -> None:
        if chance.random() < 0.05:
            writer.write_record(name, float(step), MetricType.SCALAR, step=step)
        else:
            log(writer, name, step, float(step))

    def handle(_signal: int, _frame: FrameType | None) -> None:
        step, signals[0] = signals[0], signals[0] + 1  # The next signal can come into the middle of this one.
        log_one("signal", step, random.Random(step))

    def work(thread: int) -> None:
        chance = random.Random(thread)
        for step in range(count):
            log_one(f"thread{thread}", step, chance)

    signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(3)]
    found: list[tuple[str, Entry]] = []
    reader = JournalReader(writer.run)

    def follow() -> None:
        while not done.is_set():
            found.extend(reader.read(500))

    done, follower = threading.Event(), threading.Thread(target=follow)
    for thread in (*threads, follower):
        thread.start()
    work(3)  # On the main thread, where the handler comes in between.
    for thread in threads:
        thread.join()
    signal.setitimer(signal.ITIMER_REAL, 0)
    done.set()
    follower.join()
    writer.close()
    found += reader
    run = Run(writer.run.path)
    for thread in range(4):
        name = f"thread{thread}"
        assert list(range(count)) == [e.record.iteration for _, e in found if e.record and e.record.name == name]
        assert list(range(count)) == run.series(name).steps.tolist()
    assert list(range(signals[0])) == sorted(run.series("signal").steps.tolist())
    assert 20 < signals[0]
    assert (Damage(), 0) == (reader.damage, writer.lost)
    for cut in random.Random(1).sample(range(len(found)), 5):
        rest = JournalReader(writer.run, {writer.id: found[cut][1].after})
        assert [e.record for _, e in found[cut + 1 :]] == [e.record for _, e in rest]


# Ctrl-C in the making of a file can leave it to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("mode", ["map", "write"])
def test_1500_interrupts_leave_no_hole_and_lose_nothing(tmp_path: Path, mode: str, timer: None):
    writer, interrupts, step, limit = new_writer(tmp_path, mode=mode, max_segment_bytes=4096), 0, 0, 750
    chance = random.Random(7)

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGALRM, interrupt)
    while interrupts < limit:
        try:
            signal.setitimer(signal.ITIMER_REAL, chance.uniform(5e-5, 1e-3))
            while True:
                log(writer, "loss", step, step / 8)
                if step % 10 == 0:
                    writer.write_record("note", str(step), MetricType.TEXT, step=step)
                step += 1
        except KeyboardInterrupt:
            interrupts += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
    writer.close()
    reader = JournalReader(writer.run)
    records = records_of(reader)
    # A call that was interrupted may have written its record; then the step comes twice, side by side.
    steps = [record.iteration for record in records if record.name == "loss"]
    assert list(range(step)) == sorted(set(steps))[:step]
    assert sorted(steps) == steps
    notes = [record.iteration for record in records if record.name == "note"]
    assert sorted(notes) == notes
    assert set(range(0, step, 10)) <= set(notes)
    assert all(record.value == record.iteration / 8 for record in records if record.name == "loss")
    assert (0, 0, 0) == (reader.damage.records, reader.damage.lines, writer.lost)


@pytest.mark.parametrize("mode", ["map", "write"])
def test_an_interrupt_in_the_making_of_a_file_is_in_nobodys_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
):
    """Ctrl-C comes when the file is there, and before anything can remove it."""
    real = segments.open_new
    writer = JournalWriter(new_run(tmp_path), mode=mode)

    def make_and_interrupt(path: Path) -> object:
        monkeypatch.undo()
        real(path).close()
        raise KeyboardInterrupt

    for module, action in ((writing, writer.open), (segments, lambda: log(writer, "loss", 0, 0.0))):
        monkeypatch.setattr(module, "open_new", make_and_interrupt)
        with pytest.raises(KeyboardInterrupt):
            action()
    log(writer, "loss", 1, 0.0)
    assert [1] == [record.iteration for record in records_of(writer.run)]
    assert {} == {line["kind"]: line for line in lines_of(writer.run, "scalar")}


def test_two_threads_that_define_a_series_at_once_share_it(tmp_path: Path, frequent_switches: None):
    writer, barrier, found = new_writer(tmp_path), threading.Barrier(4), []

    def work() -> None:
        barrier.wait()
        for number in range(200):
            series = writer.define(f"series{number}")
            writer.append(series.key, 0, 1.0)
            found.append(series.key)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 200 == len(set(found))
    run = Run(writer.run.path)
    assert [4] * 200 == [len(run.series(f"series{number}")) for number in range(200)]


def test_a_log_call_does_not_wait_for_a_thread_that_is_making_a_segment(tmp_path: Path):
    writer = new_writer(tmp_path)
    log(writer, "loss", 0, 0.0)
    writer._write = writer._segment.write = _full
    with writer._growing:  # Another thread is at it, and hangs.
        log(writer, "loss", 1, 0.0)
    log(writer, "loss", 2, 0.0)
    assert [0, 1, 2] == [record.iteration for record in records_of(writer.run)]
    assert ["scalar"] == [line["kind"] for line in lines_of(writer.run, "scalar")]


def _full(_: bytes) -> int:
    raise ValueError


def test_a_line_before_the_first_segment_is_whole_stays_before_its_scalars(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Another thread has the first segment under its name, and has not said so yet."""
    writer = new_writer(tmp_path)
    key = writer.define("loss").key
    supplied = writer._supply.next

    def next_and_meanwhile_a_line() -> object:
        segment = supplied()
        writer.write_record("note", "before", MetricType.TEXT)
        return segment

    monkeypatch.setattr(writer._supply, "next", next_and_meanwhile_a_line)
    writer.append(key, 0, 0.0)
    assert ["note", "loss"] == [record.name for record in records_of(writer.run)]
    assert [0, 0] == lines_of(writer.run, "record")[0]["at"]


def test_the_next_segment_is_ready_before_it_is_needed(tmp_path: Path):
    writer = new_writer(tmp_path, mode="map", max_segment_bytes=4096)
    log(writer, "loss", 0, 0.0)
    wait_until(lambda: writer._supply._spare is not None)
    spare = writer._supply._spare
    for step in range(1, 200):
        log(writer, "loss", step, 0.0)
    assert "-000001.seg" in str(spare._path)


def test_the_heartbeat_touches_the_log(tmp_path: Path):
    import os

    writer = new_writer(tmp_path, heartbeat_s=0.0, sync_interval_s=0.005)
    path = writer.run.path / f"{writer.id}.log"
    os.utime(path, (1, 1))
    wait_until(lambda: path.stat().st_mtime > 1)
