"""What every framework plug-in must do. Inherit, give two fixtures, and pytest runs it all.

    class TestAcmeFramework(FrameworkContract):
        @pytest.fixture
        def framework(self):
            return AcmeFramework()

        @pytest.fixture
        def train(self):
            return lambda: acme.fit(steps=3)

Run by pytest. A framework plug-in lives on the thread that trains: so does everything here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tracelet.core.plugins import PluginBase, PluginType, TakesExperiment
from tracelet.core.records import MetricData, MetricSource
from tracelet.testing.plugin_contract import OnWorker, PluginContract


class ListSink:
    """Stands for an experiment: keeps what is emitted."""

    def __init__(self) -> None:
        self.records: list[MetricData] = []

    def emit_metric(self, metric: MetricData) -> None:
        """Keep it."""
        self.records.append(metric)


class FrameworkContract(PluginContract):
    """Give the fixtures `framework` and `train`."""

    kind = PluginType.FRAMEWORK

    @pytest.fixture
    def framework(self) -> PluginBase:
        """A new framework plug-in of which nothing has been called."""
        pytest.fail("give the fixture `framework`")

    @pytest.fixture
    def train(self) -> Callable[[], Any]:
        """Trains a little, so that at least one record is emitted; gives anything that tells how the training went."""
        pytest.fail("give the fixture `train`")

    @pytest.fixture
    def experiment(self) -> ListSink:
        """What the records go to."""
        return ListSink()

    @pytest.fixture
    def plugin(self, framework: Any, experiment: ListSink) -> PluginBase:
        """The framework plug-in, which knows its experiment."""
        framework.set_experiment(experiment)
        assert isinstance(framework, PluginBase)
        return framework

    @pytest.fixture
    def on_worker(self) -> OnWorker:
        """The thread that trains."""
        return lambda call: call()

    def test_it_is_a_source_that_takes_an_experiment(self, framework: PluginBase) -> None:
        """It has the methods of its kind."""
        assert isinstance(framework, TakesExperiment)
        assert isinstance(framework, MetricSource)
        assert framework.get_source_id()

    def test_training_emits_records(self, started: PluginBase, train: Callable[[], Any], experiment: ListSink) -> None:
        """Which say where they come from."""
        train()
        assert experiment.records
        assert {type(record) for record in experiment.records} == {MetricData}
        assert all(record.source for record in experiment.records)

    def test_nothing_is_emitted_after_stop(
        self, started: PluginBase, train: Callable[[], Any], experiment: ListSink
    ) -> None:
        """What it has hooked or replaced is as it was."""
        started.stop()
        train()
        assert experiment.records == []

    def test_training_goes_the_same_way(
        self, plugin: PluginBase, train: Callable[[], Any], full_config: dict[str, Any]
    ) -> None:
        """With the plug-in, without it, and after it."""
        before = train()
        plugin.initialize(full_config)
        plugin.start()
        during = train()
        plugin.stop()
        assert (before, before) == (during, train())

    def test_training_goes_on_without_an_experiment(
        self, framework: PluginBase, train: Callable[[], Any], full_config: dict[str, Any]
    ) -> None:
        """`set_experiment` has not been called here."""
        framework.initialize(full_config)
        framework.start()
        train()
        framework.stop()
