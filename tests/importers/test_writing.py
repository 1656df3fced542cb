from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tracelet.core.importer import Points, SourceRun
from tracelet.core.records import TAG_PREFIX, MetricData, MetricType
from tracelet.delivery.lease import Lease
from tracelet.errors import UsageError
from tracelet.importers.writing import import_run
from tracelet.journal.load import Run, list_runs
from tracelet.settings import TraceletSettings

KILLED = """
import sys
from pathlib import Path
from tests.importers.test_writing import source
from tracelet.importers.writing import import_run
from tracelet.settings import TraceletSettings
import_run(source(int(sys.argv[2])), "test", Path(sys.argv[1]), None, TraceletSettings.load())
"""


def points(start, stop, names=("a", "b")):
    steps = np.arange(start, stop)
    return Points(names, steps % len(names), steps, steps / 2, 1_700_000_000_000_000_000 + steps)


def source(blocks, size=5000, *more):
    def records():
        for block in range(blocks):
            yield points(block * size, (block + 1) * size)
            yield MetricData("note", f"text {block}", MetricType.TEXT, block, 1_700_000_000.0)
        yield from more

    return SourceRun("one", "one", records, created_s=1_700_000_000.0)


def bring(run, root, **more):
    return import_run(run, "test", root, None, TraceletSettings.load(), **more)


def assert_whole(run, blocks, size=5000):
    steps = np.concatenate([run.series("a").steps, run.series("b").steps])
    np.testing.assert_array_equal(np.sort(steps), np.arange(blocks * size))
    assert [text for _, text in run.texts("note")] == [f"text {block}" for block in range(blocks)]


def test_import_that_was_killed_goes_on_where_it_came_to(tmp_path):
    blocks, ends = 60, []
    for _ in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path / "runs"), str(blocks)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        before = size_of(tmp_path / "runs")
        while process.poll() is None and size_of(tmp_path / "runs") <= before + 200_000:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        ends.append(process.wait())
    assert -signal.SIGKILL in ends
    result = bring(source(blocks), tmp_path / "runs")
    assert result.known > 0
    assert_whole(Run(result.path), blocks)
    assert Run(result.path).status.value == "finished"


def size_of(root):
    return sum(path.stat().st_blocks * 512 for path in root.rglob("*.seg"))


def test_source_that_has_grown_adds_only_the_rest(tmp_path):
    first, second = bring(source(2), tmp_path), bring(source(3), tmp_path)
    assert (first.points, second.points, second.records) == (10_000, 5_000, 1)
    assert_whole(Run(first.path), 3)


def test_fact_that_has_changed_is_written_once_with_its_last_value(tmp_path):
    def facts(*values):
        tags = [MetricData(TAG_PREFIX + "stage", value, MetricType.CUSTOM) for value in values]
        return bring(source(1, 10, *tags, MetricData("lr", 0.1, MetricType.PARAMETER)), tmp_path)

    assert [facts("new", "old").records, facts("new", "old").records, facts("new", "older").records] == [5, 0, 1]
    (run,) = list_runs(tmp_path)
    assert run.tags["stage"] == "older"
    assert run.params == {"lr": 0.1}


def test_run_has_the_times_of_the_source(tmp_path):
    end = MetricData("tracelet/status", "failed", MetricType.CUSTOM, None, 1_700_000_060.0)
    run = Run(bring(source(1, 10, end), tmp_path).path)
    assert (run.created_s, run.duration_s, run.status.value) == (1_700_000_000.0, 60.0, "failed")
    assert run.tags["imported_from"] == "test"
    assert run.tags["imported_id"] == "one"


def test_dry_run_counts_and_writes_nothing(tmp_path):
    result = bring(source(2), tmp_path / "runs", dry_run=True)
    assert (result.points, result.records) == (10_000, 4)
    assert not (tmp_path / "runs").exists()
    bring(source(2), tmp_path / "runs")
    assert bring(source(2), tmp_path / "runs", dry_run=True).points == 0


def test_second_import_at_the_same_time_is_refused(tmp_path):
    result = bring(source(1), tmp_path)
    lease = Lease(result.path / "import")
    assert lease.acquire()
    with pytest.raises(UsageError, match="another process imports the run 'one'"):
        bring(source(2), tmp_path)
    lease.release()
    assert bring(source(2), tmp_path).points == 5000


def test_credentials_of_the_source_do_not_reach_the_disk(tmp_path):
    secret = "ghp_" + "A1b2C3d4E5f6G7h8I9j0" * 2
    for expected in (4, 0):  # The tags, the text, the parameter.
        result = bring(source(1, 10, MetricData("api_key", secret, MetricType.PARAMETER)), tmp_path)
        assert result.records == expected
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]


def test_memory_stays_flat_however_many_points_come(tmp_path):
    """The peak of an import of a million points is not above that of a tenth of them by more than a block's objects."""

    def peak_bytes(blocks):
        code = f"{KILLED}\nimport resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)"
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / str(blocks)), str(blocks)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            check=True,
            capture_output=True,
            text=True,
        )
        return int(done.stdout)

    assert peak_bytes(200) - peak_bytes(20) < 24 << 20
