"""How long a single log call may take while a backend works at full load in the same process.

The backend spins in Python for 100 µs a record and has a backlog, so its thread wants the GIL all the time. A thread
that computes in Python gives the GIL away only when it is asked to, 5 ms after another thread began to wait. What is
measured is the call alone, so the question is whether the call itself gives the GIL away:

- The memory map never does. A call is hit only when the 5 ms happen to end inside it: in a loop that does nothing but
  log, that is about one call in five thousand, and beyond the 99.9th percentile. It then takes as long as the other
  thread keeps the GIL, 5 ms, and so does every other line of Python: that is the maximum seen here.
- `os.write` gives the GIL away in every call and must get it back. Alone that is cheap; beside a busy thread it often
  loses it for the whole 5 ms.

"tight" is a loop of log calls, and the target is for this one. "step" releases the GIL for about a millisecond before
each call, as a training step of a framework does: the thread has just got the GIL back when it logs, and the map keeps
it. Its caches are cold then, so a call takes longer, and of so few calls the 99.9th percentile says little: whatever
the machine does otherwise shows there. The bare store (see `log_metric`) tells how much of it is the machine's.

Percentiles are medians over rounds that take turns. The figures include reading the clock, some 0.1 µs.
"""

from __future__ import annotations

import mmap
import os
import statistics
import struct
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, final

from benchmarks.measuring import Row, Target, scaled, scratch_experiment, show
from tracelet import BackendPlugin, MetricData, PluginMetadata, PluginType

_ROUNDS = 3
_TIGHT_CALLS = 100_000
_STEP_CALLS = 1_500
_BACKLOG = 150_000  # Records; 15 s of work for the backend.
_SPIN_NS = 100_000
_TARGET_US = 50.0
_RECORD_BYTES = 32
_STEP_WORK = bytes(2 << 20)


@final
class SpinningBackend(BackendPlugin):
    """Computes for 100 µs on every record, without ever giving the GIL away by itself."""

    def __init__(self) -> None:
        self.is_busy = threading.Event()

    @classmethod
    def get_metadata(cls) -> PluginMetadata:
        return PluginMetadata("spinning", "1", PluginType.BACKEND)

    def initialize(self, config: dict[str, Any]) -> None:
        pass

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass

    def get_status(self) -> dict[str, Any]:
        return {}

    def handle_metric(self, metric: MetricData) -> None:
        self.is_busy.set()
        end_ns = time.perf_counter_ns() + _SPIN_NS
        while time.perf_counter_ns() < end_ns:
            pass


@final
class Case(NamedTuple):
    """One way to log."""

    store: str  # `map` and `write` are our modes of storing; `bare` is the least that stores a record.
    work: Callable[[], object]
    calls: int
    beside_delivery: bool = True

    @property
    def name(self) -> str:
        """How the table calls it."""
        store = {"map": "log_metric, map", "write": "log_metric, os.write", "bare": "bare store"}[self.store]
        rhythm = "tight" if self.work is _nothing else "step"
        return f"{store}, {rhythm}{'' if self.beside_delivery else ', no delivery'}"


def main(scale: float = 1.0) -> None:
    """Measure and print."""
    tight, steps = scaled(_TIGHT_CALLS, scale, 1000), scaled(_STEP_CALLS, scale, 20)
    rhythms = [(_nothing, tight, False), (_nothing, tight, True), (_step, steps, True)]
    cases = [Case(store, *rhythm) for rhythm in rhythms for store in ("map", "write", "bare")]
    rounds: dict[Case, list[list[float]]] = {case: [] for case in cases}
    for _ in range(scaled(_ROUNDS, scale)):
        for case in cases:
            rounds[case].append(_percentiles_us(_latencies_ns(case, scaled(_BACKLOG, scale, 10_000))))
    results = {case: [statistics.median(column) for column in zip(*r, strict=True)] for case, r in rounds.items()}

    def row(case: Case) -> Row:
        ours, peer = results[case], results[case._replace(store="write")]
        if case.store != "map":
            return Row(case.name, _text(ours))
        target = Target(ours[2], _TARGET_US, "µs at p99.9") if case.work is _nothing else None
        return Row(case.name, _text(ours), f"os.write {peer[2]:.1f} µs", f"{peer[2] / ours[2]:.1f}", target)

    show("One log_metric beside a busy backend: p50 / p99 / p99.9 / max", [row(case) for case in cases])


def _latencies_ns(case: Case, backlog: int) -> list[int]:
    backend, clock_ns, latencies_ns = SpinningBackend(), time.perf_counter_ns, []
    backends = [backend] if case.beside_delivery else []
    with scratch_experiment(*backends, journal_mode="write" if case.store == "write" else "map") as experiment:
        log = _bare_store(case.calls) if case.store == "bare" else experiment.log_metric
        for step in range(backlog):
            experiment.log_metric("loss", 0.5, step)
        if case.beside_delivery:
            backend.is_busy.wait()
        for step in range(case.calls):
            case.work()
            began_ns = clock_ns()
            log("loss", 0.5, step)
            latencies_ns.append(clock_ns() - began_ns)
        if case.beside_delivery and not experiment.status()["backends"]["spinning"].waiting:
            raise RuntimeError(f"{case.name}: the backend had nothing left to do, so its load was not full")
    return latencies_ns


def _bare_store(records: int) -> Callable[[str, float, int], object]:
    size = records * _RECORD_BYTES
    with tempfile.TemporaryFile() as file:
        os.posix_fallocate(file.fileno(), 0, size)
        store = mmap.mmap(file.fileno(), size).write
    pack, pack_crc, crc32, time_ns = struct.Struct("<dqqI").pack, struct.Struct("<I").pack, zlib.crc32, time.time_ns

    def log(_name: str, value: float, step: int) -> None:
        record = pack(value, step, time_ns(), 1)
        store(record + pack_crc(crc32(record)))

    return log


def _percentiles_us(latencies_ns: Sequence[int]) -> list[float]:
    ordered = sorted(latencies_ns)
    return [ordered[min(len(ordered) - 1, int(len(ordered) * part))] / 1e3 for part in (0.5, 0.99, 0.999, 1.0)]


def _text(percentiles_us: Sequence[float]) -> str:
    return " / ".join(f"{value:.1f}" if value < 100 else f"{value:.0f}" for value in percentiles_us) + " µs"


def _nothing() -> None:
    pass


def _step() -> None:
    zlib.crc32(_STEP_WORK)  # It releases the GIL for anything longer than 5 KiB.


if __name__ == "__main__":
    main()
