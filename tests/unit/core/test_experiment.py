from __future__ import annotations

import dataclasses
import os
import sys
import threading
from argparse import Namespace
from pathlib import Path
from typing import Any

import omegaconf
import pytest

import tracelet
from tracelet import BackendPlugin, Experiment, MetricData, MetricType, PluginMetadata, PluginType, TraceletSettings
from tracelet.errors import (
    ExperimentStateError,
    InvalidNameError,
    PluginNotFoundError,
    SettingsError,
    UsageError,
)


class Listing(BackendPlugin):
    """Keeps the names of what it gets; waits for `allowed` before each record."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.got = threading.Event()
        self.allowed = threading.Event()
        self.allowed.set()

    @classmethod
    def get_metadata(cls) -> PluginMetadata:
        return PluginMetadata("listing", "1", PluginType.BACKEND)

    def initialize(self, config: dict[str, Any]) -> None:
        self.facts = config

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass

    def get_status(self) -> dict[str, Any]:
        return {}

    def get_url(self) -> str | None:
        return "http://tracker/run"

    def handle_metric(self, metric: MetricData) -> None:
        self.got.set()
        self.allowed.wait()
        self.names.append(metric.name)


# -- start and stop ----------------------------------------------------------------------------------------------------


def test_nothing_is_written_before_start():
    experiment = Experiment("e", config={"lr": 1}, tags=["t"])
    assert not Path("tracelet_runs").exists()
    assert not experiment.is_running


def test_a_started_run_reads_as_running_and_a_stopped_one_as_finished():
    experiment = Experiment("e").start()
    assert "running" == tracelet.load_run(experiment.run_dir).status.value
    experiment.stop()
    assert "finished" == tracelet.load_run(experiment.run_dir).status.value
    assert not experiment.is_running


def test_config_and_tags_are_recorded_at_the_start():
    with Experiment("e", config={"optimizer": {"lr": 0.1}}, tags={"stage": "draft"}) as experiment:
        run = tracelet.load_run(experiment.run_dir)
    assert {"optimizer/lr": 0.1} == run.params
    assert {"stage": "draft"} == run.tags


@dataclasses.dataclass
class Config:
    lr: float
    layers: list[int]


@pytest.mark.parametrize(
    "config",
    [
        {"lr": 0.1, "layers": [1, 2]},
        Namespace(lr=0.1, layers=[1, 2]),
        Config(0.1, [1, 2]),
        omegaconf.OmegaConf.create({"lr": 0.1, "layers": [1, 2]}),
    ],
    ids=lambda config: type(config).__name__,
)
def test_config_may_have_any_shape(config: Any):
    with Experiment("e", config=config) as experiment:
        pass
    assert {"lr": 0.1, "layers": [1, 2]} == tracelet.load_run(experiment.run_dir).params


@pytest.mark.parametrize("tags", ["draft", ["draft"], ("draft",), {"draft"}, {"draft": ""}], ids=repr)
def test_tags_may_be_words_or_a_mapping(tags: Any):
    with Experiment("e", tags=tags) as experiment:
        pass
    assert {"draft": ""} == tracelet.load_run(experiment.run_dir).tags


def test_tags_are_those_of_the_moment_when_the_experiment_was_made():
    tags = {"stage": "draft"}
    experiment = Experiment("e", tags=tags)
    tags["stage"] = "final"
    experiment.start().stop()
    assert {"stage": "draft"} == tracelet.load_run(experiment.run_dir).tags


def test_starting_twice_raises():
    experiment = Experiment("e").start()
    with pytest.raises(ExperimentStateError, match=f"run_id='{experiment.run_id}'"):
        experiment.start()
    experiment.stop()
    with pytest.raises(ExperimentStateError, match="started before"):
        experiment.start()


def test_stopping_twice_keeps_the_first_status():
    experiment = Experiment("e").start()
    experiment.stop("failed", error="why")
    experiment.stop()
    run = tracelet.load_run(experiment.run_dir)
    assert ("failed", "why") == (run.status.value, run.error)


def test_stopping_before_start_does_nothing():
    experiment = Experiment("e")
    experiment.stop()
    assert not experiment.run_dir.exists()
    assert experiment.start().is_running


def test_stopping_in_another_thread():
    experiment = Experiment("e").start()
    thread = threading.Thread(target=experiment.stop)
    thread.start()
    thread.join()
    assert "finished" == tracelet.load_run(experiment.run_dir).status.value
    assert Experiment.active() is None


def test_of_two_threads_that_stop_one_does_it_and_the_other_returns():
    backend = Listing()
    backend.allowed.clear()
    experiment = Experiment("e", backend).start()
    experiment.log_metric("a", 1.0)
    first = threading.Thread(target=experiment.stop)
    first.start()
    backend.got.wait()
    while experiment.is_running:
        threading.Event().wait(0.001)
    experiment.stop("failed")
    assert first.is_alive()
    backend.allowed.set()
    first.join()
    assert "finished" == tracelet.load_run(experiment.run_dir).status.value
    assert 1 == len([name for name in backend.names if name == "tracelet/status"])


@pytest.mark.parametrize("status", ["finished", "failed", tracelet.RunStatus.FAILED])
def test_a_run_ends_as_it_is_told(status: Any):
    experiment = Experiment("e").start()
    experiment.stop(status)
    assert tracelet.RunStatus(status) is tracelet.load_run(experiment.run_dir).status


@pytest.mark.parametrize("status", ["done", "killed", "running", None, 0, tracelet.RunStatus.KILLED, []])
def test_a_run_does_not_end_in_another_way(status: Any):
    experiment = Experiment("e").start()
    with pytest.raises(UsageError, match="'finished' or 'failed'"):
        experiment.stop(status)
    assert experiment.is_running


def test_a_thread_that_logs_during_stop_gets_an_error_and_loses_nothing():
    experiment = Experiment("e").start()
    logged = 0
    ready, ended = threading.Event(), threading.Event()

    def log() -> None:
        nonlocal logged
        while True:
            try:
                experiment.log_metric("a", float(logged), logged)
            except ExperimentStateError:
                ended.set()
                return
            logged += 1
            ready.set()

    thread = threading.Thread(target=log)
    thread.start()
    ready.wait()
    experiment.stop()
    assert ended.wait(30)
    thread.join()
    run = tracelet.load_run(experiment.run_dir)
    assert logged == len(run.series("a")) + experiment.status()["lost"]


def test_a_series_that_a_slow_call_defines_during_stop_takes_no_records_afterwards(monkeypatch: pytest.MonkeyPatch):
    experiment = Experiment("e").start()
    journal = experiment._journal
    close = journal.close

    def define_and_close() -> None:
        journal.define("late")
        close()

    monkeypatch.setattr(journal, "close", define_and_close)
    experiment.stop()
    with pytest.raises(ExperimentStateError):
        experiment.log_metric("late", 1.0, 0)


# -- with --------------------------------------------------------------------------------------------------------------


def test_an_exception_makes_the_run_failed_keeps_its_text_and_goes_on_unchanged():
    error = ValueError("a bad batch")
    with pytest.raises(ValueError, match="a bad batch") as raised, Experiment("e") as experiment:
        raise error
    assert error is raised.value
    assert (error.__context__, error.__cause__) == (None, None)
    run = tracelet.load_run(experiment.run_dir)
    assert "failed" == run.status.value
    assert run.error is not None
    assert "raise error" in run.error
    assert run.error.endswith("ValueError: a bad batch\n")


def test_ctrl_c_makes_the_run_failed():
    with pytest.raises(KeyboardInterrupt), Experiment("e") as experiment:
        raise KeyboardInterrupt
    assert "failed" == tracelet.load_run(experiment.run_dir).status.value


@pytest.mark.parametrize(("code", "status"), [(None, "finished"), (0, "finished"), (3, "failed"), ("text", "failed")])
def test_sys_exit_is_a_failure_where_its_status_is_one(code: Any, status: str):
    with pytest.raises(SystemExit), Experiment("e") as experiment:
        sys.exit(code)
    assert status == tracelet.load_run(experiment.run_dir).status.value


def test_with_takes_an_experiment_that_is_running():
    experiment = Experiment("e").start()
    with experiment as same:
        assert same is experiment
    assert not experiment.is_running


# -- arguments ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [5, None, b"e", ["e"]], ids=repr)
def test_a_name_that_is_no_string_is_refused_with_its_value(wrong: Any):
    with pytest.raises(InvalidNameError, match=type(wrong).__name__):
        Experiment(wrong)
    if wrong is not None:
        with pytest.raises(InvalidNameError):
            Experiment("e", project=wrong)
        with pytest.raises(InvalidNameError):
            Experiment("e", run_id=wrong)


@pytest.mark.parametrize(
    "arguments",
    [
        {"config": 5},
        {"config": "lr=1"},
        {"tags": 5},
        {"tags": b"draft"},
        {"tags": [5]},
        {"tags": {5: "x"}},
        {"tags": [["draft"]]},
        {"backend": 5},
        {"backend": [None]},
        {"resume": "maybe"},
        {"resume": "must"},
        {"resume": True},
    ],
    ids=repr,
)
def test_a_wrong_argument_raises_before_anything_is_written(arguments: dict[str, Any]):
    with pytest.raises(UsageError):
        Experiment("e", **arguments)
    assert not Path("tracelet_runs").exists()
    assert Experiment.active() is None


def test_a_backend_that_is_not_installed_is_refused_at_start_and_nothing_runs():
    experiment = Experiment("e", backend="no_such_backend")
    with pytest.raises(PluginNotFoundError, match="no_such_backend"):
        experiment.start()
    assert not experiment.is_running
    assert Experiment.active() is None
    assert not experiment.run_dir.exists()


@pytest.mark.parametrize(
    "name",
    ["a/b", "..", "../../x", "/etc/passwd", "a\0b", "x" * 300, "🚀", "", " ", "con", "<script>", "\ud800", "a\nb"],
    ids=ascii,
)
def test_any_name_gives_a_safe_directory_and_is_kept_as_it_is(name: str):
    with Experiment(name, project=name, run_id=name) as experiment:
        experiment.log_metric("a", 1.0, 0)
    run = tracelet.load_run(experiment.run_dir)
    assert (name, name, name) == (run.name, run.project, run.id)
    assert (name, name, name) == (experiment.name, experiment.project, experiment.run_id)
    runs = Path("tracelet_runs").resolve()
    assert runs == experiment.run_dir.parent.parent
    assert [runs.name] == os.listdir()
    assert [1.0] == run.series("a").values.tolist()


def test_run_ids_that_differ_have_directories_that_differ():
    ids = ["a/b", "a%2Fb", "a b", "A B", "..", "%2E.", "", "%empty", "x" * 300, "x" * 299]
    assert len(ids) == len({Experiment("e", run_id=run_id).run_dir for run_id in ids})


def test_arguments_win_over_settings_and_settings_over_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TRACELET_PROJECT", "environment")
    monkeypatch.setenv("TRACELET_DIR", "environment")
    assert "environment" == Experiment("e").project
    settings = TraceletSettings(project="settings", dir="settings")
    assert "settings" == Experiment("e", settings=settings).project
    assert Path("settings").resolve() == Experiment("e", settings=settings).run_dir.parent.parent
    named = Experiment("e", project="argument", dir="argument", settings=settings)
    assert ("argument", Path("argument").resolve()) == (named.project, named.run_dir.parent.parent)


def test_a_setting_that_does_not_exist_raises_at_construction(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TRACELET_PROJEKT", "x")
    with pytest.raises(SettingsError, match="TRACELET_PROJECT"):
        Experiment("e")


def test_a_run_stays_where_it_is_when_the_working_directory_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    experiment = Experiment("e", dir="runs")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with experiment:
        experiment.log_metric("a", 1.0)
    assert [] == os.listdir()
    assert ["a"] == tracelet.load_run(experiment.run_dir).names()


def test_a_disabled_experiment_takes_every_call_and_writes_nothing(tmp_path: Path):
    (tmp_path / "file").write_text("x")
    with Experiment("e", Listing(), {"lr": 1}, ["t"], settings=TraceletSettings(disabled=True)) as experiment:
        for name in map(str, range(3)):
            experiment.log_metric(name, 1.0)
            experiment.log_metric(name, 2.0, 5)
        experiment.log_metrics({"a": 1.0, "b": [1, 2]}, 1)
        experiment.log_text("a", "b")
        experiment.log_histogram("h", [1.0, 2.0])
        experiment.log_artifact("file")
        experiment.emit_metric(MetricData("a", 1.0, MetricType.SYSTEM))
        assert experiment.flush()
        with pytest.raises(InvalidNameError):
            experiment.log_metric(5, 1.0)  # type: ignore[arg-type]  # Also then.
    with pytest.raises(ExperimentStateError):
        experiment.log_metric("0", 1.0)
    assert ["file"] == os.listdir()


# -- parts -------------------------------------------------------------------------------------------------------------


def test_the_url_of_a_backend_that_the_experiment_does_not_have_raises():
    experiment = Experiment("e", Listing()).start()
    assert "http://tracker/run" == experiment.url("listing")
    with pytest.raises(UsageError, match="'mlflow'"):
        experiment.url("mlflow")


def test_flush_returns_when_the_backend_has_got_everything():
    backend = Listing()
    with Experiment("e", backend) as experiment:
        for step in range(1000):
            experiment.log_metric("a", 1.0, step)
        assert experiment.flush()
        assert 1000 == backend.names.count("a")


def test_flush_tells_that_a_backend_was_too_slow():
    backend = Listing()
    backend.allowed.clear()
    with Experiment("e", backend) as experiment:
        experiment.log_metric("a", 1.0)
        assert not experiment.flush(timeout=0.01)
        backend.allowed.set()


def test_flush_without_a_backend_returns_at_once():
    assert Experiment("e").flush()
    with Experiment("e") as experiment:
        assert experiment.flush()


def test_a_backend_knows_the_run():
    backend = Listing()
    with Experiment("true name", backend, project="p/q", run_id="r") as experiment:
        experiment.flush()
    assert ("true name", "p/q", "r") == tuple(backend.facts[key] for key in ("run_name", "run_project", "run_id"))
    assert experiment.run_dir == backend.facts["run_dir"]


def test_status_says_how_the_run_stands():
    experiment = Experiment("e", Listing())
    assert "new" == experiment.status()["state"]
    with experiment:
        experiment.flush()
        status = experiment.status()
    assert ("running", experiment.run_id, 0) == (status["state"], status["run_id"], status["lost"])
    assert ["listing"] == list(status["backends"])
    assert "stopped" == experiment.status()["state"]


def test_plug_ins_come_before_start():
    experiment = Experiment("e")
    experiment.register_plugin(Listing())
    experiment.start()
    with pytest.raises(ExperimentStateError):
        experiment.register_plugin(Listing())


def test_repr_names_the_run_and_its_state():
    experiment = Experiment("an experiment", run_id="r")
    assert "<Experiment 'an experiment', run r: new>" == repr(experiment)
