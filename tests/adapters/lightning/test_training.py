"""What a real training leaves behind, value by value."""

from __future__ import annotations

import csv
import importlib
import math
import os
import threading
from pathlib import Path
from typing import Any

import pytest

import tracelet
from tests.adapters.lightning.helpers import BATCHES, Lightning, digits
from tracelet import RunStatus


def points(run: tracelet.Run, name: str) -> list[tuple[int, float]]:
    series = run.series(name)
    return list(zip(series.steps.tolist(), series.values.tolist(), strict=True))


def csv_points(folder: str) -> dict[str, list[tuple[int, float]]]:
    found: dict[str, list[tuple[int, float]]] = {}
    with (Path(folder) / "metrics.csv").open() as file:
        for row in csv.DictReader(file):
            for name, text in row.items():
                if name != "step" and text:
                    found.setdefault(name, []).append((int(row["step"]), float(text)))
    return found


OF_THE_CALLBACK = ("lr-", "sanity/", "throughput/")


def same(ours: list[tuple[int, float]], theirs: list[tuple[int, float]]) -> bool:
    """Equal, where NaN is equal to NaN."""
    return repr(ours) == repr(theirs)


@pytest.mark.parametrize("options", [{}, {"accumulate_grad_batches": 2}, {"log_every_n_steps": 3, "max_epochs": 3}])
def test_every_value_and_step_is_the_one_that_csv_logger_has(pl: Lightning, options: dict[str, Any]):
    reference = pl.module.loggers.CSVLogger("csv")
    logger = pl.Logger()
    trainer = pl.trainer([reference, logger], **{"max_epochs": 2, **options})
    model = pl.model(nan_at=3)
    trainer.fit(model, digits(), digits())
    trainer.test(model, digits(), verbose=False)
    reference.save()

    run = tracelet.load_run(logger.version)
    expected = csv_points(reference.log_dir)
    assert set(expected) == {name for name in run.names() if not name.startswith(OF_THE_CALLBACK)}
    assert {"epoch", "train/loss_step", "train/loss_epoch", "val/accuracy", "test/accuracy"} <= set(expected)
    assert [] == [name for name, theirs in expected.items() if not same(points(run, name), theirs)]
    assert any(math.isnan(value) for value in run.series("train/odd").values)


def test_every_step_is_recorded(pl: Lightning):
    logger = pl.Logger()
    pl.trainer(logger, max_epochs=3).fit(pl.model(), digits())
    assert list(range(3 * BATCHES)) == tracelet.load_run(logger.version).series("train/accuracy").steps.tolist()


def test_several_stages_are_one_run(pl: Lightning):
    logger = pl.Logger()
    model = pl.model()
    pl.trainer(logger).fit(model, digits(), digits())
    pl.trainer(logger).validate(model, digits(), verbose=False)
    trainer = pl.trainer(logger, max_epochs=2)
    trainer.fit(model, digits())
    trainer.test(model, digits(), verbose=False)
    trainer.predict(model, digits())

    run = tracelet.load_run(logger.version)
    assert RunStatus.RUNNING is run.status
    assert 3 * BATCHES == len(run.series("train/accuracy"))
    assert 1 == len(run.series("test/accuracy"))
    assert 1 == len(run.texts("model/summary"))
    logger.stop()
    assert RunStatus.FINISHED is tracelet.load_run(logger.version).status
    assert 1 == len(os.listdir(logger.root_dir))


@pytest.mark.parametrize("stage", ["validate", "test", "predict"])
def test_a_stage_alone_is_a_run(pl: Lightning, stage: str):
    logger = pl.Logger(config={"why": "baseline"})
    getattr(pl.trainer(logger), stage)(pl.model(), digits())
    run = tracelet.load_run(logger.version)
    assert "baseline" == run.params["why"]
    assert {"validate": ["epoch", "val/accuracy", "val/loss"], "test": ["epoch", "test/accuracy"]}.get(
        stage, []
    ) == run.names()


def test_hyper_parameters_and_model_size_are_recorded(pl: Lightning):
    logger = pl.Logger()
    model = pl.model(learning_rate=0.25)
    model.layer.bias.requires_grad = False
    pl.trainer(logger).fit(model, digits())
    run = tracelet.load_run(logger.version)
    counts = {"model/parameters": 650, "model/trainable_parameters": 640, "model/frozen_parameters": 10}
    assert {"learning_rate": 0.25, "nan_at": None, **counts} == run.params
    assert "(layer): Linear(in_features=64, out_features=10, bias=True)" in run.texts("model/summary")[0][1]


def test_recording_does_not_change_the_training(pl: Lightning):
    trained = []
    for logger in (False, pl.Logger()):
        model = pl.model()
        pl.trainer(logger, max_epochs=2).fit(model, digits(), digits())
        trained.append(model.layer.weight.detach())
    assert trained[0].equal(trained[1])


def test_fast_dev_run_records_nothing(pl: Lightning):
    pl.trainer(pl.Logger(), fast_dev_run=True).fit(pl.model(), digits(), digits())
    assert not Path("tracelet_runs").exists()


def test_checkpoints_are_kept_in_the_run_directory_and_do_not_disturb_it(pl: Lightning):
    logger = pl.Logger(name="base line")
    trainer = pl.trainer(logger, enable_checkpointing=True)
    trainer.fit(pl.model(), digits())
    assert Path(logger.log_dir) in Path(trainer.checkpoint_callback.best_model_path).parents
    assert "base line" == tracelet.load_run(logger.version).name


def test_module_reaches_the_experiment_and_the_media_helpers(pl: Lightning):
    def log(trainer: Any, module: Any) -> None:
        module.logger.log_text("note", "hello", step=trainer.global_step)
        module.logger.experiment.log_metric("mine", 1.5, trainer.global_step)

    logger = pl.Logger()
    pl.trainer(logger, callbacks=[pl.callback("on_train_end", log)]).fit(pl.model(), digits())
    run = tracelet.load_run(logger.version)
    assert [(BATCHES, "hello")] == run.texts("note")
    assert [(BATCHES, 1.5)] == points(run, "mine")


def test_trainers_of_each_namespace_take_the_logger_of_the_other():
    both = [Lightning.named(name) for name in ("lightning.pytorch", "pytorch_lightning")]
    for own, other in (both, both[::-1]):
        logger = other.Logger()
        own.trainer(logger).fit(own.model(), digits())
        assert BATCHES == len(tracelet.load_run(logger.version).series("train/accuracy"))


@pytest.mark.parametrize("package", ["lightning.fabric", "lightning_fabric"])
def test_fabric_logs_through_it(package: str):
    fabric_module = importlib.import_module(package)
    pl = Lightning.named("lightning.pytorch" if package == "lightning.fabric" else "pytorch_lightning")
    logger = pl.Logger()
    fabric = fabric_module.Fabric(accelerator="cpu", devices=1, loggers=logger)
    fabric.launch()
    for step in range(3):
        fabric.log("loss", 1.0 / (step + 1), step=step)
        fabric.log_dict({"accuracy": step / 2, "epoch": 0}, step=step)
    run = tracelet.load_run(logger.version)
    assert [(0, 1.0), (1, 0.5), (2, 1 / 3)] == points(run, "loss")
    assert [(0, 0.0), (1, 0.5), (2, 1.0)] == points(run, "accuracy")


def test_no_thread_outlives_the_run(pl: Lightning):
    logger = pl.Logger()
    before = set(threading.enumerate())
    pl.trainer(logger).fit(pl.model(), digits())
    logger.stop()
    assert [] == [thread.name for thread in threading.enumerate() if thread not in before and not thread.daemon]
    assert [] == [thread.name for thread in threading.enumerate() if thread.name.startswith("tracelet-")]
