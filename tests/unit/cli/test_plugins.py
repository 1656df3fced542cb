from __future__ import annotations

import importlib.metadata
import sys

import pytest

from tracelet.core.plugins import FoundPlugin, PluginManager

SOURCES = {
    "good_plugin": """
from tracelet.testing.memory_backend import MemoryBackend
Plugin = MemoryBackend
""",
    "needy_plugin": """
import tracelet
class Plugin(tracelet.CollectorPlugin):
    @classmethod
    def get_metadata(cls):
        kind = tracelet.PluginType.COLLECTOR
        return tracelet.PluginMetadata("needy", "1.2", kind, dependencies=["no-such-package>=3"])
    def initialize(self, config): ...
    def start(self): ...
    def stop(self): ...
    def get_status(self): return {}
    def collect(self): return []
""",
    "broken_plugin": "raise RuntimeError('boom \\x1b[2J')",
}


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Three plug-ins: a good one, one that lacks a package, and a broken one."""
    monkeypatch.syspath_prepend(tmp_path)
    found = []
    for module, source in SOURCES.items():
        (tmp_path / f"{module}.py").write_text(source)
        monkeypatch.delitem(sys.modules, module, raising=False)
        name, target = module.removesuffix("_plugin"), f"{module}:Plugin"
        entry_point = importlib.metadata.EntryPoint(name, target, "tracelet.plugins")
        found.append(FoundPlugin(name, "tracelet.plugins", target, "acme 2.0", entry_point))
    monkeypatch.setattr(PluginManager, "_installed", tuple(found))


def test_listing_imports_nothing(installed, tracelet, read_json):
    output = tracelet("plugins").stdout
    assert ["broken", "tracelet.plugins", "acme", "2.0", "broken_plugin:Plugin"] == output.splitlines()[1].split()
    assert ["broken", "good", "needy"] == [plugin["name"] for plugin in read_json("plugins")]
    assert not SOURCES.keys() & set(sys.modules)


def test_check_tells_good_needy_and_broken_apart(installed, tracelet, read_json):
    output = tracelet("plugins", "--check", code=1).stdout
    rows = {line.split()[0]: line.split()[1:] for line in output.splitlines()[1:4]}
    assert ["backend", "ok"] == [rows["good"][0], rows["good"][2]]
    assert ["collector", "1.2", "not", "ready", "acme", "2.0"] == rows["needy"]
    assert ["?", "?", "broken", "acme", "2.0"] == rows["broken"]
    assert "no-such-package>=3, which is not installed. Install it with: pip install 'no-such-package>=3'" in output
    assert "RuntimeError: boom \\x1b[2J" in output
    states = {plugin["name"]: plugin["state"] for plugin in read_json("plugins", "--check", code=1)}
    assert {"good": "ok", "needy": "not ready", "broken": "broken"} == states


def test_check_of_good_ones_succeeds(installed, tracelet, monkeypatch):
    good = [plugin for plugin in PluginManager.installed() if plugin.name != "broken"]
    monkeypatch.setattr(PluginManager, "_installed", tuple(good))
    assert "broken" not in tracelet("plugins", "--check").stdout


def test_nothing_installed_is_said(tracelet, monkeypatch):
    monkeypatch.setattr(PluginManager, "_installed", ())
    assert "No plug-ins are installed.\n" == tracelet("plugins").stdout
