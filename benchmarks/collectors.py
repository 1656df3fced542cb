"""What the collectors cost a training: the busy loop with all of them at an interval of a second, beside without.

The loop computes in plain Python and logs a value a step, which is the worst case: each moment that a collector holds
the interpreter is taken from it. So what the collectors' threads compute is what the loop loses, and is the figure, as
a share of the loop's CPU time from when the first readings are over. The step itself stands beside it, in turns with
and without, each in a run of its own: it shows what the machine's caches add, and the machine's own changes of some
percent from one turn to the next. The second table has the readings alone, as CPU time.
"""

from __future__ import annotations

import logging
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple, final

from benchmarks.measuring import Row, Target, scaled, show
from tracelet import Experiment
from tracelet.collectors import DEFAULTS
from tracelet.collectors.environment_collector import EnvironmentCollector
from tracelet.collectors.git_collector import GitCollector
from tracelet.collectors.system_collector import SystemCollector
from tracelet.core.plugins import CollectorPlugin
from tracelet.settings import TraceletSettings

_TURNS: Final = 8
_TURN_S: Final = 4.0
_SLICE_S: Final = 0.3
_MAX_SLICES: Final = 20
_READINGS: Final = 100
_LIMIT_PERCENT: Final = 1.0


@final
class _Turn(NamedTuple):
    """Microseconds a step, the collectors' share, and milliseconds at the run's two ends."""

    cpu_us: float
    wall_us: float
    share_percent: float
    start_ms: float
    stop_ms: float


def main(scale: float = 1.0) -> None:
    """Measure and print."""
    log = logging.getLogger("tracelet")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with tempfile.TemporaryDirectory(prefix="tracelet-benchmark-") as directory:
            _show_training(Path(directory), scale)
            _show_readings(Path(directory), scaled(_READINGS, scale, 3))
    finally:
        log.setLevel(level)


def _show_training(directory: Path, scale: float) -> None:
    turns: dict[str, list[_Turn]] = {"none": [], "all": []}
    for number in range(scaled(_TURNS, scale, 2)):
        for name in sorted(turns, reverse=number % 2 == 0):
            turns[name].append(_turn(directory, tuple(DEFAULTS) if name == "all" else (), scale))
    without, collecting = (
        _Turn(*(statistics.median(column) for column in zip(*turns[name], strict=True))) for name in ("none", "all")
    )
    more = [100 * (a.cpu_us / b.cpu_us - 1) for a, b in zip(turns["all"], turns["none"], strict=True)]
    spread = f"{statistics.median(more):+.1f} % (from {min(more):+.1f} to {max(more):+.1f})"
    share = collecting.share_percent
    rows = [
        Row("what all collectors compute", f"{share:.2f} %", target=Target(share, _LIMIT_PERCENT, "%")),
        Row("a step, without", f"{without.cpu_us:.2f} µs (wall {without.wall_us:.2f})"),
        Row("a step, all collectors each second", f"{collecting.cpu_us:.2f} µs (wall {collecting.wall_us:.2f})"),
        Row("… from turn to turn", spread),
        Row("start(), without", f"{without.start_ms:.1f} ms"),
        Row("start(), all collectors", f"{collecting.start_ms:.1f} ms"),
        Row("stop(), without", f"{without.stop_ms:.1f} ms"),
        Row("stop(), all collectors", f"{collecting.stop_ms:.1f} ms"),
    ]
    show("Collectors: a training that is busy in Python", rows)


def _turn(directory: Path, collectors: tuple[str, ...], scale: float) -> _Turn:
    settings = TraceletSettings(dir=directory, collect_interval_s=1.0, show_progress=False)
    experiment = Experiment("benchmark", collectors=collectors, settings=settings)
    began_s = time.perf_counter()
    experiment.start()
    start_s = time.perf_counter() - began_s
    clocks = [
        time.pthread_getcpuclockid(thread.ident)
        for thread in threading.enumerate()
        if thread.ident is not None and thread.name.removeprefix("tracelet-") in collectors
    ]
    taken_s = _first_readings(experiment, clocks)
    cpu_s, wall_s = time.thread_time(), time.perf_counter()
    steps = _train(experiment, _TURN_S * scale)
    cpu_s, wall_s = time.thread_time() - cpu_s, time.perf_counter() - wall_s
    share_percent = 100 * (sum(map(time.clock_gettime, clocks)) - taken_s) / cpu_s
    began_s = time.perf_counter()
    experiment.stop()
    stop_ms = (time.perf_counter() - began_s) * 1e3
    return _Turn(cpu_s / steps * 1e6, wall_s / steps * 1e6, share_percent, start_s * 1e3, stop_ms)


def _first_readings(experiment: Experiment, clocks: Sequence[int]) -> float:
    """Train until the collectors' first readings are over; gives the CPU time that their threads have taken."""
    taken_s = 0.0
    for _ in range(_MAX_SLICES if clocks else 1):
        before_s = taken_s
        _train(experiment, _SLICE_S)
        taken_s = sum(map(time.clock_gettime, clocks))
        if taken_s - before_s < 0.02 * _SLICE_S:
            break
    return taken_s


def _train(experiment: Experiment, seconds: float) -> int:
    """Some hundred microseconds a step."""
    until_s, step = time.perf_counter() + seconds, 0
    while step == 0 or time.perf_counter() < until_s:
        experiment.log_metric("loss", sum(number * 0.5 for number in range(2000)), step)
        step += 1
    return step


def _show_readings(directory: Path, readings: int) -> None:
    collectors: list[CollectorPlugin] = [EnvironmentCollector(), GitCollector(), SystemCollector()]
    rows = []
    for collector in collectors:
        collector.initialize({"run_dir": directory} if isinstance(collector, SystemCollector) else {})
        collector.start()
        first_s = _reading_s(collector)
        later_s = statistics.median(_reading_s(collector) for _ in range(readings))
        collector.stop()
        name = collector.get_metadata().name
        rows.append(Row(f"{name}: the first reading", f"{first_s * 1e3:.0f} ms"))
        rows.append(Row(f"{name}: a later one", f"{later_s * 1e3:.2f} ms"))
    show("Collectors: one reading", rows)


def _reading_s(collector: CollectorPlugin) -> float:
    began_s = time.thread_time()
    collector.collect()
    return time.thread_time() - began_s
