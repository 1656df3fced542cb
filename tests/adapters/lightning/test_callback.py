"""`TraceletCallback` beside a logger: who acts, and what it adds."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import tracelet
from tests.adapters.lightning.helpers import BATCHES, Lightning, digits
from tests.adapters.lightning.test_training import csv_points, points
from tracelet.errors import UsageError


def callbacks_of(trainer: Any) -> list[Any]:
    return [one for one in trainer.callbacks if "Tracelet" in type(one).__name__]


def load(recorder: Any) -> tracelet.Run:
    return tracelet.load_run(recorder.version)


# -- who acts ----------------------------------------------------------------------------------------------------------


def test_it_is_attached_beside_a_logger_of_ours_and_nowhere_else(pl: Lightning):
    ours = pl.trainer([pl.module.loggers.CSVLogger("csv"), pl.Logger()])
    others = [pl.trainer(logger) for logger in (False, pl.module.loggers.CSVLogger("csv"))]
    for trainer in (ours, *others):
        trainer.fit(pl.model(), digits())
    assert [pl.Callback] == [type(one) for one in callbacks_of(ours)]
    assert [[], []] == [callbacks_of(trainer) for trainer in others]
    assert 1 == len(list(Path("tracelet_runs").glob("*/*")))


def test_one_that_the_user_gives_acts_in_place_of_the_attached_one(pl: Lightning):
    logger = pl.Logger()
    given = pl.Callback(log_weight_decay=True)
    trainer = pl.trainer(logger, callbacks=[given])
    trainer.fit(pl.model(), digits())
    assert [given] == callbacks_of(trainer)
    assert logger.version == given.run_id
    run = load(logger)
    assert [0.0] * BATCHES == run.series("lr-SGD-weight_decay").values.tolist()
    assert [BATCHES] * 2 == [len(run.series(name)) for name in ("lr-SGD", "train/accuracy")]


def test_a_program_without_a_logger_of_ours_loads_nothing_of_ours():
    code = """
import sys
from lightning.pytorch import Trainer
trainer = Trainer(logger=False, enable_checkpointing=False)
print([name for name in sys.modules if name.startswith("tracelet") and not name.endswith(("lightning", "factories"))])
print([type(one).__name__ for one in trainer.callbacks if "racelet" in type(one).__name__])
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True, text=True)
    assert ["[]", "[]"] == done.stdout.splitlines()


def test_without_a_run_it_has_nothing_to_say(pl: Lightning):
    with pytest.raises(UsageError, match="records nothing"):
        _ = pl.Callback.automatic().experiment


def test_fast_dev_run_records_nothing(pl: Lightning):
    pl.trainer(False, fast_dev_run=True, callbacks=[pl.Callback()]).fit(pl.model(), digits(), digits())
    assert not Path("tracelet_runs").exists()


# -- what it adds ------------------------------------------------------------------------------------------------------


def scheduled(pl: Lightning, optimizers: Any) -> Any:
    model = pl.model()
    model.automatic_optimization = True
    model.configure_optimizers = lambda: optimizers(model)
    return model


def one_group(model: Any) -> Any:
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=0.01)
    return [optimizer], [{"scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 2), "interval": "step"}]


def two_groups(model: Any) -> Any:
    groups = [{"params": [model.layer.weight], "name": "weights"}, {"params": [model.layer.bias], "lr": 0.2}]
    optimizer = torch.optim.AdamW(groups, 0.1)
    return [optimizer], [
        {"scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 2), "interval": "step", "name": "mine"}
    ]


@pytest.mark.parametrize("optimizers", [one_group, two_groups])
def test_learning_rates_are_those_of_lightnings_monitor(pl: Lightning, optimizers: Any):
    monitor = pl.module.callbacks.LearningRateMonitor("step", log_momentum=True, log_weight_decay=True)
    reference = pl.module.loggers.CSVLogger("csv")
    pl.trainer(reference, callbacks=[monitor]).fit(scheduled(pl, optimizers), digits())
    reference.save()
    expected = {name: found for name, found in csv_points(reference.log_dir).items() if name[:2] in ("lr", "mi")}
    logger = pl.Logger()
    ours = pl.Callback(log_momentum=True, log_weight_decay=True)
    pl.trainer(logger, callbacks=[ours]).fit(scheduled(pl, optimizers), digits())
    run = load(logger)
    assert 3 * (1 if optimizers is one_group else 2) == len(expected)
    assert expected == {name: points(run, name) for name in run.names() if name[:2] in ("lr", "mi")}


def test_a_monitor_beside_it_is_not_recorded_twice(pl: Lightning):
    logger = pl.Logger()
    pl.trainer(logger, callbacks=[pl.module.callbacks.LearningRateMonitor("step")]).fit(pl.model(), digits())
    assert list(range(BATCHES)) == load(logger).series("lr-SGD").steps.tolist()


def test_gradient_norms_are_those_before_clipping(pl: Lightning):
    norms: list[float] = []

    def note(trainer: Any, module: Any, optimizer: Any) -> None:
        norms.append(torch.cat([p.grad.flatten() for p in module.parameters()]).norm().item())

    logger = pl.Logger()
    hooks = [pl.Callback(grad_norms=True), pl.callback("on_before_optimizer_step", note)]
    pl.trainer(logger, callbacks=hooks, gradient_clip_val=1e-3).fit(pl.model(), digits())
    assert pytest.approx(norms) == load(logger).series("train/grad_norm").values


def test_throughput_leaves_evaluations_out_and_counts_samples_and_operations(pl: Lightning):
    model = pl.model()
    model.flops_per_batch = 1e6
    logger = pl.Logger()
    hooks = [
        pl.Callback(peak_flops_per_s=1e9),
        pl.callback("on_validation_batch_start", lambda *_: time.sleep(0.05)),
    ]
    pl.trainer(logger, callbacks=hooks, val_check_interval=2, num_sanity_val_steps=0).fit(model, digits(), digits())
    run = load(logger)
    spent_s = run.series("throughput/step_time_s").values
    assert BATCHES == len(spent_s)
    assert max(spent_s) < 0.05 * BATCHES  # A validation alone takes longer.
    assert pytest.approx(16 / spent_s) == run.series("throughput/samples_per_s").values
    assert pytest.approx(1e-3 / spent_s) == run.series("throughput/mfu").values


def test_the_sanity_check_is_kept_apart(pl: Lightning):
    logger = pl.Logger()

    def log(trainer: Any, module: Any) -> None:
        module.logger.log_text("note", "validated")
        module.logger.log_metrics({"mine": 1.0}, 0)

    pl.trainer(logger, callbacks=[pl.callback("on_validation_epoch_end", log)], limit_train_batches=2).fit(
        pl.model(), digits(), digits()
    )
    run = load(logger)
    assert [1] == [*run.series("val/loss").steps]
    assert {"sanity/val/loss", "sanity/val/accuracy", "sanity/mine"} <= set(run.names())
    assert [1, 1, 1] == [len(run.series(name)) for name in ("mine", "sanity/mine", "sanity/val/loss")]
    assert 1 == len(run.texts("sanity/note"))


def test_steps_of_accumulated_gradients_are_recorded_once(pl: Lightning):
    logger = pl.Logger()
    pl.trainer(logger, accumulate_grad_batches=2).fit(pl.model(), digits())
    run = load(logger)
    for name in ("lr-SGD", "throughput/step_time_s", "train/accuracy"):
        assert list(range(BATCHES // 2)) == run.series(name).steps.tolist()
    spent_s = run.series("throughput/step_time_s").values
    assert pytest.approx(32 / spent_s) == run.series("throughput/samples_per_s").values


def test_a_fault_of_its_own_does_not_end_the_training(pl: Lightning, caplog: pytest.LogCaptureFixture):
    class Broken(torch.optim.SGD):
        """Its groups can't be told."""

        @property
        def param_groups(self) -> Any:
            if sys._getframe(1).f_globals["__name__"].startswith("tracelet_lightning"):
                raise ValueError("not for you")
            return self._groups

        @param_groups.setter
        def param_groups(self, groups: Any) -> None:
            self._groups = groups

    logger = pl.Logger()
    trainer = pl.trainer(logger)
    trainer.fit(scheduled(pl, lambda model: Broken(model.parameters(), 0.1)), digits())
    assert (BATCHES, BATCHES) == (trainer.global_step, len(load(logger).series("train/accuracy")))
    warnings = [record for record in caplog.records if "not recorded, the training goes on" in record.message]
    assert ["on_train_batch_start"] == [record.message.partition(":")[0] for record in warnings]
