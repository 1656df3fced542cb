"""The contract of processors, for those that come with Tracelet."""

from __future__ import annotations

from typing import Any

import pytest

from tracelet.core.plugins import ProcessorPlugin
from tracelet.processors.aggregate_processor import AggregateProcessor
from tracelet.processors.drop_processor import DropProcessor
from tracelet.processors.redact_processor import RedactProcessor
from tracelet.processors.rename_processor import RenameProcessor
from tracelet.processors.scale_processor import ScaleProcessor
from tracelet.processors.smooth_processor import SmoothProcessor
from tracelet.processors.thin_processor import ThinProcessor
from tracelet.processors.watch_processor import WatchProcessor
from tracelet.testing import ProcessorContract


class OurContract(ProcessorContract):
    subject: type[ProcessorPlugin]

    @pytest.fixture
    def processor(self) -> ProcessorPlugin:
        return self.subject()


class TestAggregate(OurContract):
    subject = AggregateProcessor

    @pytest.fixture
    def config(self) -> dict[str, Any]:
        return {"every": 2, "functions": ["mean", "last"]}


class TestDrop(OurContract):
    subject = DropProcessor

    @pytest.fixture
    def config(self) -> dict[str, Any]:
        return {"match": "a*"}


class TestRedact(OurContract):
    subject = RedactProcessor

    @pytest.fixture
    def config(self) -> dict[str, Any]:
        return {"names": ["name"], "patterns": ["a"]}


class TestRename(OurContract):
    subject = RenameProcessor

    @pytest.fixture
    def config(self) -> dict[str, Any]:
        return {"pattern": "^.", "replacement": "x"}


class TestScale(OurContract):
    subject = ScaleProcessor

    @pytest.fixture
    def config(self) -> dict[str, Any]:
        return {"factor": 2}


class TestSmooth(OurContract):
    subject = SmoothProcessor

    @pytest.fixture
    def config(self) -> dict[str, Any]:
        return {"window": 2, "suffix": "/smooth"}


class TestThin(OurContract):
    subject = ThinProcessor

    @pytest.fixture
    def config(self) -> dict[str, Any]:
        return {"every": 10}


class TestWatch(OurContract):
    subject = WatchProcessor

    @pytest.fixture
    def config(self) -> dict[str, Any]:
        return {"match": "*"}
