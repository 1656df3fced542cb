"""The collectors under the suite of all collectors."""

from __future__ import annotations

import pytest

from tracelet.collectors.system_collector import SystemCollector
from tracelet.testing import CollectorContract


class TestSystemCollector(CollectorContract):
    subject = SystemCollector

    @pytest.fixture
    def collector(self):
        return SystemCollector()
