from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tracelet.core.plugins import (
    BackendPlugin,
    CollectorPlugin,
    FrameworkPlugin,
    ManagedPlugin,
    PluginBase,
    PluginManager,
    PluginMetadata,
    PluginState,
    PluginType,
    ProcessorPlugin,
)
from tracelet.core.records import MetricData, MetricSource, MetricType
from tracelet.errors import (
    MissingDependencyError,
    PartialDeliveryError,
    PluginContractError,
    PluginError,
    PluginNotFoundError,
)
from tracelet.testing import MemoryBackend


class Bare(PluginBase):
    """The least that a plug-in needs. Of which kind it is, its instance says."""

    def __init__(self, metadata: object) -> None:
        self.get_metadata = lambda: metadata
        self.calls: list[Any] = []

    @classmethod
    def get_metadata(cls):
        raise NotImplementedError

    def initialize(self, config):
        self.calls.append(config)

    def start(self):
        self.calls.append("start")

    def stop(self):
        self.calls.append("stop")

    def get_status(self):
        return {"calls": len(self.calls)}


class WithCollect(Bare):
    def collect(self):
        return []


class WithExperiment(Bare, MetricSource):
    """As the guide's framework plug-in inherits."""

    def get_source_id(self):
        return "bare"

    def set_experiment(self, experiment):
        self.calls.append(experiment)


def metadata(kind: PluginType = PluginType.COLLECTOR, **fields: Any) -> PluginMetadata:
    return PluginMetadata(**{"name": "bare", "version": "1", "type": kind, **fields})


# -- the contract ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "methods"),
    [
        (PluginBase, set()),
        (BackendPlugin, {"handle_metric"}),
        (CollectorPlugin, {"collect"}),
        (FrameworkPlugin, set()),
        (ProcessorPlugin, {"process"}),
    ],
)
def test_plugin_of_a_kind_cannot_be_made_without_its_methods(kind: type[PluginBase], methods: set[str]):
    assert {"get_metadata", "initialize", "start", "stop", "get_status"} | methods == kind.__abstractmethods__


@pytest.mark.parametrize(
    "plugin",
    [WithCollect(metadata(PluginType.COLLECTOR)), WithExperiment(metadata(PluginType.FRAMEWORK)), MemoryBackend()],
    ids=["collector", "framework", "backend"],
)
def test_kind_is_a_matter_of_methods_and_of_what_the_metadata_says(plugin: PluginBase):
    assert PluginState.REGISTERED is ManagedPlugin(plugin, {}).state


@pytest.mark.parametrize("kind", PluginType)
def test_plugin_without_the_methods_of_its_kind_is_refused(kind: PluginType):
    with pytest.raises(PluginContractError, match=f"'bare' says that it is a {kind.value}, but it "):
        ManagedPlugin(Bare(metadata(kind)), {})


@pytest.mark.parametrize(
    "wrong", [None, {"name": "bare"}, metadata(name=""), metadata(type="collector")], ids=["none", "dict", "", "type"]
)
def test_wrong_metadata_is_refused(wrong: object):
    with pytest.raises(PluginContractError, match=r"WithCollect\.get_metadata\(\)"):
        ManagedPlugin(WithCollect(wrong), {})


def test_missing_dependency_is_said_with_the_line_that_installs_it():
    plugin = WithCollect(metadata(dependencies=["pytest", "no-such-package>=3", "pytest>=999"]))
    with pytest.raises(MissingDependencyError, match=r"pip install 'no-such-package>=3' 'pytest>=999'"):
        ManagedPlugin(plugin, {}).check_dependencies()


def test_default_batch_says_how_many_arrived():
    backend = MemoryBackend()
    backend.reject(lambda metric: metric.name == "bad")
    batch = [MetricData(name, 1.0, MetricType.SCALAR) for name in ("a", "b", "bad", "c")]
    with pytest.raises(PartialDeliveryError) as caught:
        BackendPlugin.handle_batch(backend, batch)
    assert (2, "RejectedError") == (caught.value.delivered, type(caught.value.__cause__).__name__)


# -- a plug-in's life --------------------------------------------------------------------------------------------------


def test_settings_of_the_plugin_win_over_facts_about_the_run():
    managed = ManagedPlugin(plugin := WithCollect(metadata()), {"url": "x", "run_name": "mine"})
    managed.initialize({"run_name": "theirs", "run_id": "r1"})
    assert [{"url": "x", "run_name": "mine", "run_id": "r1"}] == plugin.calls


def test_state_goes_from_registered_to_stopped_and_stop_comes_once():
    managed = ManagedPlugin(plugin := WithCollect(metadata()), {})
    states = [managed.state]
    for step in (lambda: managed.initialize({}), managed.start, managed.stop, managed.stop):
        step()
        states.append(managed.state)
    assert ["registered", "initialized", "running", "stopped", "stopped"] == [state.value for state in states]
    assert [{}, "start", "stop"] == plugin.calls


def test_what_was_never_initialized_is_not_stopped():
    managed = ManagedPlugin(plugin := WithCollect(metadata()), {})
    managed.stop()
    assert [] == plugin.calls


def test_what_has_failed_is_stopped_and_stays_failed():
    managed = ManagedPlugin(plugin := WithCollect(metadata()), {})
    managed.initialize({})
    managed.fail(ValueError("wrong key"))
    managed.stop()
    assert ([{}, "stop"], PluginState.FAILED) == (plugin.calls, managed.state)
    assert "ValueError: wrong key" == managed.get_status()["error"]


def test_status_of_a_plugin_that_cannot_tell_it_is_its_state():
    managed = ManagedPlugin(plugin := WithCollect(metadata()), {})
    assert {"calls": 0, "type": "collector", "state": "registered", "error": None} == managed.get_status()
    plugin.get_status = lambda: 1 / 0
    assert "ZeroDivisionError: division by zero" == managed.get_status()["status_error"]


# -- registration ------------------------------------------------------------------------------------------------------


def test_registered_plugin_is_listed_by_its_kind():
    manager = PluginManager()
    backend = manager.register_plugin(MemoryBackend())
    collector = manager.register_plugin(WithCollect(metadata()))
    assert [backend] == manager.of_type(PluginType.BACKEND)
    assert [backend, collector] == list(manager)
    assert ("bare" in manager, "acme" in manager) == (True, False)
    assert ["memory", "bare"] == list(manager.get_status())
    assert backend is manager.load("memory")


def test_what_is_no_instance_is_refused():
    with pytest.raises(PluginContractError, match="takes an instance of a plug-in, not <class"):
        PluginManager().register_plugin(MemoryBackend)


def test_name_that_is_taken_is_refused():
    manager = PluginManager()
    manager.register_plugin(MemoryBackend())
    with pytest.raises(PluginContractError, match="'memory' is registered already"):
        manager.register_plugin(MemoryBackend())


def test_the_same_instance_is_registered_once():
    manager, backend = PluginManager(), MemoryBackend()
    assert manager.register_plugin(backend) is manager.register_plugin(backend)
    assert 1 == len(list(manager))


def test_settings_reach_a_registered_instance_and_its_own_configuration_wins():
    manager = PluginManager(configuration=lambda name: {"name": name, "url": "from the settings"})
    managed = manager.register_plugin(MemoryBackend(), {"url": "given"})
    assert {"name": "memory", "url": "given"} == managed.config


# -- discovery ---------------------------------------------------------------------------------------------------------

GOOD = """
from tracelet.testing import MemoryBackend
def make():
    return MemoryBackend("acme")
"""

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a package with entry points, and a module of that name, on the path."""
    place = tmp_path / "packages"
    place.mkdir()
    monkeypatch.syspath_prepend(place)
    monkeypatch.setattr(PluginManager, "_installed", None)

    def install(package: str, code: str, entry_points: str) -> None:
        (place / f"{package}.py").write_text(code)
        info = place / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(entry_points)
        monkeypatch.delitem(sys.modules, package, raising=False)
        importlib.invalidate_caches()

    return install


@pytest.mark.parametrize("group", ["tracelet.backends", "tracelet.plugins"])
def test_installed_plugin_is_found_by_its_name(install: Install, group: str):
    install("acme_tracker", GOOD, f"[{group}]\nacme = acme_tracker:make\n")
    managed = PluginManager().load("acme")
    assert ("acme", PluginType.BACKEND) == (managed.name, managed.metadata.type)


def test_listing_imports_nothing(install: Install):
    install("acme_tracker", GOOD, "[tracelet.backends]\nacme = acme_tracker:make\n")
    (found,) = [plugin for plugin in PluginManager.installed() if plugin.name == "acme"]
    assert ("acme_tracker 1.0", "acme_tracker:make") == (found.package, found.target)
    assert "acme_tracker" not in sys.modules


@pytest.mark.parametrize(
    ("code", "target", "error", "text"),
    [
        ("import no_such_sdk", "broken:make", MissingDependencyError, "No module named 'no_such_sdk'"),
        ("1 / 0", "broken:make", PluginError, "ZeroDivisionError"),
        ("", "broken:make", PluginError, "has no attribute 'make'"),
        ("def make(): return 3", "broken:make", PluginContractError, "no plug-in"),
        ("", "no_such_module:make", MissingDependencyError, "no_such_module"),
        ("", "not a target", PluginError, "can't be loaded"),
    ],
)
def test_broken_plugin_is_an_error_of_its_own_and_of_no_other(
    install: Install, code: str, target: str, error: type[PluginError], text: str
):
    install("broken", code, f"[tracelet.backends]\nbroken = {target}\n")
    install("acme_tracker", GOOD, "[tracelet.backends]\nacme = acme_tracker:make\n")
    manager = PluginManager()
    with pytest.raises(error, match=text) as caught:
        manager.load("broken")
    assert "broken 1.0" in str(caught.value)
    assert "acme" == manager.load("acme").name
    assert "broken" not in manager


def test_package_with_damaged_entry_points_is_left_out(install: Install, caplog: pytest.LogCaptureFixture):
    install("damaged", "", "[tracelet.backends]\nthis is no entry point\n")
    install("acme_tracker", GOOD, "[tracelet.backends]\nacme = acme_tracker:make\n")
    assert "acme" == PluginManager().load("acme").name
    assert "entry points of damaged" in caplog.text


def test_unknown_plugin_is_an_error_that_names_near_ones(install: Install):
    install("acme_tracker", GOOD, "[tracelet.backends]\nacme = acme_tracker:make\n")
    with pytest.raises(PluginNotFoundError, match=r"no plug-in 'acne' \(did you mean 'acme'\?\) is installed.*jsonl"):
        PluginManager().load("acne")


@pytest.mark.parametrize("rules", [{"deny": ["acme"]}, {"allow": ["jsonl"]}, {"allow": []}])
def test_plugin_that_is_not_allowed_is_not_imported(install: Install, rules: dict[str, Any]):
    install("acme_tracker", GOOD, "[tracelet.backends]\nacme = acme_tracker:make\n")
    with pytest.raises(PluginNotFoundError, match="the settings do not allow it"):
        PluginManager(**rules).load("acme")
    assert "acme_tracker" not in sys.modules
    assert "acme" == PluginManager(allow=["acme"]).load("acme").name


def test_plugin_that_calls_itself_otherwise_is_refused(install: Install):
    install("acme_tracker", GOOD, "[tracelet.backends]\nacne = acme_tracker:make\n")
    manager = PluginManager()
    with pytest.raises(PluginContractError, match=r"'acne' of acme_tracker 1\.0 calls itself 'acme'"):
        manager.load("acne")
    assert [] == list(manager)


def test_installed_plugin_wins_over_ours_of_the_same_name(install: Install, caplog: pytest.LogCaptureFixture):
    install("mine", GOOD.replace("acme", "jsonl"), "[tracelet.backends]\njsonl = mine:make\n")
    assert isinstance(PluginManager().load("jsonl").plugin, MemoryBackend)
    assert "mine 1.0 brings the plug-in 'jsonl'; that of tracelet" in caplog.text


def test_package_that_names_a_plugin_in_both_groups_brings_one(install: Install, caplog: pytest.LogCaptureFixture):
    line = "acme = acme_tracker:make\n"
    install("acme_tracker", GOOD, f"[tracelet.backends]\n{line}[tracelet.plugins]\n{line}")
    assert "acme" == PluginManager().load("acme").name
    assert [] == caplog.records
