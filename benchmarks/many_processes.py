"""64 processes that log at the same time, each a run of its own in one directory, beside one process alone.

Each figure is the CPU time of a call in the logging thread; the median over the processes, which all wait for one
another before they begin. The wall time says little where there are more processes than processors. The peer writes a
row of a CSV file and flushes it, which keeps it as safely.
"""

from __future__ import annotations

import csv
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measuring import Row, Target, scaled, show

_PROCESSES = 64
_CALLS = 5_000
_PAUSES = 50  # Like a training, none logs all the time: the processes take turns at this grain.

Loop = Callable[[Path, int, Any], float]


def main(scale: float = 1.0) -> None:
    """Measure and print."""
    processes, calls = scaled(_PROCESSES, scale, 2), scaled(_CALLS, scale, 100)
    figures = {
        (name, count): _median_us(loop, calls, count)
        for name, loop in {"tracelet": _tracelet, "csv": _csv}.items()
        for count in (1, processes)
    }

    def row(name: str, what: str, target: bool = False) -> Row:
        alone, many = figures[name, 1], figures[name, processes]
        return Row(
            what,
            f"{many:.2f} µs",
            f"one process {alone:.2f} µs",
            f"{alone / many:.2f}",
            Target(many / alone, 1.25, "of one process's") if target else None,
        )

    show(
        f"A log call while {processes} processes log",
        [row("tracelet", "log_metric", True), row("csv", "csv.writer and flush")],
    )


def _median_us(loop: Loop, calls: int, count: int) -> float:
    context = multiprocessing.get_context("forkserver")  # Which imports what all of them need, once.
    context.set_forkserver_preload(["tracelet.core.experiment", "benchmarks.many_processes"])
    with tempfile.TemporaryDirectory(prefix="tracelet-benchmark-") as scratch:
        barrier, results = context.Barrier(count), context.SimpleQueue()
        started = [
            context.Process(target=_measured, args=(loop, Path(scratch), calls, barrier, results)) for _ in range(count)
        ]
        for process in started:
            process.start()
        times_s = [results.get() for _ in started]
        for process in started:
            process.join()
    return statistics.median(times_s) / calls * 1e6


def _measured(loop: Loop, scratch: Path, calls: int, barrier: Any, results: Any) -> None:
    results.put(loop(scratch, calls, barrier))


def _cpu_s(call: Callable[[int], object], calls: int, barrier: Any) -> float:
    """The CPU time of the calls in this thread, in seconds; less what the loop itself takes."""
    call(0)
    barrier.wait()
    total_s, part = 0.0, max(calls // _PAUSES, 1)
    for start in range(0, calls, part):
        begun_s = time.thread_time()
        for step in range(start, min(start + part, calls)):
            call(step)
        total_s += time.thread_time() - begun_s
        time.sleep(0.001)
    barrier.wait()
    return total_s


def _tracelet(scratch: Path, calls: int, barrier: Any) -> float:
    from tracelet import Experiment

    with Experiment("sweep", dir=scratch, collectors=()) as experiment:
        log_metric = experiment.log_metric
        return _cpu_s(lambda step: log_metric("loss", 0.5, step), calls, barrier)


def _csv(scratch: Path, calls: int, barrier: Any) -> float:
    with open(scratch / f"{os.getpid()}.csv", "w", newline="") as file:
        writer = csv.writer(file)

        def log(step: int) -> None:
            writer.writerow(["loss", step, 0.5, time.time()])
            file.flush()

        return _cpu_s(log, calls, barrier)


if __name__ == "__main__":
    main()
