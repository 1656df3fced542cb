from __future__ import annotations

import os
from pathlib import Path

from tests.delivery.support import Delivery
from tracelet.core.records import MetricType
from tracelet.delivery.backlog import backlog
from tracelet.journal.directory import RunDirectory
from tracelet.journal.reader import JournalReader
from tracelet.journal.writer import JournalWriter


def test_backlog_is_what_a_reader_has_still_to_come(tmp_path: Path):
    run = RunDirectory.at(tmp_path, "delivery", "run1", "test")
    writer = JournalWriter(run, max_segment_bytes=4096)  # 128 records: several segments.
    writer.open()
    series = writer.define("loss")
    for step in range(1000):
        writer.append(series.key, step, 0.5)
        if step % 100 == 0:
            writer.write_record("note", "text", MetricType.TEXT, step=step)
    positions, left = {}, 1010
    assert left == backlog(run.path, positions)
    for name, entry in JournalReader(run):
        positions[name] = entry.after
        left -= entry.record is not None
        assert left == backlog(run.path, positions)
    assert 0 == left
    writer.close()
    assert 0 == backlog(run.path, positions)


def test_backlog_counts_every_writer(tmp_path: Path):
    with Delivery(tmp_path) as delivery:
        delivery.log(["a", "b"])
        second = JournalWriter(delivery.run, role="attached")
        second.append(second.define("c").key, 0, 1.0)
        assert 3 == backlog(delivery.run.path, {})
        second.close()


def test_backlog_of_what_cannot_be_read_is_empty(tmp_path: Path):
    assert 0 == backlog(tmp_path / "missing", {})
    with Delivery(tmp_path) as delivery:
        delivery.log(["a"])
        (delivery.run.path / f"{'0' * 32}.log").symlink_to(tmp_path / "nowhere")
        os.truncate(next(delivery.run.path.glob("*.seg")), 100)
        assert 0 == backlog(delivery.run.path, {})
