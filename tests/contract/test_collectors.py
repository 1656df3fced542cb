"""The collectors under the suite of all collectors."""

from __future__ import annotations

import pytest

from tests.collectors.support import git
from tracelet.collectors.git_collector import GitCollector
from tracelet.collectors.system_collector import SystemCollector
from tracelet.testing import CollectorContract


class TestSystemCollector(CollectorContract):
    subject = SystemCollector

    @pytest.fixture
    def collector(self):
        return SystemCollector()


class TestGitCollector(CollectorContract):
    subject = GitCollector

    @pytest.fixture
    def collector(self, tmp_path):
        git("init", "-q", cwd=tmp_path)
        git("commit", "-q", "--allow-empty", "-m", "one", cwd=tmp_path)
        (tmp_path / "new.py").write_text("x = 1\n")
        return GitCollector()
