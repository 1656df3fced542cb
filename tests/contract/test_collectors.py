"""The collectors under the suite of all collectors."""

from __future__ import annotations

import pytest

from tests.collectors.support import git
from tracelet.collectors.docker_collector import DockerCollector
from tracelet.collectors.environment_collector import EnvironmentCollector
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


class TestEnvironmentCollector(CollectorContract):
    subject = EnvironmentCollector

    @pytest.fixture
    def collector(self):
        return EnvironmentCollector()


class TestDockerCollector(CollectorContract):
    subject = DockerCollector

    @pytest.fixture
    def collector(self, monkeypatch):
        monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere")  # The kernel is asked.
        monkeypatch.setattr("tracelet.collectors.docker_collector.container_id", lambda: "c0ffee" * 10 + "c0ff")
        return DockerCollector()
