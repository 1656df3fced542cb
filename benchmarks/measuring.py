"""What the benchmarks share: interleaved timing, runs that are thrown away, child processes, and the printed table."""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar, final

from rich import box
from rich.console import Console
from rich.table import Table

from tracelet import BackendPlugin, Experiment, TraceletSettings

P = ParamSpec("P")
T = TypeVar("T")


@final
@dataclass(frozen=True, slots=True)
class Timing:
    """The medians of one case, in microseconds a call."""

    cpu_us: float
    wall_us: float

    def __str__(self) -> str:
        return f"{self.cpu_us:.2f} µs (wall {self.wall_us:.2f})"


@final
@dataclass(frozen=True, slots=True)
class Target:
    """A bound, and the figure that should keep it."""

    figure: float
    limit: float
    unit: str
    at_least: bool = False

    @property
    def is_met(self) -> bool:
        """Whether it does."""
        return self.figure >= self.limit if self.at_least else self.figure <= self.limit

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.limit:g} {self.unit}"


@final
@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table. A ratio says how many times more the peer takes or needs."""

    what: str
    figure: str
    peer: str = ""
    ratio: str = ""
    target: Target | None = None


def show(title: str, rows: Sequence[Row]) -> None:
    """Print a table."""
    table = Table("", "figure", "peer", "ratio", "target", "", title=title, box=box.SIMPLE, title_justify="left")
    for row in rows:
        verdict = "" if row.target is None else "met" if row.target.is_met else "MISSED"
        table.add_row(row.what, row.figure, row.peer, row.ratio, str(row.target or ""), verdict)
    Console(width=None if sys.stdout.isatty() else 130).print(table)


def compare(cases: Mapping[str, Callable[[int], object]], calls: int, repeats: int) -> dict[str, Timing]:
    """Time loops of `calls` calls each, in turns, so that whatever else the machine does hits all of them alike."""
    samples: dict[str, list[Timing]] = {name: [] for name in cases}
    for run in cases.values():
        run(calls)  # Not counted: files are made, code is specialised.
    for _ in range(repeats):
        for name, run in cases.items():
            wall_ns, cpu_ns = time.perf_counter_ns(), time.thread_time_ns()
            run(calls)
            cpu_ns, wall_ns = time.thread_time_ns() - cpu_ns, time.perf_counter_ns() - wall_ns
            samples[name].append(Timing(cpu_ns / calls / 1e3, wall_ns / calls / 1e3))
    return {
        name: Timing(statistics.median(t.cpu_us for t in timings), statistics.median(t.wall_us for t in timings))
        for name, timings in samples.items()
    }


@contextlib.contextmanager
def scratch_experiment(*backends: BackendPlugin, **settings: Any) -> Iterator[Experiment]:
    """A running experiment in a temporary directory, which waits for no backend when it stops."""
    log = logging.getLogger("tracelet")
    level = log.level
    log.setLevel(logging.CRITICAL)  # Dead and slow backends are what is measured here.
    try:
        with tempfile.TemporaryDirectory(prefix="tracelet-benchmark-") as directory:
            chosen = TraceletSettings(dir=directory, stop_timeout_s=0, show_progress=False, **settings)
            with Experiment("benchmark", backends, collectors=(), settings=chosen) as experiment:
                yield experiment
    finally:
        log.setLevel(level)


def in_new_process(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function where nothing has been loaded or allocated before."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *args, **kwargs).result()


def scaled(count: int, scale: float, least: int = 1) -> int:
    """A size, at this scale."""
    return max(least, round(count * scale))
