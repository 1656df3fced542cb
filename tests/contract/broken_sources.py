"""Collectors, frameworks and processors with one fault each; see `broken_backends.py`."""

from __future__ import annotations

import json  # noqa: F401  stands for a heavy SDK
from dataclasses import replace

import pytest

from tests.contract.broken_backends import Kept
from tracelet.core.plugins import CollectorPlugin, FrameworkPlugin, PluginMetadata, PluginType, ProcessorPlugin
from tracelet.core.records import MetricData, MetricType
from tracelet.testing import CollectorContract, FrameworkContract, ProcessorContract


class Clock(CollectorPlugin):
    source: str | None = "clock"
    unit = 1.0

    @classmethod
    def get_metadata(cls):
        return PluginMetadata("clock", "1", PluginType.COLLECTOR)

    initialize, start, stop, get_status = Kept.initialize, Kept.start, Kept.stop, Kept.get_status

    def collect(self):
        import time

        now = time.time()
        return [MetricData("clock", now, MetricType.SYSTEM, timestamp=now * self.unit, source=self.source)]


class CollectorSuite(CollectorContract):
    faulty: type[Clock]

    @pytest.fixture
    def collector(self):
        return self.faulty()


class TestGoodCollector(CollectorSuite):
    faulty = Clock
    caught_by = frozenset()


class InMilliseconds(Clock):
    unit = 1e3
    source = None


class TestInMilliseconds(CollectorSuite):
    faulty = InMilliseconds
    caught_by = frozenset({"test_timestamps_are_unix_time_in_seconds", "test_records_say_where_they_come_from"})


class Trainer:
    """Stands for a framework with hooks."""

    hooks: list = []  # noqa: RUF012  shared on purpose, as a framework's hooks are


def train():
    for hook in Trainer.hooks:
        hook(0.5)
    return 0.5


class Hooked(FrameworkPlugin):
    @classmethod
    def get_metadata(cls):
        return PluginMetadata("hooked", "1", PluginType.FRAMEWORK)

    initialize, get_status = Kept.initialize, Kept.get_status

    def start(self):
        self._active = True
        Trainer.hooks = [self.hook]

    def stop(self):
        self._active = False
        Trainer.hooks = []

    def hook(self, loss):
        self.emit_metric(MetricData("loss", loss, MetricType.SCALAR, source=self.get_source_id()))


class FrameworkSuite(FrameworkContract):
    faulty: type[Hooked]

    @pytest.fixture
    def framework(self):
        yield self.faulty()
        Trainer.hooks = []

    @pytest.fixture
    def train(self):
        return train


class TestGoodFramework(FrameworkSuite):
    faulty = Hooked
    caught_by = frozenset()


class StaysHooked(Hooked):
    def stop(self):
        self._active = False


class TestStaysHooked(FrameworkSuite):
    faulty = StaysHooked
    caught_by = frozenset({"test_nothing_is_emitted_after_stop"})


class Doubles(ProcessorPlugin):
    @classmethod
    def get_metadata(cls):
        return PluginMetadata("doubles", "1", PluginType.PROCESSOR)

    initialize, start, stop, get_status = Kept.initialize, Kept.start, Kept.stop, Kept.get_status

    def process(self, metric):
        return [metric, replace(metric, name=f"{metric.name}/again")]


class ProcessorSuite(ProcessorContract):
    faulty: type[Doubles]

    @pytest.fixture
    def processor(self):
        return self.faulty()


class TestGoodProcessor(ProcessorSuite):
    faulty = Doubles
    caught_by = frozenset()


class ChangesTheRecord(Doubles):
    def process(self, metric):
        if metric.metadata is not None:
            metric.metadata["seen"] = True
        return metric


class TestChangesTheRecord(ProcessorSuite):
    faulty = ChangesTheRecord
    caught_by = frozenset({"test_record_itself_is_not_changed"})


class SharesItsState(Doubles):
    seen: list = []  # noqa: RUF012  the fault

    def process(self, metric):
        self.seen.append(metric)
        return replace(metric, iteration=len(self.seen))


class TestSharesItsState(ProcessorSuite):
    faulty = SharesItsState
    caught_by = frozenset({"test_copies_know_nothing_of_each_other"})


class KnowsScalarsOnly(Doubles):
    def process(self, metric):
        return replace(metric, value=metric.value * 2.0)


class TestKnowsScalarsOnly(ProcessorSuite):
    faulty = KnowsScalarsOnly
    caught_by = frozenset({"test_every_record_becomes_records"})
