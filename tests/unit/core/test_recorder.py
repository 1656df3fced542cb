from __future__ import annotations

import dataclasses
import os
import threading
from argparse import Namespace
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import omegaconf
import pytest

import tracelet
from tracelet import Experiment, MetricData, MetricType, Run
from tracelet.errors import ExperimentStateError, InvalidNameError, UsageError


@pytest.fixture
def experiment() -> Iterator[Experiment]:
    experiment = Experiment("e").start()
    yield experiment
    experiment.stop()


def read(experiment: Experiment) -> Run:
    return tracelet.load_run(experiment.run_dir)


def points(experiment: Experiment, name: str) -> list[tuple[int, float]]:
    series = read(experiment).series(name)
    return list(zip(series.steps.tolist(), series.values.tolist(), strict=True))


LOG_CALLS = {
    "log_metric": lambda e: e.log_metric("a", 1.0),
    "log_metric of an int": lambda e: e.log_metric("a", 1),
    "log_metrics": lambda e: e.log_metrics({"a": 1.0}),
    "log_metrics with a step": lambda e: e.log_metrics({"a": 1.0}, 1),
    "log_params": lambda e: e.log_params({"a": 1}),
    "log_param": lambda e: e.log_param("a", 1),
    "log_text": lambda e: e.log_text("a", "text"),
    "log_image": lambda e: e.log_image("a", np.zeros((2, 2))),
    "log_figure": lambda e: e.log_figure("a", np.zeros((2, 2))),
    "log_audio": lambda e: e.log_audio("a", np.zeros(9)),
    "log_video": lambda e: e.log_video("a", np.zeros((2, 2, 2, 3))),
    "log_histogram": lambda e: e.log_histogram("a", [1.0]),
    "log_table": lambda e: e.log_table("a", {"x": [1]}),
    "log_artifact": lambda e: e.log_artifact(__file__),
    "emit_metric": lambda e: e.emit_metric(MetricData("a", 1.0, MetricType.SCALAR)),
    "set_tags": lambda e: e.set_tags(["a"]),
    "define_metric": lambda e: e.define_metric("a", "b"),
}


@pytest.mark.parametrize("call", LOG_CALLS.values(), ids=LOG_CALLS)
def test_a_call_before_start_and_after_stop_raises(call: Any):
    experiment = Experiment("the name")
    with pytest.raises(ExperimentStateError, match=r"'the name' is new: call start\(\)"):
        call(experiment)
    experiment.start()
    call(experiment)
    experiment.stop()
    before = os.listdir(experiment.run_dir)
    with pytest.raises(ExperimentStateError, match="'the name' is stopped: make a new one"):
        call(experiment)
    assert before == os.listdir(experiment.run_dir)
    assert 0 == experiment.status()["lost"]


class Unprintable:
    def __repr__(self) -> str:
        raise ZeroDivisionError


NAMED_CALLS = {
    "log_metric": lambda e, name: e.log_metric(name, 1.0),
    "log_metric with a step": lambda e, name: e.log_metric(name, 1.0, 1),
    "log_metric of an int": lambda e, name: e.log_metric(name, 1),
    "log_param": lambda e, name: e.log_param(name, 1),
    "log_text": lambda e, name: e.log_text(name, "text"),
    "log_image": lambda e, name: e.log_image(name, np.zeros((2, 2))),
    "log_image of a path": lambda e, name: e.log_image(name, "image.png"),
    "log_figure": lambda e, name: e.log_figure(name, np.zeros((2, 2))),
    "log_audio": lambda e, name: e.log_audio(name, np.zeros(9)),
    "log_video": lambda e, name: e.log_video(name, np.zeros((2, 2, 2, 3))),
    "log_histogram": lambda e, name: e.log_histogram(name, [1.0]),
    "log_table": lambda e, name: e.log_table(name, {"x": [1]}),
    "emit_metric": lambda e, name: e.emit_metric(MetricData(name, 1.0, MetricType.SCALAR)),
    "emit_metric of a text": lambda e, name: e.emit_metric(MetricData(name, "x", MetricType.TEXT)),
    "emit_metric of a file": lambda e, name: e.emit_metric(MetricData(name, __file__, MetricType.ARTIFACT)),
    "define_metric": lambda e, name: e.define_metric(name, "epoch"),
    "define_metric's step": lambda e, name: e.define_metric("a", name),
}


@pytest.mark.parametrize("call", NAMED_CALLS.values(), ids=NAMED_CALLS)
def test_a_name_that_is_no_string_raises_with_its_value(experiment: Experiment, call: Any):
    for name in (17, None, b"bytes", ["list"], ("tuple",), 1.5, np.array(["array"])):
        with pytest.raises(InvalidNameError) as raised:
            call(experiment, name)
        assert f"not {type(name).__name__}: {name}" in str(raised.value)
    with pytest.raises(InvalidNameError, match="Unprintable"):
        call(experiment, Unprintable())
    run = read(experiment)
    assert ([], [], {}) == (run.names(), run.records(*MetricType), run.params)


@pytest.mark.parametrize("step", [None, 3])
@pytest.mark.parametrize("value", [1.0, 1, {"inner": 1.0}])
def test_in_log_metrics_one_bad_name_loses_none_of_the_others(experiment: Experiment, step: int | None, value: Any):
    bad: Any = {"a": 1.0, None: value, "b": 2.0, 17: value, "c": 3}
    for _ in range(2):
        with pytest.raises(InvalidNameError, match="NoneType: None"):
            experiment.log_metrics(bad, step)
    steps = [0, 1] if step is None else [3, 3]
    assert ["a", "b", "c"] == read(experiment).names()
    for name, number in (("a", 1.0), ("b", 2.0), ("c", 3.0)):
        assert [(steps[0], number), (steps[1], number)] == points(experiment, name)


# -- steps -------------------------------------------------------------------------------------------------------------


def test_without_a_step_each_series_counts_by_itself(experiment: Experiment):
    for _ in range(3):
        experiment.log_metric("a", 1.0)
    experiment.log_metrics({"a": 1.0, "b": 1.0})
    experiment.log_metric("b", 1)
    assert [0, 1, 2, 3] == [step for step, _ in points(experiment, "a")]
    assert [0, 1] == [step for step, _ in points(experiment, "b")]


def test_a_step_of_one_call_leaves_the_count_of_the_series_alone(experiment: Experiment):
    for step in (None, 100, None):
        experiment.log_metric("a", 1.0, step)
    assert [0, 100, 1] == [step for step, _ in points(experiment, "a")]


def test_set_iteration_gives_the_step_of_the_calls_that_name_none(experiment: Experiment):
    experiment.log_metric("a", 1.0)
    experiment.set_iteration(7)
    experiment.log_metric("a", 2.0)
    experiment.log_metric("a", 3.0, 0)
    experiment.log_metrics({"a": 4.0, "b": 1})
    experiment.log_text("t", "x")
    experiment.emit_metric(MetricData("a", 5.0, MetricType.SCALAR))
    experiment.set_iteration(0)
    experiment.log_metric("a", 6.0)
    experiment.set_iteration(None)
    experiment.log_metric("a", 7.0)
    assert [(0, 1.0), (7, 2.0), (0, 3.0), (7, 4.0), (7, 5.0), (0, 6.0), (1, 7.0)] == points(experiment, "a")
    assert [(7, "x")] == read(experiment).texts("t")


def test_set_iteration_says_nothing_about_system_metrics_parameters_and_tags(experiment: Experiment):
    experiment.set_iteration(7)
    experiment.emit_metric(MetricData("cpu", 1.0, MetricType.SYSTEM, source="system"))
    experiment.log_param("p", 1)
    experiment.set_tags(["t"])
    assert [(0, 1.0)] == points(experiment, "cpu")
    assert [None, None] == [r.iteration for r in read(experiment).records(MetricType.PARAMETER, MetricType.CUSTOM)]


def test_an_iteration_that_is_no_step_is_kept_beside_the_series_own_count(experiment: Experiment):
    experiment.set_iteration("five")  # type: ignore[arg-type]  # the mistake is what is tested
    experiment.log_metric("a", 1.0)
    experiment.log_metric("a", 1.0)
    assert [(0, 1.0), (1, 1.0)] == points(experiment, "a")
    assert [{"iteration": "five"}] * 2 == [r.metadata for r in read(experiment).records(MetricType.SCALAR)]


# -- several at once ---------------------------------------------------------------------------------------------------


def test_nested_metrics_are_joined(experiment: Experiment):
    experiment.log_metrics({"val": {"loss": 1.0, "class": {0: 0.5, "x/y": 2}}, "a": 3.0}, 1)
    assert ["a", "val/class/0", "val/class/x/y", "val/loss"] == read(experiment).names()


def test_metrics_of_one_step_have_one_time(experiment: Experiment):
    for _ in range(2):
        experiment.log_metrics({"a": 1.0, "b": 2.0}, 1)
    run = read(experiment)
    assert run.series("a").times_s[1] == run.series("b").times_s[1]


def test_a_mapping_that_another_thread_changes_meanwhile_is_no_error(experiment: Experiment):
    metrics = {str(number): 1.0 for number in range(50)}
    experiment.log_metrics(metrics, 0)
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            metrics["new"] = 1.0
            del metrics["new"]

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for step in range(1, 2000):
            experiment.log_metrics(metrics, step)
    finally:
        stop.set()
        thread.join()
    assert list(range(2000)) == sorted(set(read(experiment).series("0").steps.tolist()))


class Failing(Mapping[str, float]):
    def __getitem__(self, key: str) -> float:
        raise ZeroDivisionError

    def __iter__(self) -> Iterator[str]:
        return iter("ab")

    def __len__(self) -> int:
        return 2


@pytest.mark.parametrize("metrics", [5, None, "text", [("a", 1.0)], Failing()], ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("step", [None, 1])
def test_what_is_no_mapping_of_metrics_raises(experiment: Experiment, metrics: Any, step: int | None):
    why = "can't be read" if isinstance(metrics, Failing) else "takes a mapping"
    with pytest.raises(UsageError, match=why):
        experiment.log_metrics(metrics, step)


def test_a_mapping_that_holds_itself_twice_ends(experiment: Experiment):
    metrics: dict[str, Any] = {"a": 1.0}
    metrics |= {"again": metrics, "more": {"again": metrics}}
    experiment.log_metrics(metrics, 1)
    assert [(1, 1.0)] == points(experiment, "a")
    assert [(1, "<cycle>")] == read(experiment).texts("again/again") or [(1, "<cycle>")] == read(experiment).texts(
        "again"
    )


# -- parameters, tags, definitions -------------------------------------------------------------------------------------


@dataclasses.dataclass
class Optimizer:
    lr: float
    betas: tuple[float, float]


@pytest.mark.parametrize(
    "params",
    [
        {"lr": 0.1, "betas": [0.9, 0.99]},
        Namespace(lr=0.1, betas=(0.9, 0.99)),
        Optimizer(0.1, (0.9, 0.99)),
        omegaconf.OmegaConf.create({"lr": 0.1, "betas": [0.9, "${second}"], "second": 0.99}),
    ],
    ids=lambda params: type(params).__name__,
)
def test_parameters_may_have_any_shape(experiment: Experiment, params: Any):
    experiment.log_params({"model": params})
    experiment.log_params(params)
    found = read(experiment).params
    assert (0.1, [0.9, 0.99]) == (found["lr"], found["betas"]) == (found["model/lr"], found["model/betas"])


def test_a_parameter_that_is_logged_again_has_the_last_value(experiment: Experiment):
    experiment.log_param("a", 1)
    experiment.log_param("a", {"b": None})
    experiment.log_param("a", 2)
    assert {"a": 2, "a/b": None} == read(experiment).params


@pytest.mark.parametrize("params", [5, None, "lr=1", [1, 2], Unprintable()], ids=lambda value: type(value).__name__)
def test_parameters_without_names_raise(experiment: Experiment, params: Any):
    with pytest.raises(UsageError, match=type(params).__name__):
        experiment.log_params(params)


def test_a_tag_has_the_value_that_was_set_last(experiment: Experiment):
    experiment.set_tags(["a", "b"])
    experiment.set_tags({"a": 5})
    experiment.set_tags("c")
    assert {"a": "5", "b": "", "c": ""} == read(experiment).tags


@pytest.mark.parametrize("tags", [5, None, b"x", {"a": 1, 5: 2}, ["a", 5]], ids=repr)
def test_wrong_tags_raise_and_none_is_set(experiment: Experiment, tags: Any):
    with pytest.raises(UsageError):
        experiment.set_tags(tags)
    assert {} == read(experiment).tags


def test_define_metric_names_the_x_axis(experiment: Experiment):
    experiment.define_metric("val/loss", step="epoch")
    assert {"val/loss": "epoch"} == read(experiment).step_metrics


# -- files -------------------------------------------------------------------------------------------------------------


def artifact(experiment: Experiment) -> MetricData:
    (record,) = read(experiment).records(MetricType.ARTIFACT)
    assert Path(record.value).is_relative_to(experiment.run_dir)
    return record


def test_an_artifact_outlives_the_original(experiment: Experiment, tmp_path: Path):
    file = tmp_path / "model.bin"
    file.write_bytes(b"weights")
    experiment.log_artifact(file, type="model")
    file.unlink()
    record = artifact(experiment)
    facts = {"type": "model", "version": "v0", "aliases": [], "metadata": {}, "size_bytes": 7, "files": 1}
    assert ("model.bin", facts) == (record.name, record.metadata)
    assert b"weights" == Path(record.value).read_bytes()


def test_an_artifact_may_be_a_directory(experiment: Experiment, tmp_path: Path):
    (tmp_path / "data" / "part").mkdir(parents=True)
    (tmp_path / "data" / "part" / "x.csv").write_text("1,2")
    experiment.log_artifact(os.fspath(tmp_path / "data"), name="../set")
    record = artifact(experiment)
    assert "../set" == record.name
    assert "1,2" == (Path(record.value) / "part" / "x.csv").read_text()


def test_an_artifact_may_be_a_link(experiment: Experiment, tmp_path: Path):
    (tmp_path / "real").write_text("content")
    (tmp_path / "link").symlink_to("real")
    experiment.log_artifact("link")
    (tmp_path / "real").unlink()
    record = artifact(experiment)
    assert ("link", "content") == (record.name, Path(record.value).read_text())


@pytest.mark.parametrize(
    "path", ["missing", "", "a\0b", "x" * 5000, "dangling", 5, None, b"bytes"], ids=lambda p: f"{p!r:.20}"
)
def test_an_artifact_that_is_not_there_raises(experiment: Experiment, path: Any):
    Path("dangling").symlink_to("nothing")
    with pytest.raises(UsageError, match="log_artifact"):
        experiment.log_artifact(path)
    assert [] == read(experiment).records(MetricType.ARTIFACT)


@pytest.mark.parametrize("path", [".", "tracelet_runs"])
def test_a_directory_that_holds_the_run_is_no_artifact_of_it(experiment: Experiment, path: str):
    with pytest.raises(UsageError, match="holds the run itself"):
        experiment.log_artifact(path)


def test_what_is_no_metric_data_is_refused(experiment: Experiment):
    for wrong in (5, {"name": "a"}, MetricData("a", 1.0, "scalar"), MetricData("a", 1.0, None)):  # type: ignore[arg-type]  # the mistake is what is tested
        with pytest.raises(UsageError, match="MetricData"):
            experiment.emit_metric(wrong)  # type: ignore[arg-type]  # the mistake is what is tested
