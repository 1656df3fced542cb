from __future__ import annotations

import importlib.metadata

import pytest

from tracelet import __version__
from tracelet.core.plugins import FoundPlugin, PluginManager


def test_a_healthy_installation_is_told_to_be_so(tracelet, read_json, tmp_path):
    output = tracelet("doctor").stdout
    assert output.endswith("Nothing would fail.\n")
    assert all(len(line) <= 80 or "tracelet_runs" in line for line in output.splitlines())
    facts = read_json("doctor")
    assert [] == facts["problems"]
    assert __version__ == facts["system"]["tracelet"]
    assert facts["run_directory"]["path"].startswith(str(tmp_path / "tracelet_runs"))
    assert "numpy" in facts["packages"]
    assert not (tmp_path / "tracelet_runs").exists()


def test_settings_are_shown_with_their_origin(tracelet, read_json, monkeypatch):
    monkeypatch.setenv("TRACELET_PROJECT", "digits")
    (line,) = [line for line in tracelet("doctor").stdout.splitlines() if line.startswith("  project")]
    assert ["project", "digits", "from", "environment", "TRACELET_PROJECT"] == line.split()
    settings = read_json("doctor")["settings"]
    assert {"value": "digits", "origin": "environment TRACELET_PROJECT"} == settings["project"]
    assert {"value": 60.0, "origin": "default"} == settings["stop_timeout_s"]


def test_no_credential_is_shown(tracelet, monkeypatch):
    monkeypatch.setenv("TRACELET_PLUGINS__ACME__API_KEY", "hunter2")
    monkeypatch.setenv("TRACELET_PLUGINS__ACME__URL", "https://me:hunter2@acme.example/x?access_token=hunter2")
    monkeypatch.setenv("TRACELET_PLUGINS__ACME__TOKENS", "hunter2")
    for option in ([], ["--json"]):
        output = tracelet("doctor", *option).stdout
        assert "acme.example" in output
        assert "hunter2" not in output


def test_a_wrong_setting_is_a_problem(tracelet, read_json, monkeypatch):
    monkeypatch.setenv("TRACELET_PROJCT", "digits")
    output = tracelet("doctor", code=1).stdout
    assert "did you mean TRACELET_PROJECT?" in output
    assert "Packages" in output
    assert 1 == len(read_json("doctor", code=1)["problems"])


def test_a_backend_that_is_not_there_is_a_problem(tracelet, monkeypatch):
    monkeypatch.setenv("TRACELET_BACKEND", "memroy,memory")
    output = tracelet("doctor", code=1).stdout
    assert "Problem: no plug-in 'memroy' (did you mean 'memory'?) is installed" in output
    assert 1 == output.count("Problem")


@pytest.fixture
def acme(tmp_path, monkeypatch):
    """A backend that wants a setting, from a package of its own."""
    (tmp_path / "acme_plugin.py").write_text("""
import tracelet
from tracelet.errors import SettingsError
class Plugin(tracelet.BackendPlugin):
    @classmethod
    def get_metadata(cls):
        return tracelet.PluginMetadata("acme", "1", tracelet.PluginType.BACKEND)
    @classmethod
    def validate_config(cls, config):
        if "url" not in config:
            raise SettingsError("acme needs a url: set TRACELET_PLUGINS__ACME__URL")
    def initialize(self, config): raise AssertionError("the doctor connects to nothing")
    def start(self): ...
    def stop(self): ...
    def get_status(self): return {}
    def handle_metric(self, metric): ...
""")
    monkeypatch.syspath_prepend(tmp_path)
    entry_point = importlib.metadata.EntryPoint("acme", "acme_plugin:Plugin", "tracelet.backends")
    found = FoundPlugin("acme", "tracelet.backends", entry_point.value, "acme 2.0", entry_point)
    monkeypatch.setattr(PluginManager, "_installed", (found,))


def test_a_backend_with_wrong_settings_is_a_problem_until_they_are_right(acme, tracelet, monkeypatch):
    monkeypatch.setenv("TRACELET_BACKEND", "acme")
    assert "Problem: acme needs a url: set TRACELET_PLUGINS__ACME__URL" in tracelet("doctor", code=1).stdout
    monkeypatch.setenv("TRACELET_PLUGINS__ACME__URL", "https://acme.example")
    assert "acme  backend, ready" in tracelet("doctor").stdout


def test_a_backend_named_as_a_collector_is_a_problem(acme, tracelet, monkeypatch):
    monkeypatch.setenv("TRACELET_COLLECTORS", "acme")
    assert "the plug-in 'acme' is a backend, and no collector" in tracelet("doctor", code=1).stdout


def test_settings_of_an_unknown_plugin_are_noted(acme, tracelet, monkeypatch):
    monkeypatch.setenv("TRACELET_PLUGINS__AMCE__URL", "x")
    assert "Note: The settings configure plug-ins that are not installed: amce." in tracelet("doctor").stdout


def test_a_run_directory_below_a_file_is_a_problem(tracelet, tmp_path):
    (tmp_path / "file").touch()
    assert "is a file. Set `dir`" in tracelet("doctor", "--dir", str(tmp_path / "file" / "runs"), code=1).stdout


def test_a_run_directory_that_cannot_be_written_is_a_problem(tracelet, read_json):
    assert "Problem: /sys can't be written to: " in tracelet("doctor", "--dir", "/sys/runs", code=1).stdout
    assert (
        "write (by system calls)" == read_json("doctor", "--dir", "/sys/runs", code=1)["run_directory"]["journal mode"]
    )
