"""The thread that reads a collector, at the end of a run."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from tracelet.core.collecting import CollectorThread
from tracelet.core.plugins import CollectorPlugin, ManagedPlugin, PluginMetadata, PluginType
from tracelet.core.records import MetricData, MetricType

WAIT_S = 60.0


class Slow(CollectorPlugin):
    """Its reading ends when it is told to."""

    def __init__(self) -> None:
        self.is_read, self.may_end = threading.Event(), threading.Event()

    @classmethod
    def get_metadata(cls):
        return PluginMetadata("slow", "1", PluginType.COLLECTOR)

    def initialize(self, config: dict[str, Any]) -> None:
        pass

    def start(self) -> None:
        pass

    stop = start

    def get_status(self) -> dict[str, Any]:
        return {}

    def collect(self):
        self.is_read.set()
        assert self.may_end.wait(WAIT_S)
        return [MetricData("slow", 1.0, MetricType.SYSTEM, source="slow")]


@pytest.fixture
def collector():
    return Slow()


@pytest.fixture
def emitted() -> list[MetricData]:
    return []


@pytest.fixture
def thread(collector, emitted):
    errors: list[BaseException] = []
    made = CollectorThread(
        ManagedPlugin(collector, {}), facts={}, interval_s=1000.0, emit=emitted.append,
        on_error=lambda name, error: errors.append(error),
    )  # fmt: skip
    made.start()
    yield made
    collector.may_end.set()
    made.request_stop()
    assert made.join(WAIT_S)
    assert [] == errors


def test_what_comes_after_the_wait_is_over_is_dropped(thread, collector, emitted):
    assert collector.is_read.wait(WAIT_S)
    thread.request_stop()
    assert not thread.join(0.01)
    collector.may_end.set()
    thread._thread.join(WAIT_S)
    assert [] == emitted


def test_the_first_reading_is_recorded_although_the_run_has_ended_before_it(thread, collector, emitted):
    thread.request_stop()
    collector.may_end.set()
    assert thread.join(WAIT_S)
    assert ["slow"] == [metric.name for metric in emitted]
