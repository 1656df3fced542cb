"""The contract of Lightning's `Logger`, without a training."""

from __future__ import annotations

import argparse
import copy
import dataclasses
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from lightning_utilities.core.rank_zero import rank_zero_only
from omegaconf import OmegaConf

import tracelet
from tests.adapters.lightning.helpers import Lightning
from tracelet import MetricType, RunStatus
from tracelet.errors import InvalidNameError, PluginNotFoundError, RunExistsError, RunNotFoundError, UsageError


@pytest.fixture
def other_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_zero_only, "rank", 1)


def load(logger: Any) -> tracelet.Run:
    return tracelet.load_run(logger.log_dir)


def test_logger_is_one_of_its_namespace(pl: Lightning):
    assert issubclass(pl.Logger, pl.module.loggers.Logger)


def test_reading_what_it_is_creates_nothing(pl: Lightning):
    logger = pl.Logger(project="digits", run_id="first")
    folder = Path.cwd() / "tracelet_runs" / "digits"
    assert ("lightning", "first", "/") == (logger.name, logger.version, logger.group_separator)
    assert (str(folder), str(folder / "first")) == (logger.root_dir, logger.log_dir)
    assert logger.log_dir == logger.save_dir
    assert [] == os.listdir()


def test_version_is_the_id_of_the_run_that_comes(pl: Lightning):
    logger = pl.Logger()
    version = logger.version
    assert version == logger.experiment.run_id == logger.version == load(logger).id


def test_experiment_is_one_and_the_same(pl: Lightning):
    logger = pl.Logger()
    assert logger.experiment is logger.experiment is tracelet.get_active_experiment()


@pytest.mark.parametrize("name", ["", "..", "a/b", "nul\0", "x" * 300, "\ud800"])
def test_strange_names_still_name_a_directory_for_checkpoints(pl: Lightning, name: str):
    logger = pl.Logger(name=name)
    Path(logger.save_dir, logger.name, logger.version, "checkpoints").mkdir(parents=True)
    assert name == logger.experiment.name
    assert Path(logger.log_dir) in Path(logger.save_dir, logger.name).resolve().parents


def test_plain_names_stay_as_they_are(pl: Lightning):
    assert "my run é" == pl.Logger(name="my run é").name


def test_other_ranks_get_the_dummy_of_their_namespace_and_write_nothing(
    pl: Lightning, other_rank: None, tmp_path: Path
):
    logger = pl.Logger()
    assert isinstance(logger.experiment, type(pl.module.loggers.logger.DummyLogger().experiment))
    logger.log_metrics(metrics={"a": 1.0}, step=0)
    logger.log_hyperparams({"a": 1})
    logger.log_graph(torch.nn.Linear(1, 1))
    logger.log_image("image", [np.zeros((2, 2))])
    logger.log_artifact("nothing")
    logger.save()
    logger.finalize("failed")
    logger.stop()
    assert [] == os.listdir()


def test_metrics_of_lightning_keep_names_values_and_steps(pl: Lightning):
    logger = pl.Logger()
    logger.log_metrics(metrics={"train/loss": 0.5, "epoch": 0}, step=7)
    logger.log_metrics(metrics={"train/loss": float("inf"), "t": torch.tensor(2.0)}, step=3)
    run = load(logger)
    assert [7, 3] == run.series("train/loss").steps.tolist()
    assert [0.5, float("inf")] == run.series("train/loss").values.tolist()
    assert [2.0] == run.series("t").values.tolist()


def test_metrics_without_a_step_count_by_themselves(pl: Lightning):
    logger = pl.Logger()
    logger.log_metrics({"a": 1.0})
    logger.log_metrics({"a": 2.0})
    assert [0, 1] == load(logger).series("a").steps.tolist()


def test_a_name_that_is_no_string_raises_and_costs_no_other_metric(pl: Lightning):
    logger = pl.Logger()
    with pytest.raises(InvalidNameError):
        logger.log_metrics({None: 1.0, "a": 2.0}, 0)
    assert ["a"] == load(logger).names()


def test_prefix_stands_before_metrics_and_media_alone(pl: Lightning):
    logger = pl.Logger(prefix="fold-1")
    logger.log_metrics({"loss": 1.0}, 0)
    logger.log_text("note", "x")
    logger.log_hyperparams({"a": 1})
    run = load(logger)
    assert (["fold-1/loss"], ["fold-1/note"]) == (run.names(), run.names(MetricType.TEXT))
    assert {"a": 1} == run.params


@dataclasses.dataclass
class Optimizer:
    lr: float = 0.1
    betas: tuple[float, float] = (0.9, 0.99)


@pytest.mark.parametrize(
    "params",
    [
        {"optimizer": {"lr": 0.1, "betas": [0.9, 0.99]}},
        argparse.Namespace(optimizer=argparse.Namespace(lr=0.1, betas=(0.9, 0.99))),
        types.SimpleNamespace(optimizer=Optimizer()),
        {"optimizer": Optimizer()},
        OmegaConf.create({"optimizer": {"lr": 0.1, "betas": [0.9, "${last}"]}, "last": 0.99}),
        OmegaConf.structured(Optimizer),
    ],
)
def test_hyper_parameters_of_any_shape(pl: Lightning, params: Any):
    logger = pl.Logger()
    logger.log_hyperparams(params)
    found = {name.removeprefix("optimizer/"): value for name, value in load(logger).params.items() if name != "last"}
    assert {"lr": 0.1, "betas": [0.9, 0.99]} == found


def test_hyper_parameters_are_recorded_once_and_again_when_changed(pl: Lightning):
    logger = pl.Logger()
    for params in ({"lr": 0.1, "flag": True}, {"lr": 0.1, "flag": True}, {"lr": 0.2, "flag": 1}, None):
        logger.log_hyperparams(params, metrics={"hp/best": 0.0})
    run = load(logger)
    records = [(record.name, record.value) for record in run.records(MetricType.PARAMETER)]
    assert [("lr", 0.1), ("flag", True), ("lr", 0.2), ("flag", 1)] == records
    assert [0] == run.series("hp/best").steps.tolist()


def test_a_single_first_metric_is_hp_metric(pl: Lightning):
    logger = pl.Logger()
    logger.log_hyperparams({}, -1)
    assert [-1.0] == load(logger).series("hp_metric").values.tolist()


def test_hyper_parameters_without_names_raise(pl: Lightning):
    with pytest.raises(UsageError, match="named values, not int: 3"):
        pl.Logger().log_hyperparams(3)


def test_log_graph_describes_the_model_once_and_runs_nothing(pl: Lightning):
    class Model(torch.nn.Sequential):
        example_input_array = torch.zeros(1, 3)

        def forward(self, _: Any) -> Any:
            raise AssertionError("it was run")

    logger = pl.Logger()
    model = Model(torch.nn.LazyLinear(2), torch.nn.Linear(2, 1))
    logger.log_graph(model)
    logger.log_graph(model)
    run = load(logger)
    assert [(None, str(model))] == run.texts("model/summary")
    assert [3, 3, 0] == [record.value for record in run.records(MetricType.PARAMETER)]


def test_log_graph_can_be_switched_off(pl: Lightning):
    logger = pl.Logger(log_graph=False)
    logger.log_graph(torch.nn.Linear(1, 1))
    assert [] == os.listdir()


def test_media_helpers_record_what_they_are_given(pl: Lightning, tmp_path: Path):
    import matplotlib.pyplot as plt

    logger = pl.Logger()
    picture = np.zeros((4, 4, 3), np.uint8)
    logger.log_image("one", picture, step=3, caption="first")
    logger.log_image("two", [picture, picture], step=3, caption=["left", "right"])
    logger.log_audio("sound", [np.zeros(100, np.float32)], step=3, sample_rate_hz=8000)
    logger.log_video("film", np.zeros((2, 16, 16, 3), np.uint8), step=3)
    logger.log_text("text", "hello", step=3)
    logger.log_table("rows", columns=["a", "b"], data=[[1, 2]], step=3)
    logger.log_table("frame", dataframe=pd.DataFrame({"a": [1]}), step=3)
    logger.log_histogram("histogram", torch.arange(10.0), step=3, bins=5)
    figure = plt.figure()
    logger.log_figure("figure", figure, step=3)
    plt.close(figure)
    (tmp_path / "weights.bin").write_bytes(b"123")
    logger.log_artifact(tmp_path / "weights.bin", type="model")

    run = load(logger)
    records = run.records(*set(MetricType) - {MetricType.PARAMETER, MetricType.CUSTOM})
    assert [
        ("one", "image", 3),
        ("two/0", "image", 3),
        ("two/1", "image", 3),
        ("sound/0", "audio", 3),
        ("film", "video", 3),
        ("text", "text", 3),
        ("rows", "table", 3),
        ("frame", "table", 3),
        ("histogram", "histogram", 3),
        ("figure", "figure", 3),
        ("weights.bin", "artifact", None),
    ] == [(record.name, record.type.value, record.iteration) for record in records]
    assert "right" == records[2].metadata["caption"]


def test_captions_must_be_as_many_as_images(pl: Lightning):
    with pytest.raises(UsageError, match="2 images, but 1 captions"):
        pl.Logger().log_image("a", [1, 2], caption=["x"])


def test_experiment_of_the_user_is_used_and_stays_his(pl: Lightning):
    with tracelet.Experiment("mine", project="p") as experiment:
        logger = pl.Logger(experiment=experiment)
        assert experiment is logger.experiment
        assert ("mine", experiment.run_id) == (logger.name, logger.version)
        logger.finalize("failed")
        experiment.log_metric("after", 1.0, 0)
    assert RunStatus.FINISHED is load(logger).status


def test_experiment_that_was_not_started_is_started_and_ended(pl: Lightning):
    experiment = tracelet.Experiment("mine")
    logger = pl.Logger(experiment=experiment)
    assert not Path("tracelet_runs").exists()
    assert experiment is logger.experiment
    logger.finalize("failed")
    assert RunStatus.FAILED is load(logger).status


def test_experiment_excludes_the_description_of_another_one(pl: Lightning):
    with pytest.raises(UsageError, match=r"give the rest to Experiment\(\)"):
        pl.Logger(experiment=tracelet.Experiment("a"), project="b")


@pytest.mark.parametrize("status", ["success", "finished"])
def test_finalize_goes_on_after_anything_but_a_failure(pl: Lightning, status: str):
    logger = pl.Logger()
    logger.log_metrics({"a": 1.0}, 0)
    experiment = logger.experiment
    logger.finalize(status)
    assert (RunStatus.RUNNING, experiment) == (load(logger).status, logger.experiment)


def test_finalize_of_a_run_that_never_began_creates_none(pl: Lightning):
    pl.Logger().finalize("failed")
    assert [] == os.listdir()


def test_use_after_a_failure_goes_on_with_the_run(pl: Lightning):
    logger = pl.Logger(config={"lr": 1}, tags={"a": "b"})
    logger.log_metrics({"a": 1.0}, 0)
    logger.finalize("failed")
    logger.log_metrics({"a": 2.0}, 1)
    assert RunStatus.RUNNING is load(logger).status
    logger.stop()
    run = load(logger)
    assert (RunStatus.FINISHED, [1.0, 2.0]) == (run.status, run.series("a").values.tolist())
    assert 1 == len(run.records(MetricType.PARAMETER))
    assert 1 == len(os.listdir(logger.root_dir))


def test_stop_tells_the_status(pl: Lightning):
    logger = pl.Logger()
    logger.stop()
    assert [] == os.listdir()
    logger.log_metrics({"a": 1.0}, 0)
    logger.stop("failed")
    assert RunStatus.FAILED is load(logger).status
    with pytest.raises(UsageError, match="'finished' or 'failed'"):
        logger.stop("success")


def test_resume_names_the_run(pl: Lightning):
    for _ in range(2):
        logger = pl.Logger(run_id="same", tags=["x"])
        logger.log_metrics({"a": 1.0}, 0)
        logger.stop()
    assert 2 == len(load(logger).series("a"))
    with pytest.raises(RunExistsError):
        _ = pl.Logger(run_id="same", resume="never").experiment
    with pytest.raises(RunNotFoundError):
        _ = pl.Logger(run_id="new", resume=True).experiment


def test_a_backend_that_is_not_installed_is_named_before_the_training(pl: Lightning):
    with pytest.raises(PluginNotFoundError, match="'mlfow'"):
        _ = pl.Logger(backend="mlfow").experiment


def test_deepcopy_is_the_same_run(pl: Lightning):
    for started in (False, True):
        logger = pl.Logger()
        if started:
            logger.log_metrics({"a": 0.0}, 0)
        twin = copy.deepcopy(logger)
        twin.log_metrics({"a": 1.0}, 1)
        logger.log_metrics({"a": 2.0}, 2)
        assert twin.experiment is logger.experiment
        assert (logger.version, 2 + started) == (twin.version, len(load(logger).series("a")))


# Hides packages as if they were not installed: from imports and from the metadata.
NOT_INSTALLED = """
import importlib.metadata, sys
absent = {absent!r}
class Finder:
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in absent else self.finder.find_spec(name, path, target)
sys.meta_path[:] = map(Finder, sys.meta_path)
version = importlib.metadata.version
def visible_version(name):
    if name.replace("-", "_") in absent:
        raise importlib.metadata.PackageNotFoundError(name)
    return version(name)
importlib.metadata.version = visible_version
"""

IMPORT = """
import sys
import tracelet_lightning
try:
    if sys.argv[1] == "legacy":
        from tracelet_lightning.legacy import TraceletLogger
    else:
        from tracelet_lightning import TraceletLogger
except ImportError as error:
    print(type(error).__name__, error)
else:
    print(TraceletLogger.__module__)
"""


@pytest.mark.parametrize(
    ("absent", "home", "expected"),
    [
        (["lightning"], "", "tracelet_lightning.legacy"),
        (["pytorch_lightning"], "", "tracelet_lightning.logger"),
        (["pytorch_lightning"], "legacy", "pip install pytorch-lightning"),
        (["lightning", "pytorch_lightning"], "", "MissingDependencyError TraceletLogger needs lightning"),
        (["lightning", "pytorch_lightning"], "", "pip install 'tracelet[lightning]'"),
    ],
)
def test_logger_is_that_of_the_installed_package(absent: list[str], home: str, expected: str, tmp_path: Path):
    blocker = tmp_path / "blocker"
    blocker.mkdir()
    (blocker / "sitecustomize.py").write_text(NOT_INSTALLED.format(absent=absent))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(blocker), *sys.path])}
    command = [sys.executable, "-c", IMPORT, home]
    assert expected in subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
