"""Where delivery should run: in a thread of the training's process, or in a process of its own.

A training step computes for about 2 ms, half of it without the GIL as numpy does and half in Python, and logs ten
metrics. What is timed is the step with its log call. The cases are no backend, and a real MLflow server on the same
machine with each `delivery`. Each trains in a new process, in turns: for three seconds, in which delivery imports
MLflow and opens the run, and then for some more.

On two cores the training, the server and the delivery share them, so the server's work is a part of what a step loses
with either hosting: the two are to be compared with each other. A thread adds to it what it takes by the GIL, which a
computing thread keeps for up to 5 ms when another one wants it.

The first record is looked for in the server's database. The end is all that comes after the last step: what waits is
delivered, and `stop()` returns. The peak of memory is that of the resident set. Figures are medians over the rounds.
"""

from __future__ import annotations

import concurrent.futures
import os
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple, final

import numpy as np

from benchmarks.measuring import Row, Target, in_new_process, scaled, show
from benchmarks.trackers import check, points_in_mlflow, settings_for
from tests.backends.mlflow_server import MlflowServer
from tracelet import Experiment
from tracelet.delivery.report import DeliveryReport
from tracelet.journal.directory import delivery_directory

_ROUNDS = 3
_BEGIN_S = 3.0
_STEADY_S = 2.5
_NUMBERS = 120_000  # 1 ms for numpy.
_LOOPS = 25_000  # 1 ms for Python.
_METRICS = 10
_POLL_S = 0.02
_START_LIMIT_S = 1.0
_LONGEST_S = 600.0
_NO_BACKEND = "no backend"
_CASES: Final = (_NO_BACKEND, "thread", "process")


@final
class Training(NamedTuple):
    """What one training showed. Of steps: median, mean and 99th percentile in milliseconds."""

    began_s: float  # By the monotonic clock, which all processes share.
    start_s: float
    begin_ms: tuple[float, float, float]
    steady_ms: tuple[float, float, float]
    stop_s: float  # From the last step on.
    memory_mb: float
    delivery_memory_mb: float  # Of the process that delivers, where it is another one.
    steps: int
    first_record_s: float = 0.0  # After the beginning of `start()`.


def main(scale: float = 1.0) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="tracelet-benchmark-") as folder, MlflowServer(Path(folder)) as server:
        measure(server, scale)


def measure(server: MlflowServer, scale: float) -> None:
    """Measure on a server that runs already."""
    rounds = [
        {case: _observed(server, case, _BEGIN_S * scale, _STEADY_S * scale) for case in _CASES}
        for _ in range(scaled(_ROUNDS, scale))
    ]

    def middle(case: str, figure: Callable[[Training], float]) -> float:
        return statistics.median(figure(found[case]) for found in rounds)

    def of_steps(when: str, figures: Callable[[Training], Sequence[float]]) -> Iterator[Row]:
        columns = {
            case: [
                statistics.median(column) for column in zip(*(figures(found[case]) for found in rounds), strict=True)
            ]
            for case in _CASES
        }
        told = {case: "{:.2f} / {:.2f} / {:.1f} ms".format(*column) for case, column in columns.items()}
        ratios = (process / thread for thread, process in zip(columns["thread"], columns["process"], strict=True))
        yield Row(f"step, {when}, no backend", told[_NO_BACKEND])
        yield Row(f"step, {when}", told["thread"], told["process"], " / ".join(f"{ratio:.2f}" for ratio in ratios))

    def of_run(what: str, figure: Callable[[Training], float], limit_s: float | None = None) -> Row:
        thread_s, process_s = middle("thread", figure), middle("process", figure)
        target = None if limit_s is None else Target(max(thread_s, process_s), limit_s, "s")
        return Row(what, f"{thread_s:.2f} s", f"{process_s:.2f} s", f"{process_s / thread_s:.2f}", target)

    own_mb = {case: middle(case, lambda found: found.memory_mb) for case in _CASES}
    other_mb = middle("process", lambda found: found.delivery_memory_mb)
    show(
        f"A training that sends {_METRICS} metrics a step to MLflow, the figure: in a thread, the peer: in a process",
        [
            *of_steps("first seconds", lambda found: found.begin_ms),
            *of_steps("then", lambda found: found.steady_ms),
            of_run("start()", lambda found: found.start_s, _START_LIMIT_S),
            of_run("start to the first record in MLflow", lambda found: found.first_record_s),
            of_run("last step to the end of stop()", lambda found: found.stop_s),
            Row("peak memory, no backend", f"{own_mb[_NO_BACKEND]:.0f} MB"),
            Row("peak memory", f"{own_mb['thread']:.0f} MB", f"{own_mb['process']:.0f} + {other_mb:.0f} MB"),
        ],
    )


def _observed(server: MlflowServer, case: str, begin_s: float, steady_s: float) -> Training:
    """A training, with the time at which the server has its first record."""
    name = uuid.uuid4().hex
    with concurrent.futures.ThreadPoolExecutor(1) as observer:
        first_record = None if case == _NO_BACKEND else observer.submit(_wait_for_record, server, name)
        training = in_new_process(_train, server.uri, case, name, begin_s, steady_s)
        if first_record is None:
            return training
        check(points_in_mlflow(server, name), training.steps * _METRICS)
        return training._replace(first_record_s=first_record.result(_LONGEST_S) - training.began_s)


def _wait_for_record(server: MlflowServer, name: str) -> float:
    deadline_s = time.monotonic() + _LONGEST_S
    while not points_in_mlflow(server, name) and time.monotonic() < deadline_s:
        time.sleep(_POLL_S)
    return time.monotonic()


def _train(server_uri: str, case: str, name: str, begin_s: float, steady_s: float) -> Training:
    with tempfile.TemporaryDirectory(prefix="tracelet-benchmark-") as directory:
        settings = settings_for(directory, server_uri, delivery="thread" if case == _NO_BACKEND else case)
        experiment = Experiment(name, () if case == _NO_BACKEND else "mlflow", collectors=(), settings=settings)
        began_s = time.monotonic()
        experiment.start()
        started_s = time.monotonic()
        begin_ms = _steps_ms(experiment, 0, started_s + begin_s)
        steady_ms = _steps_ms(experiment, len(begin_ms), started_s + begin_s + steady_s)
        trained_s = time.monotonic()
        experiment.flush(_LONGEST_S)  # Then the process is there, and has done its work.
        own_mb = _peak_mb(os.getpid())
        pid = None if case == _NO_BACKEND else DeliveryReport.read(delivery_directory(experiment.run_dir, "mlflow")).pid
        delivery_mb = 0.0 if pid in (None, os.getpid()) else _peak_mb(pid)
        experiment.stop()
        return Training(
            began_s=began_s,
            start_s=started_s - began_s,
            stop_s=time.monotonic() - trained_s,
            begin_ms=_summed_up(begin_ms),
            steady_ms=_summed_up(steady_ms),
            memory_mb=own_mb,
            delivery_memory_mb=delivery_mb,
            steps=len(begin_ms) + len(steady_ms),
        )


def _steps_ms(experiment: Experiment, first: int, until_s: float) -> list[float]:
    """Train until a time of the monotonic clock, one step at least."""
    numbers = np.linspace(0.0, 1.0, _NUMBERS)
    names = [f"train/metric{series}" for series in range(_METRICS)]
    found: list[float] = []
    while not found or time.monotonic() < until_s:
        began_ns = time.perf_counter_ns()
        loss = float(np.sin(numbers)[-1])
        for number in range(_LOOPS):
            loss += number
        experiment.log_metrics(dict.fromkeys(names, loss), first + len(found))
        found.append((time.perf_counter_ns() - began_ns) / 1e6)
    return found


def _summed_up(steps_ms: Sequence[float]) -> tuple[float, float, float]:
    ordered = sorted(steps_ms)
    return statistics.median(ordered), statistics.fmean(ordered), ordered[int(len(ordered) * 0.99)]


def _peak_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


if __name__ == "__main__":
    main()
