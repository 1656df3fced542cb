"""What every collector must do. Inherit, give the fixture `collector`, and pytest runs it all.

Run by pytest, and each call of the collector on one thread that is not the test's.
"""

from __future__ import annotations

import time
from typing import Any

import pytest

from tracelet.core.plugins import Collects, PluginBase, PluginType
from tracelet.core.records import MetricData, MetricType
from tracelet.testing.plugin_contract import OnWorker, PluginContract

_LONGEST_COLLECT_S = 60.0


class CollectorContract(PluginContract):
    """Give the fixture `collector`, and `config` where it needs settings to work here."""

    kind = PluginType.COLLECTOR

    @pytest.fixture
    def collector(self) -> PluginBase:
        """A new collector of which nothing has been called."""
        pytest.fail("give the fixture `collector`")

    @pytest.fixture
    def plugin(self, collector: PluginBase) -> PluginBase:
        """The collector."""
        return collector

    @pytest.fixture
    def collected(self, started: Any, on_worker: OnWorker) -> list[MetricData]:
        """What two readings give."""
        return [*on_worker(started.collect), *on_worker(started.collect)]

    def test_it_collects(self, collector: PluginBase) -> None:
        """It has the method of its kind."""
        assert isinstance(collector, Collects)

    def test_readings_are_records(self, collected: list[MetricData]) -> None:
        """With a name, and a number where the type is one of numbers."""
        for metric in collected:
            assert isinstance(metric, MetricData)
            assert isinstance(metric.name, str)
            assert metric.name
            if metric.type in (MetricType.SCALAR, MetricType.SYSTEM):
                float(metric.value)

    def test_reading_has_each_name_once(self, started: Any, on_worker: OnWorker) -> None:
        """Two values of one series at one time could not be told apart."""
        names = [metric.name for metric in on_worker(started.collect)]
        assert len(names) == len(set(names))

    def test_timestamps_are_unix_time_in_seconds(self, collected: list[MetricData]) -> None:
        """Neither milliseconds nor the time since boot. None is now."""
        for metric in collected:
            assert metric.timestamp is None or abs(metric.timestamp - time.time()) < _LONGEST_COLLECT_S

    def test_records_say_where_they_come_from(self, collected: list[MetricData]) -> None:
        """So that a routing rule can choose by the source."""
        for metric in collected:
            assert metric.source

    def test_it_works_again_after_a_stop(
        self, collector: Any, full_config: dict[str, Any], on_worker: OnWorker
    ) -> None:
        """The same instance may serve a second experiment."""
        for _ in range(2):
            on_worker(lambda: collector.initialize(dict(full_config)))
            on_worker(collector.start)
            on_worker(collector.collect)
            on_worker(collector.stop)
