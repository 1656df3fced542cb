"""What the tests of delivery share: a journal, and a worker that delivers it to a backend in memory."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tracelet.core.plugins import BackendPlugin, ManagedPlugin, PluginMetadata, PluginType, ProcessorPlugin
from tracelet.core.records import MetricData, MetricType
from tracelet.delivery.cursor import Cursor
from tracelet.delivery.retry import Backoff
from tracelet.delivery.worker import DeliveryWorker
from tracelet.errors import PartialDeliveryError, RejectedError
from tracelet.journal.directory import RunDirectory
from tracelet.journal.writer import JournalWriter
from tracelet.testing import MemoryBackend

WAIT_S = 60.0  # Long, so that a machine under load is no failure; what is waited for comes within milliseconds.


class Delivery:
    """A run, and workers for it. Used as a context manager: at its end no thread is left."""

    def __init__(self, root: Path) -> None:
        self.run = RunDirectory.at(root, "delivery", "run1", "test")
        self.writer = JournalWriter(self.run)
        self.writer.open()
        self.errors: list[tuple[str, BaseException]] = []
        self.emitted: list[MetricData] = []
        self.workers: list[DeliveryWorker] = []

    def __enter__(self) -> Delivery:
        return self

    def __exit__(self, *error: object) -> None:
        for worker in self.workers:
            worker.request_stop(WAIT_S)
            assert worker.join(WAIT_S)
        self.writer.close()

    def log(self, names: Iterable[str]) -> None:
        """One scalar a name; the step is its place."""
        for step, name in enumerate(names):
            series = self.writer.define(name)
            assert series is not None
            self.writer.append(series.key, step, float(step))

    def cursor(self, backend: BackendPlugin) -> Cursor:
        return Cursor(self.run.path / "delivery" / backend.get_metadata().name)

    def worker(
        self, backend: BackendPlugin, processors: Sequence[ProcessorPlugin] = (), **options: object
    ) -> DeliveryWorker:
        arguments = {
            "facts": {"run_id": "run1"},
            "accepts": lambda metric: True,
            "processors": [ManagedPlugin(processor, {}) for processor in processors],
            "emit": self.emitted.append,
            "on_error": lambda name, error: self.errors.append((name, error)),
            "backoff": Backoff(1e-4, 1e-3),
            **options,
        }
        worker = DeliveryWorker(ManagedPlugin(backend, {}), self.run, **arguments)
        self.workers.append(worker)
        return worker

    def deliver(self, worker: DeliveryWorker, timeout_s: float = WAIT_S) -> None:
        """Have the worker deliver what is there, and end."""
        worker.start()
        worker.request_stop(timeout_s)
        assert worker.join(WAIT_S)


def names(records: Iterable[MetricData]) -> list[str]:
    return [record.name for record in records]


def arrived(backend: MemoryBackend, count: int) -> bool:
    """Wait for so many records."""
    return backend.wait_until(lambda: len(backend.records) >= count, WAIT_S)


class Processor(ProcessorPlugin):
    """Does what `change` says."""

    def __init__(self, change=lambda metric: metric, name: str = "processor") -> None:
        self.change = change
        self.seen: list[MetricData] = []
        self.get_metadata = lambda: PluginMetadata(name, "1", PluginType.PROCESSOR)

    @classmethod
    def get_metadata(cls) -> PluginMetadata:
        return PluginMetadata("processor", "1", PluginType.PROCESSOR)

    def initialize(self, config):
        self.config = config

    def start(self):
        pass

    def stop(self):
        pass

    def get_status(self):
        return {}

    def process(self, metric):
        self.seen.append(metric)
        return self.change(metric)


def in_eight_threads(work: Callable[[int], None]) -> None:
    """Do it in each of them, with its number, and have them take turns as often as can be."""
    before_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(thread,)) for thread in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before_s)


def scalar(name: str = "a", step: int = 0, value: float = 0.0) -> MetricData:
    return MetricData(name, value, MetricType.SCALAR, step)


class Plain(BackendPlugin):
    """The least that a backend needs; it takes records one by one, and refuses those of the steps in `bad`."""

    def __init__(self, bad: Iterable[int] = ()) -> None:
        self.bad = set(bad)
        self.steps: list[int | None] = []

    @classmethod
    def get_metadata(cls) -> PluginMetadata:
        return PluginMetadata("memory", "1", PluginType.BACKEND)

    def initialize(self, config):
        pass

    def start(self):
        pass

    def stop(self):
        pass

    def get_status(self):
        return {}

    def handle_metric(self, metric):
        if metric.iteration in self.bad:
            raise RejectedError(f"step {metric.iteration} is bad")
        self.steps.append(metric.iteration)


class Chunked(Plain):
    """Sends 100 at a time, as trackers with a limit of their own do: a bad record costs its whole chunk."""

    error: type[Exception] = RejectedError

    def handle_batch(self, metrics):
        for start in range(0, len(metrics), 100):
            chunk = [metric.iteration for metric in metrics[start : start + 100]]
            if self.bad.intersection(chunk):
                raise PartialDeliveryError(start) from self.error("there is a bad one in the chunk")
            self.steps.extend(chunk)
