"""Processes that are killed while they log. Run by test_crash.py in a process without site-packages.

That process has one thread. It forks a child for each kill, so that a child is up at once; the child makes its writer
after the fork, as a fresh process would. What has returned, the child notes in shared memory.
"""

from __future__ import annotations

import json
import mmap
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from tracelet.core.records import MetricType
from tracelet.journal.directory import RunDirectory, write_atomically
from tracelet.journal.writer import JournalMode, JournalWriter

LINE_EVERY = 40
ALIVE_S = 0.03
"""A child is killed at a random instant of this time; it takes about 5 ms to open its writer."""


def value_of(thread: int, step: int) -> float:
    return thread * 1e9 + step / 8


def log_for_ever(run: RunDirectory, returned: memoryview, threads: int, mode: JournalMode, segment_bytes: int) -> None:
    writer = JournalWriter(run, mode=mode, max_segment_bytes=segment_bytes)

    def work(thread: int) -> None:
        step = 0
        while True:
            series = writer.define(f"loss{thread}")
            assert series is not None
            writer.append(series.key, step, value_of(thread, step))
            if step % LINE_EVERY == 0:
                writer.write_record(f"note{thread}", f"{thread}:{step}", MetricType.TEXT, step=step)
                writer.write_record(f"param{thread}/{step}", step, MetricType.PARAMETER)
            step += 1
            returned[thread] = step

    for thread in range(1, threads):
        threading.Thread(target=work, args=(thread,), daemon=True).start()
    work(0)


def replace_for_ever(file: Path, returned: memoryview) -> None:
    count = 0
    while True:
        write_atomically(file, json.dumps({"count": count, "filling": "x" * 5000}))
        returned[0] = count
        count += 1


def kill_one(path: Path, delay_s: float, work: str, *arguments: Any) -> list[int]:
    shared = mmap.mmap(-1, 64)
    returned = memoryview(shared).cast("Q")
    child = os.fork()
    if child == 0:
        try:
            if work == "replace":
                replace_for_ever(path, returned)
            else:
                log_for_ever(RunDirectory.at(path, "project", "run1", "name"), returned, *arguments)
        finally:
            os._exit(1)
    time.sleep(delay_s)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL, "the child ended by itself"
    return list(returned)[:4]


def main(root: str, kills: str, seed: str, work: str, *arguments: str) -> None:
    chance = random.Random(int(seed))
    facts = {}
    for number in range(int(kills)):
        path = Path(root) / str(number)
        path.mkdir(parents=True)
        target = path / "cursor.json" if work == "replace" else path
        options = [int(text) if text.isdigit() else text for text in arguments]
        facts[str(number)] = kill_one(target, chance.uniform(0, ALIVE_S), work, *options)
    print(json.dumps(facts))


if __name__ == "__main__":
    main(*sys.argv[1:])
