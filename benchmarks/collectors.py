"""What the collectors cost a training: the busy loop with all of them at an interval of a second, beside without.

The loop computes in plain Python and logs a value a step, which is the worst case: each moment that a collector holds
the interpreter is taken from it. The two cases take turns of some seconds, each in a run of its own, in an order that
changes, so that whatever else the machine does hits both alike. The figure is the CPU time of the whole process (the
loop's and the collectors') for a step, from when the first readings are over; the wall time stands beside it. The
second table has the readings alone, as CPU time.
"""

from __future__ import annotations

import logging
import statistics
import tempfile
import time
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
_WARM_UP_S: Final = 1.0
_READINGS: Final = 100
_LIMIT_PERCENT: Final = 1.0


@final
class _Turn(NamedTuple):
    """Microseconds a step, and milliseconds at the run's two ends."""

    cpu_us: float
    wall_us: float
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
    overhead = statistics.median(more)
    rows = [
        Row("a step, without", f"{without.cpu_us:.2f} µs (wall {without.wall_us:.2f})"),
        Row("a step, all collectors each second", f"{collecting.cpu_us:.2f} µs (wall {collecting.wall_us:.2f})"),
        Row("… more CPU time", f"{overhead:.2f} %", target=Target(overhead, _LIMIT_PERCENT, "%")),
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
    _train(experiment, _WARM_UP_S * min(scale, 1.0))
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    steps = _train(experiment, _TURN_S * scale)
    cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s
    began_s = time.perf_counter()
    experiment.stop()
    return _Turn(cpu_s / steps * 1e6, wall_s / steps * 1e6, start_s * 1e3, (time.perf_counter() - began_s) * 1e3)


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
