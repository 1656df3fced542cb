"""The code of the plug-in system's specification runs as it was written, against our package.

Every Python snippet is a file in `specification/`. Three things are not as written, since they could not work: the
tests among them index a plain `Mock`, which needs `MagicMock`; `BaseSettings` of pydantic has a package of its own now;
and one snippet of TOML is marked as Python.
"""

from __future__ import annotations

import importlib
import logging
import subprocess
import sys
import tomllib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, Optional

import pytest

from tests.docs.fakes import CONTAINER_ID, FakeNeptune, docker_engine
from tracelet import Experiment, MetricData, MetricType, load_run
from tracelet.core.plugins import BackendPlugin, PluginBase, PluginManager, PluginMetadata, PluginType
from tracelet.core.records import PLUGIN_ERRORS_NAME
from tracelet.testing.framework_contract import ListSink

SPECIFICATION = Path(__file__).parent / "specification"
ROOT = Path(__file__).parents[2]
WAIT_S = 60.0

Load = Callable[[str], ModuleType]


def source(name: str) -> str:
    return (SPECIFICATION / name).read_text()


def run_snippet(snippet: str, **names: Any) -> dict[str, Any]:
    """Run a snippet in which these names are known; gives all names that are known after it."""
    return run_text(source(snippet), {"__name__": "snippet", **names})


def run_text(text: str, names: dict[str, Any]) -> dict[str, Any]:
    exec(compile(text, "snippet", "exec", dont_inherit=True), names)  # noqa: S102  It is part of this project.
    return names


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    """Makes a module of a snippet, under the name that the specification gives it."""

    def load(module: str, snippet: str | None = None, **names: Any) -> ModuleType:
        made = ModuleType(module)
        file = snippet or f"{module.rpartition('.')[2]}.py"
        made.__dict__.update(names)
        monkeypatch.setitem(sys.modules, module, made)
        package, _, name = module.rpartition(".")
        if package:
            try:
                parent = importlib.import_module(package)
            except ModuleNotFoundError:  # A package that does not come with Tracelet yet.
                parent = load_package(package)
            monkeypatch.setattr(parent, name, made, raising=False)
        run_text(source(file), made.__dict__)
        return made

    def load_package(name: str) -> ModuleType:
        package = ModuleType(name)
        package.__path__ = []
        monkeypatch.setitem(sys.modules, name, package)
        return package

    return load


@pytest.fixture
def neptune(monkeypatch: pytest.MonkeyPatch) -> FakeNeptune:
    fake = FakeNeptune()
    monkeypatch.setitem(sys.modules, "neptune", fake)
    return fake


def said(caplog: pytest.LogCaptureFixture, text: str) -> int:
    return sum(text in record.getMessage() for record in caplog.records)


# -- plug-ins and backends ---------------------------------------------------------------------------------------------


def test_backends_are_plugins():
    names = run_snippet(
        "plugin_or_backend.py",
        BackendPlugin=BackendPlugin,
        PluginBase=PluginBase,
        PluginMetadata=PluginMetadata,
        PluginType=PluginType,
    )
    assert issubclass(names["MLflowBackend"], PluginBase)


def test_neptune_backend_gets_what_is_logged(load: Load, neptune: FakeNeptune, tmp_path: Path):
    backend = load("tracelet.backends.neptune_backend").NeptuneBackend()
    model = tmp_path / "model.bin"
    model.write_bytes(b"weights")
    with Experiment("neptune test", backend=backend) as experiment:
        experiment.log_metric("accuracy", 0.5, 0)
        experiment.log_metric("accuracy", 0.75, 1)
        experiment.log_params({"lr": 0.001})
        experiment.log_artifact(model)
        assert experiment.flush(WAIT_S)
        assert ("running", "FAKE-1") == (
            experiment.status()["plugins"]["neptune"]["state"],
            backend.get_status()["run_id"],
        )
    (run,) = neptune.runs
    assert {"project": "workspace/project", "api_token": None, "name": "neptune test"} == run.arguments
    assert {"accuracy": [(0, 0.5), (1, 0.75)]} == run.series
    assert {"parameters/lr": 0.001} == run.values
    assert {"artifacts/model.bin": b"weights"} == run.files
    assert run.stopped
    assert {} == experiment.status()["errors"]


def test_get_backend_knows_it(load: Load):
    backend = load("tracelet.backends.neptune_backend").NeptuneBackend
    registered = load("tracelet.backends", "get_backend.py", __package__="tracelet.backends", __path__=[])
    assert backend is registered.get_backend("neptune")
    assert registered.get_backend("acme") is None


def test_get_backend_of_ours_knows_ours_and_no_other():
    from tracelet.backends import get_backend
    from tracelet.backends.jsonl_backend import JsonLinesBackend

    assert JsonLinesBackend is get_backend("jsonl")
    assert get_backend("acme") is None


def test_settings_for_a_plugin(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TRACELET_NEPTUNE_PROJECT", "team/project")
    text = source("settings.py").replace("from pydantic import", "from pydantic_settings import")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # `class Config` is an idiom of pydantic 1.
        names = run_text(text, {"__name__": "settings", "Optional": Optional})
    settings = names["TraceletSettings"]()
    assert ("team/project", "async") == (settings.neptune_project, settings.neptune_mode)


# -- the JAX framework -------------------------------------------------------------------------------------------------


class Sgd(NamedTuple):
    """An optimizer that knows its learning rate, as the snippet looks for."""

    init: Callable[..., Any]
    update: Callable[..., Any]
    learning_rate: float


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Any]]:
    """Three steps of a real Flax training."""
    import jax.numpy as jnp
    import optax
    from flax.training.train_state import TrainState

    # What a snippet puts in their place, and does not take back, must not outlive the test.
    monkeypatch.setattr(TrainState, "apply_gradients", TrainState.apply_gradients)
    monkeypatch.setattr(optax.GradientTransformation, "update", optax.GradientTransformation.update)

    def train() -> Any:
        transform = optax.sgd(0.25)
        optimizer = Sgd(transform.init, transform.update, 0.25)
        state = TrainState.create(apply_fn=None, params={"w": jnp.ones(2)}, tx=optimizer)
        for _ in range(3):
            state = state.apply_gradients(grads={"w": jnp.ones(2)})
        return state.params["w"].tolist()

    return train


def test_jax_framework_records_the_learning_rate_and_restores_what_it_replaced(load: Load, train: Callable[[], Any]):
    from flax.training.train_state import TrainState

    before = TrainState.apply_gradients
    experiment = Experiment("jax test")
    experiment.register_plugin(load("tracelet.frameworks.jax_framework").JAXFramework())
    with experiment:
        assert before is not TrainState.apply_gradients
        assert [0.25, 0.25] == train()
        assert ["jax_framework"] == experiment.status()["sources"]
    assert before is TrainState.apply_gradients
    train()
    series = load_run(experiment.run_dir).series("learning_rate")
    assert ([0, 1, 2], [0.25] * 3) == (series.steps.tolist(), series.values.tolist())


def test_jax_framework_emits_nothing_without_an_experiment(load: Load, train: Callable[[], Any]):
    plugin = load("tracelet.frameworks.jax_framework").JAXFramework()
    plugin.initialize({})
    plugin.start()
    assert {"patched": True} == plugin.get_status()
    sink = ListSink()
    train()
    plugin.set_experiment(sink)
    train()
    plugin.stop()
    assert ["learning_rate"] * 3 == [record.name for record in sink.records]


def test_advanced_jax_framework_that_lacks_a_method_is_reported_and_the_run_goes_on(
    load: Load, train: Callable[[], Any], caplog: pytest.LogCaptureFixture
):
    names = run_snippet("advanced_jax_framework.py", **vars(load("tracelet.frameworks.jax_framework")))
    experiment = Experiment("jax test")
    experiment.register_plugin(names["AdvancedJAXFramework"]())
    with experiment:
        experiment.log_metric("loss", 0.5, 0)
    assert 1 == said(caplog, "the framework plug-in 'jax' can't start")
    assert {"jax": 1} == experiment.status()["errors"]
    run = load_run(experiment.run_dir)
    assert ("finished", [0.5]) == (run.status.value, run.series("loss").values.tolist())
    assert [1.0] == run.series(PLUGIN_ERRORS_NAME).values.tolist()


# -- the Docker collector ----------------------------------------------------------------------------------------------


@pytest.fixture
def engine(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with docker_engine(tmp_path_factory.mktemp("d") / "s") as host:
        monkeypatch.setenv("DOCKER_HOST", host)
        yield


def test_docker_collector_outside_of_a_container_collects_nothing(load: Load, engine: None):
    collector = load("tracelet.collectors.docker_collector").DockerCollector()
    experiment = Experiment("docker test")
    experiment.register_plugin(collector)
    with experiment:
        pass
    assert [] == load_run(experiment.run_dir).names()
    assert {} == experiment.status()["errors"]
    assert {"active": False, "container_id": None, "interval": 30.0} == collector.get_status()
    collector._docker_client.close()


def test_docker_collector_records_what_the_engine_says(load: Load, engine: None, monkeypatch: pytest.MonkeyPatch):
    collector_class = load("tracelet.collectors.docker_collector").DockerCollector
    monkeypatch.setattr(collector_class, "_detect_current_container", lambda self: CONTAINER_ID)
    collector = collector_class()
    collector.initialize({"interval": 5})
    assert [] == collector.collect()  # Not started yet.
    collector.start()
    records = {record.name: record for record in collector.collect()}
    collector.stop()
    assert {"docker/cpu_percent": 40.0, "docker/memory_percent": 25.0} == {
        name: record.value for name, record in records.items()
    }
    assert {(MetricType.SYSTEM, "docker_collector")} == {(record.type, record.source) for record in records.values()}
    collector._docker_client.close()


def test_docker_collector_without_an_engine_is_reported_and_the_run_goes_on(
    load: Load, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    experiment = Experiment("docker test")
    experiment.register_plugin(load("tracelet.collectors.docker_collector").DockerCollector())
    with experiment:
        experiment.log_metric("loss", 0.5, 0)
    assert 1 == said(caplog, "the collector 'docker' can't start")
    assert "finished" == load_run(experiment.run_dir).status.value


# -- registration ------------------------------------------------------------------------------------------------------


def test_plugins_can_be_registered_by_hand(load: Load, neptune: FakeNeptune, train: Callable[[], Any]):
    load("tracelet.backends.neptune_backend")
    load("tracelet.frameworks.jax_framework")
    experiment = run_snippet("manual_registration.py")["exp"]
    train()
    experiment.stop()
    (run,) = neptune.runs
    assert {"learning_rate": [(0, 0.25), (1, 0.25), (2, 0.25)]} == run.series


def test_plugins_are_discovered_by_their_entry_points(
    load: Load, neptune: FakeNeptune, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    load("tracelet.backends.neptune_backend")
    install_entry_points(tmp_path / "packages")
    monkeypatch.syspath_prepend(tmp_path / "packages")
    monkeypatch.setattr(PluginManager, "_installed", None)
    monkeypatch.setenv("TRACELET_DELIVERY", "thread")  # Another process would not have the fake of the SDK.
    run_snippet("tests_of_integration.py")["test_neptune_integration"]()
    (run,) = neptune.runs
    assert {"test_accuracy": [(1, 0.95)]} == run.series
    assert {"parameters/learning_rate": 0.001, "parameters/batch_size": 32} == run.values


def install_entry_points(place: Path) -> None:
    groups = tomllib.loads(source("entry_points.toml"))["project"]["entry-points"]
    info = place / "spec_plugins-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: spec-plugins\nVersion: 1.0\n")
    lines = [
        f"[{group}]\n" + "".join(f"{name} = {target}\n" for name, target in of.items()) for group, of in groups.items()
    ]
    (info / "entry_points.txt").write_text("\n".join(lines))


def test_package_of_a_plugin_names_its_backend():
    package = tomllib.loads(source("pyproject_of_a_plugin.toml"))
    assert {"tracelet.backends": {"neptune": "tracelet_neptune:NeptuneBackend"}} == package["project"]["entry-points"]


# -- its own tests -----------------------------------------------------------------------------------------------------

CONFTEST = """
import sys
from types import ModuleType
import tracelet.backends

made = ModuleType("tracelet.backends.neptune_backend")
sys.modules[made.__name__] = tracelet.backends.neptune_backend = made
exec(open({path!r}).read(), made.__dict__)
"""


@pytest.mark.parametrize("tests", ["tests_of_neptune_backend.py", "tests_of_units.py"])
def test_tests_of_the_specification_pass(tests: str, tmp_path: Path):
    text = source(tests)
    mended = text.replace("from unittest.mock import Mock, patch", "from unittest.mock import MagicMock as Mock, patch")
    assert text != mended
    (tmp_path / "test_snippet.py").write_text(mended)
    (tmp_path / "conftest.py").write_text(CONFTEST.format(path=str(SPECIFICATION / "neptune_backend.py")))
    command = [sys.executable, "-m", "pytest", "-q", "--strict-markers", "test_snippet.py"]
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    done = subprocess.run(command, check=False, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert "2 passed" in done.stdout, done.stdout + done.stderr


# -- good manners ------------------------------------------------------------------------------------------------------


def test_backend_that_reports_its_own_errors_makes_no_endless_stream_of_them():
    logger = logging.getLogger("plug-in")
    names = run_snippet("error_handling.py", MetricData=MetricData, MetricType=MetricType, logger=logger)

    class Faulty(BackendPlugin):
        handle_metric = names["handle_metric"]

        @classmethod
        def get_metadata(cls):
            return PluginMetadata("faulty", "1", PluginType.BACKEND)

        def initialize(self, config):
            self.seen: list[str] = []

        def start(self):
            pass

        def stop(self):
            pass

        def get_status(self):
            return {}

        def _validate_metric(self, metric):
            return metric.name != "unwanted"

        def _process_metric(self, metric):
            self.seen.append(metric.name)
            raise RuntimeError("the service hiccups")

    backend = Faulty()
    with Experiment("errors", backend=backend) as experiment:
        for name in ("loss", "unwanted", "accuracy"):
            experiment.log_metric(name, 0.5, 0)
            assert experiment.flush(WAIT_S)
        assert experiment.flush(WAIT_S)
    assert ["loss", "accuracy"] == [name for name in backend.seen if not name.startswith("tracelet/")]
    run = load_run(experiment.run_dir)
    assert 2 == len(run.series(PLUGIN_ERRORS_NAME)) == backend.seen.count(PLUGIN_ERRORS_NAME)
    assert "finished" == run.status.value


def test_resource_managed_plugin_cleans_up_whatever_happens(caplog: pytest.LogCaptureFixture):
    names = run_snippet("resource_management.py", PluginBase=PluginBase, logger=logging.getLogger("plug-in"))

    class Client:
        def close(self):
            raise OSError("already closed")

    class Managed(names["ResourceManagedPlugin"]):
        @classmethod
        def get_metadata(cls):
            return PluginMetadata("managed", "1", PluginType.COLLECTOR)

        def initialize(self, config):
            self._client = Client()

        def start(self):
            self._active = True

        def get_status(self):
            return {"active": self._active}

        def collect(self):
            return []

    plugin = Managed()
    plugin.initialize({})
    with plugin:
        assert {"active": True} == plugin.get_status()
    assert {"active": False} == plugin.get_status()
    assert 1 == said(caplog, "Error during cleanup: already closed")

    experiment = Experiment("resources")
    experiment.register_plugin(Managed())
    with experiment:
        pass
    assert "stopped" == experiment.status()["plugins"]["managed"]["state"]


def test_configuration_is_validated_by_a_model():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # `validator` is an idiom of pydantic 1.
        names = run_snippet("configuration_validation.py", BackendPlugin=BackendPlugin, Dict=dict, Any=Any)
    seen = []

    class Neptune(names["NeptuneBackend"]):
        _setup_neptune = staticmethod(seen.append)

    initialize = Neptune.initialize
    initialize(Neptune, {"project": "team/project", "api_token": "t", "run_name": "a fact about the run"})
    assert ("team/project", "async") == (seen[0].project, seen[0].mode)
    for wrong in ({"project": "project"}, {"mode": "later"}):
        with pytest.raises(ValueError, match="must be"):
            initialize(Neptune, {"project": "team/project", "api_token": "t", **wrong})
