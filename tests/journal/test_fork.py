"""Forked children: own files, no deadlock, nothing of the parent's touched."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
from collections import Counter, defaultdict
from pathlib import Path

from tests.journal.support import ROOT, lines_of, log, new_run, new_writer, records_of
from tracelet.core.records import MetricType
from tracelet.journal.load import Run
from tracelet.journal.reader import Damage, JournalReader
from tracelet.journal.writer import JournalWriter

FORKS = textwrap.dedent("""
    import os, sys, threading, json
    from pathlib import Path
    from tests.journal.support import new_writer, log
    from tracelet.core.records import MetricType

    writer = new_writer(Path(sys.argv[1]), max_segment_bytes=1 << 16)
    os.fdatasync = lambda _: None  # No process waits for the device here.
    sys.setswitchinterval(1e-4)  # So that a fork meets the other thread at every place.
    stop, counts = threading.Event(), [0, 0]

    def work(thread):
        while not stop.is_set():
            log(writer, f"loss{thread}", counts[thread], counts[thread] / 8)
            if counts[thread] % 20 == 0:
                writer.write_record(f"note{thread}", str(counts[thread]), MetricType.TEXT)
            counts[thread] += 1
            if counts[thread] > 50_000:
                stop.wait(1e-4)

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(2)]
    for thread in threads:
        thread.start()
    statuses = []
    for number in range(200):
        child = os.fork()
        if child == 0:
            try:
                if number % 4:  # A quarter never logs.
                    for step in range(20):
                        log(writer, f"child{number}", step, float(number))
                    writer.write_record(f"child{number}/text", "x", MetricType.TEXT)
                os._exit(0)  # As a data-loader worker ends: no close, no atexit.
            finally:
                os._exit(1)
        statuses.append(os.waitpid(child, 0)[1])
    stop.set()
    for thread in threads:
        thread.join()
    writer.close()
    print(json.dumps([statuses, counts, writer.lost]))
""")


def test_200_forks_while_two_other_threads_log(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-c", FORKS, tmp_path], capture_output=True, text=True, check=False, timeout=100, cwd=ROOT
    )
    assert 0 == done.returncode, done.stderr
    statuses, counts, lost = json.loads(done.stdout)
    assert [0] * 200 == statuses
    assert 0 == lost
    reader = JournalReader(new_run(tmp_path))
    points: dict[str, list[tuple[int | None, float]]] = defaultdict(list)
    roles: Counter[str] = Counter()
    for _, entry in reader:
        if entry.record is not None:
            points[entry.record.name].append((entry.record.iteration, entry.record.value))
        elif entry.line is not None and entry.line["kind"] == "writer":
            roles[entry.line["role"]] += 1
    assert Damage() == reader.damage
    for thread, count in enumerate(counts):
        assert [(step, step / 8) for step in range(count)] == points[f"loss{thread}"]
    for number in range(200):
        assert [(step, float(number)) for step in range(20 if number % 4 else 0)] == points[f"child{number}"]
    # Who logs has one log of its own; who does not has no file at all.
    assert {"main": 1, "child": 150} == roles
    assert 151 == len(list(reader.run.path.glob("*.log")))


def test_a_child_names_its_parent_and_starts_its_own_count(tmp_path: Path):
    writer = new_writer(tmp_path)
    log(writer, "loss", 0, 0.0)
    writer.lost = 3
    child = os.fork()
    if child == 0:
        fine = writer.lost == 0 and not writer.series
        log(writer, "loss", 1, 1.0)
        writer.close()
        os._exit(0 if fine else 1)
    assert 0 == os.waitpid(child, 0)[1]
    parent_line, child_line = lines_of(writer.run, "writer")
    assert (writer.id, "child") == (child_line["parent"], child_line["role"])
    assert (writer.id, "main") == (parent_line["writer"], parent_line["role"])
    assert 1 == len(lines_of(writer.run, "close"))  # The child's. The parent goes on.
    log(writer, "loss", 2, 2.0)
    assert [0, 1, 2] == sorted(r.iteration for r in records_of(writer.run))


def test_a_child_of_a_child_logs_too(tmp_path: Path):
    writer = new_writer(tmp_path)
    child = os.fork()
    if child == 0:
        log(writer, "loss", 1, 1.0)
        grandchild = os.fork()
        if grandchild == 0:
            log(writer, "loss", 2, 2.0)
            os._exit(0)
        os._exit(os.waitpid(grandchild, 0)[1])
    assert 0 == os.waitpid(child, 0)[1]
    assert [1, 2] == sorted(r.iteration for r in records_of(writer.run))


def test_a_child_of_a_closed_writer_stays_closed(tmp_path: Path):
    writer = new_writer(tmp_path)
    writer.close()
    child = os.fork()
    if child == 0:
        log(writer, "loss", 1, 1.0)
        os._exit(writer.lost)
    assert 1 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert 1 == len(list(writer.run.path.glob("*.log")))


def _work(path: Path, rank: int) -> None:
    writer = JournalWriter(new_run(path), role="attached", rank=rank)
    for step in range(100):
        log(writer, f"rank{rank}", step, float(rank))
    writer.write_record("done", rank, MetricType.PARAMETER)
    writer.close()


def test_ranks_that_are_spawned_share_one_run(tmp_path: Path):
    context = multiprocessing.get_context("spawn")
    ranks = [context.Process(target=_work, args=(tmp_path, rank)) for rank in range(3)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(60)
    assert [0, 0, 0] == [rank.exitcode for rank in ranks]
    run = Run(new_run(tmp_path).path)
    assert ["rank0", "rank1", "rank2"] == run.names()
    assert [100] * 3 == [len(run.series(name)) for name in run.names()]
    # They may have started at the same moment: there is one identity, and each one names it.
    assert {run.uuid} == {line["run"] for line in lines_of(new_run(tmp_path), "writer")}
    headers = [path.read_bytes()[16:32].hex() for path in run.path.glob("*.seg")]
    assert [run.uuid] * 3 == headers


def test_a_segfault_loses_nothing(tmp_path: Path):
    code = (
        "import ctypes, sys; from pathlib import Path; from tests.journal.support import new_writer, log\n"
        "writer = new_writer(Path(sys.argv[1]))\n"
        "for step in range(5000): log(writer, 'loss', step, 0.0)\n"
        "ctypes.string_at(0)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], cwd=ROOT, check=False, capture_output=True)
    assert -signal.SIGSEGV == done.returncode
    assert list(range(5000)) == [record.iteration for record in records_of(new_run(tmp_path))]
