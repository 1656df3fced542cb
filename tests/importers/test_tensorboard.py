from __future__ import annotations

import shutil
import struct

import numpy as np
import pytest
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.plugins.histogram.summary_v2 import histogram_pb
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from tests.importers.sources import LOSSES
from tracelet.core.records import MetricType
from tracelet.errors import UsageError
from tracelet.journal.load import Run


def write(folder, events):
    writer = EventFileWriter(str(folder))
    for event in events:
        writer.add_event(event)
    writer.close()
    return next(folder.glob("*tfevents*"))


def scalars(count, start=0):
    for step in range(start, start + count):
        event = Event(wall_time=1_700_000_000.5 + step, step=step)
        event.summary.value.add(tag="loss", simple_value=step / 2)
        yield event


def test_all_that_a_summary_writer_wrote_is_there(bring, tensorboard_folder):
    outer, inner = bring("tensorboard", tensorboard_folder / "run")
    run = Run(outer.path)
    assert run.name == "run"
    for name in ("train/loss", "new"):
        np.testing.assert_array_equal(run.series(name).values, np.float32(LOSSES))
        assert run.series(name).steps.tolist() == [0, 1, 2, 3]
    assert abs(run.series("new").times_s[0] - run.created_s) < 60
    (weights,) = run.records(MetricType.HISTOGRAM)
    assert sum(weights.value["counts"]) == 4
    assert (weights.value["edges"][0], weights.value["edges"][-1]) == (1.0, 4.0)
    (picture,) = run.records(MetricType.IMAGE)
    with open(picture.value, "rb") as file:
        assert file.read(4) == b"\x89PNG"
    assert run.texts("note") == [(3, "hello")]
    (tone,) = run.records(MetricType.AUDIO)
    assert tone.metadata["sample_rate_hz"] == 44100
    assert [(one.what, count) for one, count in outer.omitted.items()] == [("data of the plug-in 'pr_curves'", 1)]
    assert Run(inner.path).params == {"lr": 0.1, "optimizer": "adam", "nesterov": True}
    assert Run(inner.path).status.value == "finished"


def test_tensors_of_tensorflow_2_are_read(bring, tmp_path):
    def event(summary, step):
        return Event(wall_time=1_700_000_000.0, step=step, summary=summary)

    events = [event(scalar_pb("acc", 0.5), 7), event(text_pb("note", "hello"), 8)]
    events += [event(histogram_pb("weights", [1.0, 2.0, 2.0, 9.0], buckets=4), 9)]
    write(tmp_path / "tf2", events)
    run = Run(bring("tensorboard", tmp_path / "tf2")[0].path)
    assert run.series("acc").values.tolist() == [0.5]
    assert run.series("acc").steps.tolist() == [7]
    assert run.texts("note") == [(8, "hello")]
    (weights,) = run.records(MetricType.HISTOGRAM)
    assert weights.value["counts"] == [3.0, 0.0, 0.0, 1.0]
    assert weights.value["edges"] == [1.0, 3.0, 5.0, 7.0, 9.0]


def test_file_that_has_grown_brings_only_what_is_new(bring, tmp_path):
    file = write(tmp_path / "run", scalars(10))
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) * 2 // 3])  # In the middle of a record, as after a kill.
    (first,) = bring("tensorboard", tmp_path / "run")
    assert 0 < first.points < 10
    assert [one.what for one in first.omitted] == [f"the end of {file.name}"]
    file.write_bytes(whole)
    (second,) = bring("tensorboard", tmp_path / "run")
    assert (second.points, second.path) == (10 - first.points, first.path)
    run = Run(first.path)
    assert run.series("loss").steps.tolist() == list(range(10))
    np.testing.assert_allclose(run.series("loss").times_s, 1_700_000_000.5 + np.arange(10))


def test_second_writer_in_the_directory_is_the_same_run(bring, tmp_path):
    write(tmp_path / "run", scalars(5))
    (first,) = bring("tensorboard", tmp_path / "run")
    (file,) = (tmp_path / "run").iterdir()
    later = write(tmp_path / "later", scalars(5, start=5))
    shutil.move(later, file.with_name(file.name + ".later"))
    (second,) = bring("tensorboard", tmp_path / "run")
    assert (second.run_id, second.points) == (first.run_id, 5)
    assert Run(first.path).series("loss").steps.tolist() == list(range(10))


def test_older_file_that_grows_beside_a_newer_one_loses_nothing(bring, tmp_path):
    def note(file):
        return Event(wall_time=1_700_000_000.0, step=7, summary=text_pb("note", f"of the {file}"))

    older = write(tmp_path / "run", [*scalars(8), note("older")])
    newer = older.with_name(older.name + ".newer")
    shutil.move(write(tmp_path / "other", [*scalars(4, start=100), note("newer")]), newer)
    whole = {file: file.read_bytes() for file in (older, newer)}
    shares = [(1, 1), (2, 1), (2, 2), (3, 2), (3, 3)]  # Thirds of each file that are there, one import after the other.
    for thirds in shares:
        for (file, data), share in zip(whole.items(), thirds, strict=True):
            file.write_bytes(data[: len(data) * share // 3])
        (result,) = bring("tensorboard", tmp_path / "run")
    run = Run(result.path)
    assert sorted(run.series("loss").steps.tolist()) == [*range(8), *range(100, 104)]
    assert sorted(run.texts("note")) == [(7, "of the newer"), (7, "of the older")]
    (again,) = bring("tensorboard", tmp_path / "run")
    assert (again.points, again.records) == (0, 0)


def test_steps_that_a_restart_repeats_are_superseded(bring, tmp_path):
    restart = Event(wall_time=1_700_000_100.0, step=3, session_log=SessionLog(status=SessionLog.START))
    again = [*scalars(3, start=3)]
    for event in again:
        event.wall_time += 200
    write(tmp_path / "run", [*scalars(6), restart, *again])
    run = Run(bring("tensorboard", tmp_path / "run")[0].path)
    assert run.series("loss").steps.tolist() == [0, 1, 2, 3, 4, 5, 3, 4, 5]
    assert run.live("loss").steps.tolist() == [0, 1, 2, 3, 4, 5]
    assert run.live("loss").times_s[-1] > 1_700_000_200


def test_file_with_a_damaged_length_is_read_up_to_there(bring, tmp_path):
    file = write(tmp_path / "run", scalars(10))
    data = bytearray(file.read_bytes())
    at = 0
    for _ in range(6):  # The version, and five points.
        at += 16 + struct.unpack_from("<Q", data, at)[0]
    data[at] ^= 0xFF
    file.write_bytes(data)
    (result,) = bring("tensorboard", tmp_path / "run")
    assert result.points == 5
    assert [one.reason for one in result.omitted] == [f"the file is damaged at byte {at}"]


def test_foreign_and_empty_files_are_told(bring, tmp_path):
    (tmp_path / "events.out.tfevents.1.foreign").write_bytes(b"no event file at all" * 10)
    (result,) = bring("tensorboard", tmp_path / "events.out.tfevents.1.foreign")
    assert result.points == 0
    assert "damaged at byte 0" in next(iter(result.omitted)).reason
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no event files"):
        bring("tensorboard", tmp_path / "empty")


def test_link_that_leads_out_of_the_directory_is_not_followed(bring, tmp_path):
    secret = write(tmp_path / "elsewhere", scalars(3))
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / secret.name).symlink_to(secret)
    (tmp_path / "logs" / "more").symlink_to(secret.parent)
    with pytest.raises(UsageError, match="no event files"):
        bring("tensorboard", tmp_path / "logs")
