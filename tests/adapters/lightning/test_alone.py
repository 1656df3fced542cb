"""`TraceletCallback` alone: in a trainer without a logger of ours, and in Fabric."""

from __future__ import annotations

import copy
import importlib
import pickle
import types
from pathlib import Path
from typing import Any

import pytest
import torch

import tracelet
from tests.adapters.lightning.helpers import BATCHES, Lightning, digits
from tests.adapters.lightning.test_cli import HOMES, TRAINER, run_cli
from tests.adapters.lightning.test_training import OF_THE_CALLBACK, csv_points, points, same
from tracelet import MetricType, RunStatus
from tracelet_lightning.logged import LoggedMetrics


def logs_everywhere(pl: Lightning) -> Any:
    """A module that logs in every way, in every hook."""

    class Module(type(pl.model())):  # type: ignore[misc]  # A base of the chosen namespace.
        def training_step(self, batch: Any, index: int) -> Any:
            if index % 3 == 0:
                self.log("train/third", float(index))
            return super().training_step(batch, index)

        def on_train_batch_end(self, *_: Any) -> None:
            self.log("train/after", float(self.trainer.global_step))

        def on_train_epoch_end(self) -> None:
            self.log("train/epochs", float(self.current_epoch))

        def validation_step(self, batch: Any, index: int, dataloader_idx: int = 0) -> None:
            self.log("val/each", float(index), on_step=True, on_epoch=True)
            super().validation_step(batch, index)

        def on_validation_epoch_end(self) -> None:
            self.log("val/end", 1.0)

        def test_step(self, batch: Any, index: int) -> None:
            self.log("test/each", float(index), on_step=True)
            super().test_step(batch, index)

    torch.manual_seed(1)
    return Module(nan_at=3)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"accumulate_grad_batches": 2},
        {"log_every_n_steps": 3},
        {"val_check_interval": 3},
        {"log_every_n_steps": 50},
    ],
)
def test_alone_it_records_what_a_logger_gets(pl: Lightning, options: dict[str, Any]):
    def run(logger: Any, *callbacks: Any) -> None:
        trainer = pl.trainer(logger, callbacks=[*callbacks], **{"max_epochs": 2, **options})
        model = logs_everywhere(pl)
        trainer.fit(model, digits(), [digits(), digits()])
        trainer.test(model, digits(), verbose=False)

    reference = pl.module.loggers.CSVLogger("csv")
    run(reference)
    reference.save()
    callback = pl.Callback()
    run(False, callback)
    found, expected = tracelet.load_run(callback.run_id), csv_points(reference.log_dir)
    assert set(expected) == {name for name in found.names() if not name.startswith(OF_THE_CALLBACK)}
    # A logger gets the epoch with each call, and what was logged last again and again; this has each value once.
    assert set(expected.pop("epoch")) == set(points(found, "epoch"))
    for _ in range("train/third" in expected):
        assert set(points(found, "train/third")) <= set(expected.pop("train/third"))
    assert {} == {
        name: (points(found, name), theirs)
        for name, theirs in expected.items()
        if not same(points(found, name), theirs)
    }


def test_parameters_and_the_model_are_described_as_by_a_logger(pl: Lightning):
    callback, logger = pl.Callback(config={"seed": 1}), pl.Logger(config={"seed": 1})
    pl.trainer(False, callbacks=[callback]).fit(pl.model(learning_rate=0.25), digits())
    pl.trainer(logger).fit(pl.model(learning_rate=0.25), digits())
    run, expected = tracelet.load_run(callback.run_id), tracelet.load_run(logger.version)
    assert expected.params == run.params
    assert expected.texts("model/summary") == run.texts("model/summary")


def test_hyper_parameters_that_are_not_for_loggers_are_not_recorded(pl: Lightning):
    class Module(type(pl.model())):  # type: ignore[misc]  # A base of the chosen namespace.
        def __init__(self) -> None:
            super().__init__()
            self.save_hyperparameters({"secret": 1}, logger=False)

    callback = pl.Callback()
    pl.trainer(False, callbacks=[callback]).fit(Module(), digits())
    assert "secret" not in tracelet.load_run(callback.run_id).params


def test_no_value_waits_for_the_device():
    """What is on a device is handed over as the tensor that `self.log` has kept; here a device without any memory."""
    found: list[Any] = []
    logged = LoggedMetrics(lambda values, step: found.append((values, step)))
    loss = torch.ones((), device="meta")  # To read it would raise.
    trainer = types.SimpleNamespace(logged_metrics={"loss": loss}, current_epoch=0, is_last_batch=False)
    logged.step_ended(trainer, 3, is_recorded=True)
    logged.next_begins(trainer)
    assert [({"loss": loss, "epoch": 0.0}, 3)] == found


@pytest.mark.parametrize("stage", ["validate", "test", "predict"])
def test_a_stage_alone_is_a_run_too(pl: Lightning, stage: str):
    callback = pl.Callback(config={"why": "baseline"})
    getattr(pl.trainer(False, callbacks=[callback]), stage)(pl.model(), digits())
    run = tracelet.load_run(callback.run_id)
    assert ("baseline", RunStatus.RUNNING) == (run.params["why"], run.status)
    names = {"validate": ["epoch", "val/accuracy", "val/loss"], "test": ["epoch", "test/accuracy"], "predict": []}
    assert names[stage] == run.names()
    callback.stop()
    assert RunStatus.FINISHED is tracelet.load_run(callback.run_id).status


def test_other_loggers_get_the_same_as_without_it(pl: Lightning):
    found = []
    for callbacks in ([], [pl.Callback()]):
        reference = pl.module.loggers.CSVLogger("csv")
        pl.trainer(reference, callbacks=callbacks).fit(pl.model(), digits(), digits())
        reference.save()
        found.append(csv_points(reference.log_dir))
    assert found[0] == found[1]
    assert found[0]["train/accuracy"] == points(tracelet.load_run(callbacks[0].run_id), "train/accuracy")


def test_checkpoints_are_kept_without_a_logger_too(pl: Lightning):
    callback = pl.Callback(log_model="all")
    saving = pl.module.callbacks.ModelCheckpoint("checkpoints", every_n_train_steps=4, save_top_k=-1)
    pl.trainer(False, enable_checkpointing=True, callbacks=[callback, saving]).fit(pl.model(), digits())
    records = tracelet.load_run(callback.run_id).records(MetricType.ARTIFACT)
    assert ["model/epoch=0-step=4", "model/epoch=0-step=8"] == [record.name for record in records]


@pytest.mark.filterwarnings("ignore:.isinstance.treespec:FutureWarning")
def test_copies_record_into_the_same_run(pl: Lightning):
    callback = pl.Callback()
    callback.experiment.log_metric("mine", 1.0, 0)
    for copied in (copy.deepcopy(callback), pickle.loads(pickle.dumps(callback))):
        assert callback.experiment is copied.experiment
    pl.trainer(False, callbacks=[copied]).fit(pl.model(), digits())
    assert BATCHES == len(tracelet.load_run(callback.run_id).series("train/accuracy"))
    assert callback.run_id == pickle.loads(pickle.dumps(copied)).run_id


def test_callback_from_lightning_cli(pl: Lightning):
    Path("cli.yaml").write_text(TRAINER + "  logger: false\n")
    home = HOMES[pl.module.__name__]
    trainer = run_cli(
        pl, ["--config=cli.yaml", f"--trainer.callbacks={home}.TraceletCallback", "--trainer.callbacks.project=cli"]
    )
    (callback,) = [one for one in trainer.callbacks if isinstance(one, pl.Callback)]
    run = tracelet.load_run(callback.run_id)
    assert ("cli", BATCHES) == (run.project, len(run.series("loss")))


# -- Fabric ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("package", ["lightning.fabric", "lightning_fabric"])
@pytest.mark.parametrize("beside", [False, True])
def test_fabric_calls_it(package: str, beside: bool):
    pl = Lightning.named("lightning.pytorch" if package == "lightning.fabric" else "pytorch_lightning")
    recorder = pl.Logger() if beside else pl.Callback()
    options = {"loggers": [recorder]} if beside else {"callbacks": [recorder]}
    fabric = importlib.import_module(package).Fabric(accelerator="cpu", devices=1, **options)
    fabric.launch()
    model = torch.nn.Linear(2, 1)
    model, optimizer = fabric.setup(model, torch.optim.SGD(model.parameters(), 0.1))
    losses = []
    for step in range(3):
        loss = model(torch.ones(1, 2)).sum()
        fabric.backward(loss)
        optimizer.step()
        fabric.call("log_metrics", {"loss": loss.detach()}, step)
        losses.append((step, loss.item()))
    run = tracelet.load_run(recorder.version if beside else recorder.run_id)
    assert losses == points(run, "loss")
    if not beside:
        fabric.call("stop")
        assert RunStatus.FINISHED is tracelet.load_run(recorder.run_id).status
