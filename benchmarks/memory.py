"""Memory of a process that logs ten million points to a backend that is dead.

What counts is the anonymous part of the resident memory (RssAnon: resident less shared in `/proc/self/statm`), which
only the process itself can give back. Mapped segments appear in the shared part; their pages are the kernel's to drop,
as any file's, and at most a few segments are mapped at a time. The figure is the largest distance of a sample from the
first one, which is taken after a hundredth of the points. The peer is what many trackers do: a queue in memory.
"""

from __future__ import annotations

import resource
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, final

from benchmarks.measuring import Row, Target, in_new_process, scaled, scratch_experiment, show
from tracelet import BackendPlugin, MetricData, PluginMetadata, PluginType
from tracelet.errors import RetryableError

_POINTS = 10_000_000
_QUEUE_POINTS = 1_000_000
_SAMPLES = 100
_TARGET_MB = 20.0


@final
class DeadBackend(BackendPlugin):
    """Takes nothing, ever."""

    def __init__(self) -> None:
        self.was_called = threading.Event()

    @classmethod
    def get_metadata(cls) -> PluginMetadata:
        return PluginMetadata("dead", "1", PluginType.BACKEND)

    def initialize(self, config: dict[str, Any]) -> None:
        pass

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass

    def get_status(self) -> dict[str, Any]:
        return {}

    def handle_metric(self, metric: MetricData) -> None:
        self.was_called.set()
        raise RetryableError("nobody answers")


@final
class Memory(NamedTuple):
    """A sample, in megabytes."""

    private: float
    mapped: float


def main(scale: float = 1.0) -> None:
    """Measure and print."""
    points, queued = scaled(_POINTS, scale, _SAMPLES), scaled(_QUEUE_POINTS, scale, _SAMPLES)
    ours, peer = in_new_process(_log, points), in_new_process(_queue, queued)
    change_mb = _change_mb(ours)
    show(
        "Memory while a backend is dead",
        [
            Row(
                f"private, over {points:,} points",
                f"{ours[0].private:.0f} ± {change_mb:.1f} MB",
                f"queue of {queued:,}: {peer[0].private:.0f} + {_change_mb(peer):.0f} MB",
                target=Target(change_mb, _TARGET_MB, "MB of change"),
            ),
            Row("mapped files, at most", f"{max(sample.mapped for sample in ours):.0f} MB"),
        ],
    )


def _log(points: int) -> list[Memory]:
    backend = DeadBackend()
    with scratch_experiment(backend) as experiment:
        experiment.log_metric("loss", 0.5, -1)
        backend.was_called.wait()
        return _sampled(points, lambda step: experiment.log_metric("loss", 0.5, step))


def _queue(points: int) -> list[Memory]:
    queue: deque[tuple[str, float, int, float]] = deque()
    return _sampled(points, lambda step: queue.append(("loss", 0.5, step, time.time())))


def _sampled(points: int, log: Callable[[int], object]) -> list[Memory]:
    samples = []
    for step in range(points):
        log(step)
        if step % (points // _SAMPLES) == 0:
            samples.append(_memory())
    return samples[1:]


def _memory() -> Memory:
    _, resident, shared, *_ = map(int, Path("/proc/self/statm").read_text().split())
    megabytes_a_page = resource.getpagesize() / 1e6
    return Memory((resident - shared) * megabytes_a_page, shared * megabytes_a_page)


def _change_mb(samples: list[Memory]) -> float:
    return max(abs(sample.private - samples[0].private) for sample in samples)


if __name__ == "__main__":
    main()
