"""What a run records when nobody said anything about collectors, and how they live beside it."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading

import pytest

from tests.collectors.support import git
from tracelet import CollectorPlugin, Experiment, MetricData, MetricType, PluginMetadata, PluginType, load_run
from tracelet.collectors import DEFAULTS
from tracelet.errors import MissingDependencyError
from tracelet.settings import TraceletSettings

SETTINGS = {"plugins": {"environment": {"packages": False}}}


@pytest.fixture(autouse=True)
def defaults(monkeypatch):
    monkeypatch.delenv("TRACELET_COLLECTORS")


def test_every_run_tells_what_ran_on_what(tmp_path):
    git("init", "-q", cwd=tmp_path)
    git("commit", "-q", "--allow-empty", "-m", "one", cwd=tmp_path)
    before = set(threading.enumerate())
    with Experiment("x") as experiment:
        plugins = experiment.status()["plugins"]
        experiment.log_metric("loss", 0.5, 0)
    assert set(DEFAULTS) == set(plugins)
    assert set() == set(threading.enumerate()) - before
    run = load_run(experiment.run_dir)
    assert ["loss"] == run.names(MetricType.SCALAR)
    assert run.params["env/python/version"] == ".".join(map(str, sys.version_info[:3]))
    assert run.params["env/git/branch"] == "main"
    assert len(run.series("system/memory/rss_bytes")) == 1
    names = {record.name for record in run.records(MetricType.ARTIFACT)}
    assert {"environment/requirements.txt"} <= names
    assert "finished" == run.status.value


@pytest.mark.parametrize("chosen", [(), ("system",)])
def test_those_that_are_named_are_all_there_are(chosen):
    with Experiment("x", collectors=chosen) as experiment:
        assert set(chosen) == set(experiment.status()["plugins"])


def test_a_setting_chooses_them(monkeypatch):
    with Experiment("x", settings=TraceletSettings(plugins_deny=["git"], **SETTINGS)) as experiment:
        assert {"environment", "system"} == set(experiment.status()["plugins"])
    with Experiment("x", settings=TraceletSettings(plugins_allow=["system"], **SETTINGS)) as experiment:
        assert {"system"} == set(experiment.status()["plugins"])
    monkeypatch.setenv("TRACELET_COLLECTORS", "")
    with Experiment("x") as experiment:
        assert {} == experiment.status()["plugins"]


def test_without_their_packages_they_are_left_out_unless_they_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr("tracelet.collectors.find_spec", lambda module: None)
    with Experiment("x", settings=TraceletSettings(**SETTINGS)) as experiment:
        assert {"environment"} == set(experiment.status()["plugins"])
    monkeypatch.setattr("tracelet.core.plugins.missing", list)
    with pytest.raises(MissingDependencyError, match=r"'system' needs psutil>=5\.9"):
        Experiment("x", collectors=["system"]).start()


class Own(CollectorPlugin):
    @classmethod
    def get_metadata(cls):
        return PluginMetadata("system", "1", PluginType.COLLECTOR)

    def initialize(self, config):
        pass

    start = stop = lambda self: None

    def get_status(self):
        return {}

    def collect(self):
        return [MetricData("mine", 1.0, MetricType.SYSTEM, source="mine")]


def test_one_of_the_users_own_by_that_name_is_used_instead():
    experiment = Experiment("x", settings=TraceletSettings(**SETTINGS))
    experiment.register_plugin(Own())
    with experiment:
        pass
    assert ["mine"] == load_run(experiment.run_dir).names()


def test_a_wrong_setting_costs_only_its_collector(caplog):
    settings = TraceletSettings(plugins={"environment": {"packages": False}, "system": {"gpus": 1}})
    with Experiment("x", settings=settings) as experiment:
        experiment.log_metric("loss", 0.5, 0)
    assert 1 == sum("the settings of the collector 'system' are wrong" in r.getMessage() for r in caplog.records)
    run = load_run(experiment.run_dir)
    assert {"loss", "tracelet/plugin_errors"} == set(run.names())
    assert "env/python/version" in run.params


def test_a_run_that_goes_on_has_them_again():
    experiment = Experiment("x", settings=TraceletSettings(**SETTINGS)).start()
    experiment.stop()
    with experiment.reopen() as again:
        assert set(DEFAULTS) == set(again.status()["plugins"])
    assert 2 == len(load_run(again.run_dir).series("system/memory/rss_bytes"))


def test_no_package_is_imported_by_the_thread_that_starts(tmp_path):
    code = (
        "import sys, threading\nfrom tracelet import Experiment\nimport tracelet.settings\n"
        "names = ('psutil', 'git', 'tracelet.collectors.system_collector')\n"
        "import tracelet.core.collecting as collecting\ncollecting._HEAD_START_S = 1000.0\n"
        "experiment = Experiment('x').start()\nprint([name for name in names if name in sys.modules])\n"
        "experiment.stop()\nprint([name for name in names if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=100)
    before, after = done.stdout.splitlines()
    assert "[]" == before
    assert "psutil" in after


def test_nothing_is_said_where_all_is_well(caplog, tmp_path):
    with caplog.at_level(logging.INFO), Experiment("x", dir=tmp_path / "runs"):
        pass
    assert [] == [record.getMessage() for record in caplog.records if "collector" in record.getMessage()]
