from __future__ import annotations

import errno
import math
import os
import random
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from tests.journal.support import log, new_run, new_writer, records_of
from tracelet.core.records import DEFINE_PREFIX, STATUS_NAME, TAG_PREFIX, MetricType
from tracelet.errors import CorruptJournalError, RunNotFoundError
from tracelet.journal.directory import RunDirectory
from tracelet.journal.format import HEADER_BYTES, RECORD_BYTES, encode_line
from tracelet.journal.load import Run, find_run, list_runs
from tracelet.journal.reader import Damage, WriterReader
from tracelet.journal.writer import JournalWriter


def test_a_series_has_its_points_as_arrays(tmp_path: Path):
    writer = new_writer(tmp_path)
    for step in range(5):
        writer.append(writer.define("loss").key, step * 10, step / 4, time_ns=(step + 1) * 10**9)
    series = Run(writer.run.path).series("loss")
    assert ("loss", 5) == (series.name, len(series))
    assert (np.int64, np.float64, np.float64) == (series.steps.dtype, series.values.dtype, series.times_s.dtype)
    assert ([0, 10, 20, 30, 40], [0, 0.25, 0.5, 0.75, 1]) == (series.steps.tolist(), series.values.tolist())
    assert [1, 2, 3, 4, 5] == series.times_s.tolist()


@pytest.mark.parametrize("names", [1, 2, 300])
def test_segments_and_lines_of_many_series_come_together_in_the_order_of_logging(tmp_path: Path, names: int):
    """As the incremental reader, which is the simpler of the two, puts them together."""
    chance, writer = random.Random(names), new_writer(tmp_path, max_segment_bytes=700 * RECORD_BYTES)
    for step in range(20_000):
        name = f"series{chance.randrange(names)}"
        if chance.random() < 0.02:
            writer.write_record(name, float(step), MetricType.SCALAR, step=step)
        elif chance.random() < 0.02:
            writer._keep_scalar_as_line(b"".join([np.float64(step).tobytes(), np.int64([step, 5]).tobytes(),
                                                  np.uint32([writer.define(name).key, 0]).tobytes()]))  # fmt: skip
        else:
            log(writer, name, step, float(step))
    writer.close()
    expected = defaultdict(list)
    for record in records_of(writer.run):
        expected[record.name].append((record.iteration, record.value, record.timestamp))
    run = Run(writer.run.path)
    assert sorted(expected) == run.names()
    for name, points in expected.items():
        series = run.series(name)
        assert sorted(points) == points
        assert points == list(zip(series.steps, series.values, series.times_s, strict=True))


@pytest.mark.parametrize("block_slots", [8, 8192])
def test_damaged_slots_keep_lines_at_their_place_and_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_slots: int
):
    monkeypatch.setattr("tracelet.journal.columns._BLOCK_SLOTS", block_slots)
    writer = new_writer(tmp_path)
    for step in range(100):
        log(writer, "loss", step, float(step))
        if step % 10 == 9:
            writer.write_record("loss", step + 0.5, MetricType.SCALAR, step=step)
    writer.close()
    (segment,) = writer.run.path.glob("*.seg")
    data = bytearray(segment.read_bytes())
    for slot in (3, 17, 18, 19, 20, 55):
        data[HEADER_BYTES + slot * RECORD_BYTES] ^= 1
    data[HEADER_BYTES + 70 * RECORD_BYTES : HEADER_BYTES + 75 * RECORD_BYTES] = bytes(5 * RECORD_BYTES)
    segment.write_bytes(data)
    run = Run(writer.run.path)
    values = run.series("loss").values.tolist()
    assert [r.value for r in records_of(writer.run)] == values
    assert sorted(values) == values
    assert 110 - 11 == len(values)
    assert Damage(records=6, holes=5) == run.damage


def test_writers_come_one_after_the_other(tmp_path: Path):
    for attempt in (1, 2):
        writer = new_writer(tmp_path, attempt=attempt)
        for step in range(3):
            log(writer, "loss", step, float(attempt))
        log(writer, f"only{attempt}", 0, 0.0)
        writer.close()
    run = Run(writer.run.path)
    assert [0, 1, 2] * 2 == run.series("loss").steps.tolist()
    assert [1.0] * 3 + [2.0] * 3 == run.series("loss").values.tolist()
    assert ["loss", "only1", "only2"] == run.names()
    assert {"loss": (2, 2.0), "only1": (0, 0.0), "only2": (0, 0.0)} == run.latest()


def test_a_run_that_is_being_written_can_be_loaded(tmp_path: Path):
    writer = new_writer(tmp_path)
    for step in range(3000):
        log(writer, "loss", step, 0.0)
    assert list(range(3000)) == Run(writer.run.path).series("loss").steps.tolist()
    assert {"loss": (2999, 0.0)} == Run(writer.run.path).latest()


def test_latest_is_the_latest_by_time_of_lines_and_segments(tmp_path: Path):
    writer = new_writer(tmp_path)
    key = writer.define("loss").key
    for step in range(10):
        writer.append(key, step, float(step), time_ns=step * 10**9 + 1)
    writer.write_record("loss", 0.5, MetricType.SCALAR, step=3, time_ns=3 * 10**9)
    assert {"loss": (9, 9.0)} == Run(writer.run.path).latest()
    writer.write_record("loss", 0.5, MetricType.SCALAR, step=3, time_ns=30 * 10**9)
    assert {"loss": (3, 0.5)} == Run(writer.run.path).latest()
    assert 3 == Run(writer.run.path).last_step


def test_latest_looks_through_several_small_segments(tmp_path: Path):
    writer = new_writer(tmp_path, max_segment_bytes=10 * RECORD_BYTES)
    for name in ("a", "b", "c"):
        for step in range(25):
            log(writer, name, step, 0.0)
    assert {"a": (24, 0.0), "b": (24, 0.0), "c": (24, 0.0)} == Run(writer.run.path).latest()


def test_a_run_without_scalars_has_none(tmp_path: Path):
    writer = new_writer(tmp_path)
    writer.define("loss")
    run = Run(writer.run.path)
    assert (["loss"], [], {}, None) == (run.names(), run.series("loss").steps.tolist(), run.latest(), run.last_step)


def test_a_wrong_name_gets_a_hint(tmp_path: Path):
    writer = new_writer(tmp_path)
    log(writer, "train/loss", 0, 0.0)
    with pytest.raises(KeyError, match="did you mean 'train/loss'"):
        Run(writer.run.path).series("train/los")


def test_parameters_tags_texts_and_axes_are_those_logged_last(tmp_path: Path):
    writer = new_writer(tmp_path)
    for value in (0.1, math.nan):
        writer.write_record("lr", value, MetricType.PARAMETER)
    writer.write_record(TAG_PREFIX + "team", "a", MetricType.CUSTOM)
    writer.write_record(TAG_PREFIX + "team", "b", MetricType.CUSTOM)
    writer.write_record(DEFINE_PREFIX + "loss", {"step": "epoch"}, MetricType.CUSTOM)
    writer.write_record("note", "x", MetricType.TEXT, step=0)
    writer.write_record("note", "y", MetricType.TEXT)
    run = Run(writer.run.path)
    assert math.isnan(run.params["lr"])
    assert ({"team": "b"}, {"loss": "epoch"}) == (run.tags, run.step_metrics)
    assert [(0, "x"), (None, "y")] == run.texts("note")
    assert ["note", "note"] == [record.name for record in run.records(MetricType.TEXT)]
    assert ["note"] == run.names(MetricType.TEXT)


def test_steps_of_lines_beyond_64_bits_are_the_nearest_that_fits(tmp_path: Path):
    writer = new_writer(tmp_path)
    writer.write_record("loss", 1.0, MetricType.SCALAR, step=2**80)
    writer.write_record("loss", 1.0, MetricType.SCALAR, step=-(2**80))
    assert [2**63 - 1, -(2**63)] == Run(writer.run.path).series("loss").steps.tolist()


def test_the_frame_has_a_row_a_point(tmp_path: Path):
    pytest.importorskip("pandas")
    writer = new_writer(tmp_path)
    for step in range(3):
        log(writer, "a", step, 1.0)
        log(writer, "b", step, 2.0)
    run = Run(writer.run.path)
    assert ["name", "step", "value", "time_s"] == list(run.frame().columns)
    assert (6, 3) == (len(run.frame()), len(run.frame("b")))
    assert 0 == len(Run(new_writer(tmp_path / "empty").run.path).frame())


def test_hostile_lines_do_not_break_the_facts_of_a_run(tmp_path: Path):
    writer = new_writer(tmp_path)
    with (writer.run.path / f"{writer.id}.log").open("ab") as file:
        file.write(encode_line({"kind": "gap", "lost": "many"}))
        file.write(encode_line({"kind": "series", "key": [], "name": 3}))
        status = {"kind": "record", "type": "custom", "name": STATUS_NAME, "value": ["x"], "time_ns": 1}
        file.write(encode_line(status | {"metadata": [1]}))
    run = Run(writer.run.path)
    assert (0, None, []) == (run.lost, run.error, run.names())
    _ = run.status, run.duration_s


# -- finding runs ----------------------------------------------------------------------------------------------------


@pytest.fixture
def three_runs(tmp_path: Path) -> Path:
    for number, (project, run_id, name) in enumerate([("p", "abcd", "one"), ("p", "abef", "two"), ("q", "xyz", "two")]):
        run = RunDirectory.at(tmp_path, project, run_id, name)
        object.__setattr__(run.identity, "created_ns", number)
        run.ensure()
    return tmp_path


@pytest.mark.parametrize(
    ("reference", "project", "expected"),
    [
        ("abcd", None, "abcd"),
        ("abe", None, "abef"),
        ("one", None, "abcd"),
        ("latest", None, "xyz"),
        ("latest", "p", "abef"),
        ("two", "p", "abef"),
        ("xyz", "q", "xyz"),
    ],
)
def test_a_run_is_found_by_id_prefix_name_or_latest(
    three_runs: Path, reference: str, project: str | None, expected: str
):
    assert expected == find_run(reference, three_runs, project).id


def test_a_run_is_found_by_its_path(three_runs: Path):
    assert "abcd" == find_run(str(three_runs / "p" / "abcd"), "/nowhere").id


@pytest.mark.parametrize(
    ("reference", "match"),
    [("ab", "2 runs answer"), ("two", "2 runs answer"), ("abcf", "did you mean"), ("", "no run ''")],
)
def test_a_reference_that_means_no_run_or_several_says_so(three_runs: Path, reference: str, match: str):
    with pytest.raises(RunNotFoundError, match=match):
        find_run(reference, three_runs)


def test_an_empty_directory_says_how_to_name_another(tmp_path: Path):
    with pytest.raises(RunNotFoundError, match="--dir or TRACELET_DIR"):
        find_run("latest", tmp_path)


def test_a_damaged_run_hides_no_other(three_runs: Path):
    (three_runs / "p" / "abcd" / "run.json").write_text("damaged")
    assert ["xyz", "abef"] == [run.id for run in list_runs(three_runs)]
    with pytest.raises(CorruptJournalError):
        find_run(str(three_runs / "p" / "abcd"), three_runs)


# -- status: see also test_status.py ---------------------------------------------------------------------------------


def end(writer: JournalWriter, value: str, **metadata: object) -> Run:
    writer.write_record(STATUS_NAME, value, MetricType.CUSTOM, metadata=metadata)
    writer.close()
    return Run(writer.run.path)


def test_a_finished_run_says_how_long_it_ran(tmp_path: Path):
    run = end(new_writer(tmp_path), "finished", duration_s=12.5)
    assert ("finished", 12.5, None) == (run.status.value, run.duration_s, run.error)


def test_a_failed_run_says_why(tmp_path: Path):
    run = end(new_writer(tmp_path), "failed", error="ValueError: x")
    assert ("failed", "ValueError: x") == (run.status.value, run.error)


def test_a_resumed_run_runs_again(tmp_path: Path):
    end(new_writer(tmp_path), "failed", error="x")
    new_writer(tmp_path, attempt=2)
    run = Run(new_run(tmp_path).path)
    assert ("running", None, None) == (run.status.value, run.error, run.ended_s)


def test_a_run_without_a_log_was_killed_at_its_start(tmp_path: Path):
    run = new_run(tmp_path)
    run.ensure()
    assert "killed" == Run(run.path).status.value


def test_the_end_is_when_the_last_record_came(tmp_path: Path):
    writer = new_writer(tmp_path)
    at_ns = time.time_ns() + 10**10
    writer.append(writer.define("loss").key, 0, 0.0, time_ns=at_ns)
    run = end(writer, "finished")
    assert at_ns / 1e9 == pytest.approx(run.ended_s, abs=1e-6)
    assert 10 == pytest.approx(run.duration_s, abs=5)


def test_files_are_only_read(tmp_path: Path):
    run = end(new_writer(tmp_path), "finished")
    before = {path.name: path.stat().st_mtime_ns for path in run.path.iterdir()}
    _ = run.names(), run.latest(), run.params, run.status, run.frame()
    assert before == {name: os.stat(run.path / name).st_mtime_ns for name in os.listdir(run.path)}


def test_a_folder_and_a_link_where_a_log_should_be_are_none_of_ours(tmp_path: Path):
    writer = new_writer(tmp_path)
    log(writer, "loss", 0, 1.0)
    writer.close()
    (writer.run.path / f"{'0' * 32}.log").mkdir()
    (writer.run.path / f"{'1' * 32}.log").symlink_to(f"{'1' * 32}.log")
    (writer.run.path / f"{'2' * 32}-000000.seg").mkdir()
    run = Run(writer.run.path)
    assert (["loss"], [1.0], Damage()) == (run.names(), run.series("loss").values.tolist(), run.damage)
    assert ["loss"] == [record.name for record in records_of(writer.run)]


def test_a_log_that_cannot_be_read_is_left_out_and_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    writer = new_writer(tmp_path)
    log(writer, "loss", 0, 1.0)
    writer.close()

    def refuse(self: WriterReader) -> None:
        raise OSError(errno.EIO, "the device is gone")

    monkeypatch.setattr(WriterReader, "_read_lines", refuse)
    run = Run(writer.run.path)
    assert [] == run.names()
    assert [f"{writer.id}.log"] == run.damage.files
