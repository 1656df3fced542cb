"""SIGKILL at random instants: what was returned is on the disk, whole, and in its place."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.journal.crashing import LINE_EVERY, value_of
from tests.journal.support import ROOT
from tracelet.core.records import MetricType
from tracelet.journal.load import list_runs
from tracelet.journal.reader import Damage, JournalReader
from tracelet.journal.status import RunStatus


def kill(root: Path, kills: int, *arguments: object) -> dict[str, list[int]]:
    """How many records of each thread had returned, by the number of the kill."""
    command = [sys.executable, "-S", "-E", "-c", "import sys; sys.path.insert(0, sys.argv.pop(1)); "
               "from tests.journal.crashing import main; main(*sys.argv[1:])"]  # fmt: skip
    arguments = (root, kills, os.getpid(), *arguments)
    done = subprocess.run(
        [*command, ROOT, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=200
    )
    assert 0 == done.returncode, done.stderr
    facts: dict[str, list[int]] = json.loads(done.stdout)
    return facts


@pytest.mark.parametrize(
    ("kills", "threads", "mode", "segment_bytes"),
    [
        pytest.param(50, 1, "auto", 8 << 20, id="one thread"),
        pytest.param(50, 4, "auto", 8 << 20, id="four threads"),
        pytest.param(40, 1, "auto", 4096, id="one thread, small segments"),
        pytest.param(40, 4, "auto", 4096, id="four threads, small segments"),
        pytest.param(20, 2, "auto", 96, id="a new segment every three records"),
        pytest.param(20, 2, "write", 8 << 20, id="two threads, without a map"),
    ],
)
def test_no_returned_record_is_lost_torn_or_out_of_place(
    tmp_path: Path, kills: int, threads: int, mode: str, segment_bytes: int
):
    facts = kill(tmp_path, kills, "log", threads, mode, segment_bytes)
    logged = 0
    for number, returned in facts.items():
        runs = list_runs(tmp_path / number)
        logged += sum(returned)
        if not runs:  # Killed before the writer was open.
            assert [0] * 4 == returned
            continue
        (run,) = runs
        for thread in range(threads):
            count = returned[thread]
            if count == 0:
                continue
            series = run.series(f"loss{thread}")
            # The one in work when the kill came may be there, or not.
            assert count <= len(series) <= count + 1
            assert list(range(len(series))) == series.steps.tolist()
            assert [value_of(thread, step) for step in range(len(series))] == series.values.tolist()
            due = list(range(0, count, LINE_EVERY))
            texts = run.texts(f"note{thread}")
            assert [(step, f"{thread}:{step}") for step in due] == texts[: len(due)]
            assert due == [run.params[f"param{thread}/{step}"] for step in due]
        assert Damage() == run.damage
        assert run.status is RunStatus.KILLED
    assert logged > 10 * kills  # The kills did not all come before the first record.


def test_after_a_kill_delivery_reads_each_thread_in_its_order(tmp_path: Path):
    for number, returned in kill(tmp_path, 10, "log", 2, "auto", 4096).items():
        for run in list_runs(tmp_path / number):
            records = [entry.record for _, entry in JournalReader(run._directory) if entry.record is not None]
            for thread in range(2):
                steps, last = [], -1
                for record in records:
                    if record.name == f"loss{thread}":
                        steps.append(last := record.iteration)
                    elif record.type is MetricType.TEXT and record.name == f"note{thread}":
                        assert record.iteration == last
                assert list(range(len(steps))) == steps
                assert len(steps) >= returned[thread]


def test_a_file_that_is_replaced_is_always_whole(tmp_path: Path):
    for number, returned in kill(tmp_path, 50, "replace").items():
        file = tmp_path / number / "cursor.json"
        if file.exists():
            assert 0 <= json.loads(file.read_text())["count"] - returned[0] <= 1
        else:
            assert 0 == returned[0]
