"""What every processor must do. Inherit, give the fixture `processor`, and pytest runs it all.

Run by pytest, and each call of the processor on one thread that is not the test's.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tracelet.core.plugins import PluginType, ProcessorPlugin
from tracelet.core.records import MetricData, MetricType
from tracelet.testing.backend_contract import ODD_NAMES, example_value, scalar
from tracelet.testing.plugin_contract import OnWorker, PluginContract


class ProcessorContract(PluginContract):
    """Give the fixture `processor`, and `config` where it needs settings to work here."""

    kind = PluginType.PROCESSOR

    @pytest.fixture
    def processor(self) -> ProcessorPlugin:
        """A new processor of which nothing has been called."""
        pytest.fail("give the fixture `processor`")

    @pytest.fixture
    def plugin(self, processor: ProcessorPlugin) -> ProcessorPlugin:
        """The processor."""
        return processor

    @pytest.fixture
    def records(self, tmp_path: Path) -> Sequence[MetricData]:
        """One of each type, and odd ones."""
        files = tmp_path / "files"
        files.mkdir()
        typed = [
            MetricData(
                "name", 0.5 if kind is MetricType.SCALAR else example_value(kind, files), kind, 1, 1.0, "source", {}
            )
            for kind in MetricType
        ]
        return [*typed, *(scalar(name, math.nan, None) for name in ODD_NAMES), scalar("a", math.inf, -1)]

    def test_every_record_becomes_records(
        self, started: ProcessorPlugin, on_worker: OnWorker, records: Sequence[MetricData]
    ) -> None:
        """One, several, or none: nothing else, and no exception."""
        for made in on_worker(lambda: process_all(started, records)):
            assert all(isinstance(record, MetricData) for record in made)

    def test_record_itself_is_not_changed(
        self, started: ProcessorPlugin, on_worker: OnWorker, records: Sequence[MetricData]
    ) -> None:
        """What comes out is new: the one that came in may be needed again."""
        before = copy.deepcopy(records)
        on_worker(lambda: process_all(started, records))
        assert repr(before) == repr(records)  # Not `==`, for which NaN is not NaN.

    def test_copies_know_nothing_of_each_other(
        self,
        processor: ProcessorPlugin,
        full_config: dict[str, Any],
        on_worker: OnWorker,
        records: Sequence[MetricData],
    ) -> None:
        """Each backend has its own copy, made before `initialize`: what one has seen changes nothing for the next."""

        def run(own: ProcessorPlugin) -> str:
            own.initialize(dict(full_config))
            own.start()
            made = process_all(own, records)
            own.stop()
            return repr(made)

        first, second = copy.deepcopy(processor), copy.deepcopy(processor)
        assert on_worker(lambda: run(first)) == on_worker(lambda: run(second))


def process_all(processor: ProcessorPlugin, records: Sequence[MetricData]) -> list[list[MetricData]]:
    """What each record becomes, as a list."""
    results = [processor.process(record) for record in records]
    return [[result] if isinstance(result, MetricData) else list(result or ()) for result in results]
