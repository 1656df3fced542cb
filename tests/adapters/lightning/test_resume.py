"""A training that resumes from a checkpoint goes on with the checkpoint's run, however it was interrupted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import pytest
import torch

import tracelet
from tests.adapters.lightning.helpers import BATCHES, Lightning, digits
from tests.adapters.lightning.interrupted import BATCHES as STEPS
from tests.adapters.lightning.interrupted import EPOCHS, last_checkpoint, train
from tests.adapters.resume.interrupted import Interruption
from tracelet import MetricType, RunStatus
from tracelet.core.records import REWIND_NAME, SEGMENT_NAME
from tracelet.errors import PluginNotFoundError
from tracelet_lightning import TraceletCallback, TraceletLogger

PROGRAM = Path(__file__).with_name("interrupted.py")
ROOT = PROGRAM.parents[3]
SERIES = ["train/loss_step", "train/loss_epoch", "val/loss", "lr-Adam", "epoch"]


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a training was killed, then failed, then was interrupted, and then came to its end."""
    home = tmp_path_factory.mktemp("interrupted")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TRACELET_")}
    own = {"PYTHONPATH": str(ROOT), "TRACELET_COLLECTORS": "", "TRACELET_DELIVERY": "thread"}
    command = [sys.executable, "-W", "ignore", PROGRAM, ".,kill,11", ".,exception,19", ".,interrupt,21", ".,nothing,0"]
    done = subprocess.run(command, check=False, cwd=home, env=kept | own, capture_output=True, text=True)
    assert ["kill -9", "exception 1", "interrupt 1", "nothing 0"] == done.stdout.splitlines(), done.stderr
    return home


@pytest.fixture(scope="module")
def run(interrupted: Path) -> tracelet.Run:
    (home,) = (interrupted / "tracelet_runs" / "p").iterdir()
    return tracelet.Run(home)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tracelet.Run:
    """The same training, never interrupted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("reference"))
        patch.setenv("TRACELET_COLLECTORS", "")
        run_id = train(Interruption("nothing", 0), L.callbacks.ModelCheckpoint(monitor="val/loss"))
        return tracelet.load_run(run_id, dir=Path("tracelet_runs").resolve())


def test_a_training_that_was_interrupted_three_times_is_one_finished_run(run: tracelet.Run):
    assert RunStatus.FINISHED is run.status
    statuses = [record for record in run.records(MetricType.CUSTOM) if record.name == "tracelet/status"]
    assert ["failed", "failed", "finished"] == [record.value for record in statuses]
    errors = [record.metadata["error"].splitlines()[-1] for record in statuses[:2]]
    assert ["RuntimeError: no memory", "KeyboardInterrupt"] == errors
    assert [7.0, 15.0, 15.0] == run.series(REWIND_NAME).values.tolist()


@pytest.mark.parametrize("name", SERIES)
def test_the_live_line_is_that_of_a_training_that_was_never_interrupted(
    run: tracelet.Run, reference: tracelet.Run, name: str
):
    expected, live = reference.series(name), run.live(name)
    assert expected.steps.tolist() == live.steps.tolist()
    assert expected.values == pytest.approx(live.values)


def test_nothing_that_was_superseded_is_lost(run: tracelet.Run):
    overlap = [*range(8, 11), *range(16, 19), *range(16, 21)]
    assert sorted([*range(STEPS * EPOCHS), *overlap]) == sorted(run.series("train/loss_step").steps)


def test_checkpoints_go_on_where_they_were_and_each_is_kept_once(run: tracelet.Run):
    records = run.records(MetricType.ARTIFACT)
    names = [record.name for record in records if record.name != "model/last"]
    assert ["model/epoch=0-step=8", "model/epoch=1-step=16", "model/epoch=2-step=24"] == names
    saved = torch.load(last_checkpoint(run.path), weights_only=True)
    (state,) = [state for key, state in saved["callbacks"].items() if "ModelCheckpoint" in key]
    assert 2 == len(state["best_k_models"])  # Of two attempts: it was taken up again.
    assert {last_checkpoint(run.path).parent} == {Path(path).parent for path in state["best_k_models"]}


def test_mlflow_has_one_run_with_every_point_and_the_steps_it_went_back_to(
    interrupted: Path, run: tracelet.Run, reference: tracelet.Run
):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{interrupted / 'mlflow.db'}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    (remote,) = client.search_runs(experiments)
    assert "FINISHED" == remote.info.status
    history = client.get_metric_history(remote.info.run_id, "train/loss_step")
    assert sorted((point.step, point.value) for point in history) == sorted(
        zip(run.series("train/loss_step").steps.tolist(), run.series("train/loss_step").values.tolist(), strict=True)
    )
    # The same rule as that of `Run.live`, on what MLflow has.
    rewinds = client.get_metric_history(remote.info.run_id, REWIND_NAME)
    live = [
        point
        for point in history
        if not any(point.step > back.value and point.timestamp < back.timestamp for back in rewinds)
    ]
    live.sort(key=lambda point: point.step)
    assert reference.series("train/loss_step").steps.tolist() == [point.step for point in live]
    assert reference.series("train/loss_step").values == pytest.approx([point.value for point in live])


# -- in one process ----------------------------------------------------------------------------------------------------


def fail_at(pl: Lightning, step: int) -> Any:
    def act(trainer: Any, *_: Any) -> None:
        if trainer.global_step == step:
            raise RuntimeError("no memory")

    return pl.callback("on_train_batch_start", act)


def checkpointing(pl: Lightning, **options: Any) -> Any:
    return pl.module.callbacks.ModelCheckpoint(
        "checkpoints", **{"every_n_train_steps": 3, "save_last": True, **options}
    )


LAST = "checkpoints/last.ckpt"


def broken_off(pl: Lightning, logger: Any) -> Any:
    """A training of 8 steps that fails in step 5, and has a checkpoint of 3 steps."""
    with pytest.raises(RuntimeError, match="no memory"):
        pl.trainer(logger, enable_checkpointing=True, callbacks=[checkpointing(pl), fail_at(pl, 5)]).fit(
            pl.model(), digits()
        )
    return logger


def resumed(pl: Lightning, logger: Any, *callbacks: Any) -> Any:
    trainer = pl.trainer(logger, enable_checkpointing=True, callbacks=[checkpointing(pl), *callbacks])
    trainer.fit(pl.model(), digits(), ckpt_path=LAST)
    return logger


def accuracy_steps(run: tracelet.Run) -> list[int]:
    return run.live("train/accuracy").steps.tolist()


def test_a_checkpoint_amid_an_epoch_goes_on_with_the_run_and_makes_no_other(pl: Lightning):
    first = broken_off(pl, pl.Logger(project="p"))
    second = resumed(pl, pl.Logger(project="p", tags=["second"]))
    assert first.version == second.version
    run = tracelet.load_run(second.version)
    assert (list(range(BATCHES)), {"second": ""}) == (accuracy_steps(run), run.tags)
    assert [0, 1, 2, 3, 4, 3, 4, 5, 6, 7] == run.series("train/accuracy").steps.tolist()
    assert [first.version] == os.listdir(first.root_dir)


def test_the_callback_alone_resumes_its_run_too(pl: Lightning):
    callbacks = [pl.Callback(project="p") for _ in range(2)]
    with pytest.raises(RuntimeError):
        pl.trainer(False, enable_checkpointing=True, callbacks=[callbacks[0], checkpointing(pl), fail_at(pl, 5)]).fit(
            pl.model(), digits()
        )
    resumed(pl, False, callbacks[1])
    assert callbacks[0].run_id == callbacks[1].run_id
    run = tracelet.load_run(callbacks[1].run_id)
    assert list(range(BATCHES)) == accuracy_steps(run)
    (status,) = [record for record in run.records(MetricType.CUSTOM) if record.name == "tracelet/status"]
    assert ("failed", "RuntimeError: no memory") == (status.value, status.metadata["error"].splitlines()[-1])


def test_a_run_id_or_an_experiment_of_the_users_wins_over_the_checkpoint(pl: Lightning):
    broken_off(pl, pl.Logger())
    with tracelet.Experiment("mine") as experiment:
        resumed(pl, [pl.Logger(run_id="mine"), pl.Logger(experiment=experiment)])
    for run_id in ("mine", experiment.run_id):
        assert [3, 4, 5, 6, 7] == accuracy_steps(tracelet.load_run(run_id))


def test_several_loggers_resume_each_its_own_run(pl: Lightning):
    first, second = ([pl.Logger(project=name) for name in "ab"] for _ in range(2))
    broken_off(pl, first)
    resumed(pl, second)
    assert [logger.version for logger in first] == [logger.version for logger in second]
    for logger in second:
        assert list(range(BATCHES)) == accuracy_steps(tracelet.load_run(logger.log_dir))


def test_a_run_that_was_recorded_before_resuming_stays_a_run_of_its_own(pl: Lightning):
    first = broken_off(pl, pl.Logger())
    second = pl.Logger()
    second.log_metrics({"mine": 1.0}, 0)
    alone = second.version
    resumed(pl, second)
    assert (RunStatus.FINISHED, ["mine"]) == (tracelet.load_run(alone).status, tracelet.load_run(alone).names())
    assert first.version == second.version != alone


def test_a_test_of_a_checkpoint_is_a_run_of_its_own(pl: Lightning):
    first = broken_off(pl, pl.Logger())
    second = pl.Logger()
    pl.trainer(second).test(pl.model(), digits(), ckpt_path=LAST, verbose=False)
    assert first.version != second.version
    assert "test/accuracy" in tracelet.load_run(second.version).names()


def test_a_checkpoint_without_a_run_resumes_as_a_new_one(pl: Lightning):
    broken_off(pl, False)
    logger = resumed(pl, pl.Logger())
    assert [3, 4, 5, 6, 7] == accuracy_steps(tracelet.load_run(logger.version))


@pytest.mark.parametrize("moved_to", ["elsewhere", None])
def test_a_run_that_has_moved_is_found_where_runs_are_kept_now(
    pl: Lightning, moved_to: str | None, caplog: pytest.LogCaptureFixture
):
    first = broken_off(pl, pl.Logger())
    Path("tracelet_runs").rename(moved_to or "lost")
    second = resumed(pl, pl.Logger(dir="elsewhere"))
    assert first.version == second.version
    expected = list(range(0 if moved_to else 3, BATCHES))
    assert expected == accuracy_steps(tracelet.load_run(second.version, dir="elsewhere"))
    assert (moved_to is None) is any("its record begins anew" in record.message for record in caplog.records)


def test_checkpoints_hold_the_identity_of_the_run_as_plain_values(pl: Lightning):
    logger = broken_off(pl, pl.Logger(project="p"))
    saved = torch.load(LAST, weights_only=True)
    root = str(Path("tracelet_runs").resolve())
    identity = {"run_id": logger.version, "project": "p", "dir": root, "attempt": 1}
    assert {"runs": [identity]} == saved["tracelet"]
    assert not [key for key in saved["callbacks"] if "Tracelet" in key]


def test_a_second_training_is_marked_and_one_that_only_goes_on_is_not(pl: Lightning):
    logger = pl.Logger()
    trainer = pl.trainer(logger)
    model = pl.model()
    trainer.fit(model, digits())
    trainer.fit_loop.max_epochs = 2
    trainer.fit(model, digits())
    assert [] == [name for name in tracelet.load_run(logger.version).names() if name.startswith("tracelet/")]
    pl.trainer(logger).fit(model, digits())
    run = tracelet.load_run(logger.version)
    assert ([2.0], 3 * BATCHES) == (run.series(SEGMENT_NAME).values.tolist(), len(run.live("train/accuracy")))


@pytest.mark.parametrize("kind", [TraceletLogger, TraceletCallback])
def test_what_can_not_be_started_raises_before_the_training(pl: Lightning, kind: Any):
    recorder = kind(backend="no-such-backend")
    is_logger = kind is TraceletLogger
    trainer = pl.trainer(recorder if is_logger else False, callbacks=[] if is_logger else [recorder])
    with pytest.raises(PluginNotFoundError):
        trainer.fit(pl.model(), digits())
    assert 0 == trainer.global_step
