"""Writes the golden run of the current format version: `python -m tests.journal.golden.make_golden <directory>`.

Run once for a version, and never again: what it wrote must be readable for ever. `write_golden` is also what
test_golden.py compares today's writer with. All that differs between two runs (time, ids, the process) is fixed here.
"""

from __future__ import annotations

import itertools
import math
import sys
import uuid
from pathlib import Path
from unittest import mock

from tracelet.core.records import STATUS_NAME, TAG_PREFIX, MetricType
from tracelet.journal.directory import RunDirectory, RunIdentity
from tracelet.journal.format import RECORD_BYTES
from tracelet.journal.status import ProcessIdentity
from tracelet.journal.writer import JournalWriter

START_NS = 1_700_000_000_000_000_000
PROCESS = ProcessIdentity(4711, 123456, "00000000-0000-4000-8000-000000000000", "pid:[4026531836]", "host")


def write_golden(path: Path) -> None:
    """Write a small run of everything the format has: two segments, every kind of line, a second attempt."""
    times = itertools.count(START_NS, 10**9)
    run = RunDirectory(path, RunIdentity("c0ffee" + "0" * 26, "golden", "näme", "project", START_NS))
    with (
        mock.patch("tracelet.journal.writer._time_ns", times.__next__),
        mock.patch("time.time_ns", times.__next__),
        mock.patch("uuid.uuid4", side_effect=(uuid.UUID(int=number) for number in itertools.count(1))),
        mock.patch("os.getpid", return_value=PROCESS.pid),
        mock.patch("sys.argv", ["train.py"]),
        mock.patch.object(ProcessIdentity, "own", return_value=PROCESS),
    ):
        for attempt in (1, 2):
            writer = JournalWriter(run, attempt=attempt, mode="write", sync_interval_s=3600.0)
            _log(writer, attempt)
            writer.close()


def _log(writer: JournalWriter, attempt: int) -> None:
    loss = writer.define("train/loss")
    memory = writer.define(("memory", MetricType.SYSTEM, "system_collector"))
    assert loss is not None
    assert memory is not None
    writer.write_record("lr", 0.1 * attempt, MetricType.PARAMETER)
    for step, value in enumerate([0.5, math.nan, math.inf, -math.inf, -0.0]):
        writer.append(loss.key, step, value)
        writer.append_all({"train/loss": value}, -step)
        if step == attempt == 2:
            writer._segment._torn = True  # The second attempt has two segments.
    writer.write_record("train/loss", 2.5, MetricType.SCALAR, step=7, metadata={"exact": "5/2"})
    writer.write_record("note", "日本\ud800\0\n", MetricType.TEXT, step=7, source="golden")
    writer.append(memory.key, 2**63 - 1, 1e-300)
    writer._keep_scalar_as_line(
        (b"\0" * 16 + (START_NS).to_bytes(8, "little") + bytes([loss.key])).ljust(RECORD_BYTES, b"\0")
    )
    writer.write_record("model", "artifacts/model.pt", MetricType.ARTIFACT)
    writer.write_record("weights", {"edges": [0.0, math.inf], "counts": [3.0]}, MetricType.HISTOGRAM, step=0)
    writer.write_record(TAG_PREFIX + "team", "a", MetricType.CUSTOM)
    writer.append(99, 0, 1.0)  # A key that no line defines.
    writer.write_record(STATUS_NAME, "finished", MetricType.CUSTOM, metadata={"duration_s": 3.25})


if __name__ == "__main__":
    write_golden(Path(sys.argv[1]))
