"""A training goes on, and its record stays whole, whatever happens around it."""

from __future__ import annotations

import resource
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

import tracelet
from tests.adapters.lightning.helpers import BATCHES, Lightning, ListBackend, digits
from tracelet import RunStatus
from tracelet.errors import RetryableError


def fail_at(step: int, error: BaseException) -> Any:
    def act(trainer: Any, *_: Any) -> None:
        if trainer.global_step == step:
            raise error

    return act


def test_exception_ends_the_run_as_failed_and_stays_itself(pl: Lightning):
    logger = pl.Logger()
    hook = pl.callback("on_train_batch_start", fail_at(3, RuntimeError("no memory")))
    with pytest.raises(RuntimeError, match="no memory"):
        pl.trainer(logger, callbacks=[hook]).fit(pl.model(), digits())
    run = tracelet.load_run(logger.version)
    assert (RunStatus.FAILED, [0, 1, 2]) == (run.status, run.series("train/accuracy").steps.tolist())
    assert "RuntimeError: no memory" == run.error.splitlines()[-1]


@pytest.mark.parametrize("started_by_user", [False, True])
def test_ctrl_c_ends_the_run_as_failed(pl: Lightning, started_by_user: bool, monkeypatch: pytest.MonkeyPatch):
    # Lightning switches Ctrl-C off for good: pytest wants it back.
    monkeypatch.setattr(pl.module.trainer.call.signal, "signal", lambda *_: None)
    experiment = tracelet.Experiment("mine")
    logger = pl.Logger(experiment=experiment.start() if started_by_user else experiment)
    hook = pl.callback("on_train_batch_start", fail_at(3, KeyboardInterrupt()))
    with pytest.raises(SystemExit):
        pl.trainer(logger, callbacks=[hook]).fit(pl.model(), digits())
    run = tracelet.load_run(logger.version)
    assert (RunStatus.FAILED, [0, 1, 2]) == (run.status, run.series("train/accuracy").steps.tolist())
    assert run.error.splitlines()[-1].startswith("KeyboardInterrupt")


def test_experiment_of_the_user_survives_an_exception_that_he_handles(pl: Lightning):
    with tracelet.Experiment("mine") as experiment:
        logger = pl.Logger(experiment=experiment)
        hook = pl.callback("on_train_batch_start", fail_at(3, RuntimeError("no memory")))
        with pytest.raises(RuntimeError):
            pl.trainer(logger, callbacks=[hook]).fit(pl.model(), digits())
        experiment.log_metric("retry", 1.0, 0)
        pl.trainer(logger).fit(pl.model(), digits())
    run = tracelet.load_run(logger.version)
    assert (RunStatus.FINISHED, 3 + BATCHES) == (run.status, len(run.series("train/accuracy")))


def test_training_after_a_failed_one_is_the_next_attempt_of_the_run(pl: Lightning):
    backend = ListBackend()
    logger = pl.Logger(backend=backend)
    hook = pl.callback("on_train_batch_start", fail_at(3, RuntimeError("no memory")))
    with pytest.raises(RuntimeError):
        pl.trainer(logger, callbacks=[hook]).fit(pl.model(), digits())
    pl.trainer(logger).fit(pl.model(), digits())
    logger.stop()
    run = tracelet.load_run(logger.version)
    assert (RunStatus.FINISHED, 3 + BATCHES) == (run.status, len(run.series("train/accuracy")))
    assert 1 == len(list(Path(logger.root_dir).iterdir()))
    steps = [record.iteration for record in backend.records if record.name == "train/accuracy"]
    assert [*range(3), *range(BATCHES)] == steps


def test_training_ends_while_a_backend_hangs(pl: Lightning):
    released = threading.Event()
    backend = ListBackend()
    backend.on_record = lambda: released.wait(60)
    logger = pl.Logger(backend=backend)
    trainer = pl.trainer(logger)
    trainer.fit(pl.model(), digits())
    trainer.test(pl.model(), digits(), verbose=False)
    assert [] == backend.records
    assert BATCHES == len(tracelet.load_run(logger.version).series("train/accuracy"))
    released.set()
    logger.stop()
    assert BATCHES == len([record for record in backend.records if record.name == "train/accuracy"])


def test_training_ends_while_a_backend_is_away(pl: Lightning):
    backend = ListBackend()

    def refuse() -> None:
        raise RetryableError("connection refused")

    backend.on_record = refuse
    logger = pl.Logger(backend=backend)
    pl.trainer(logger).fit(pl.model(), digits())
    logger.stop()
    run = tracelet.load_run(logger.version)
    assert (RunStatus.FINISHED, BATCHES) == (run.status, len(run.series("train/accuracy")))


def test_training_runs_where_nothing_can_be_written(pl: Lightning, tmp_path: Path):
    (tmp_path / "file").touch()
    logger = pl.Logger(dir=tmp_path / "file" / "runs")
    trainer = pl.trainer(logger, enable_checkpointing=True, default_root_dir=tmp_path)
    trainer.fit(pl.model(), digits())
    assert BATCHES == trainer.global_step
    assert None is logger.save_dir
    assert tmp_path in Path(trainer.checkpoint_callback.best_model_path).parents


def test_training_goes_on_when_the_disk_is_full_and_nothing_is_lost_when_it_is_not_any_more(pl: Lightning):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def full(*_: Any) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))

    def has_room(*_: Any) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    hooks = [pl.callback("on_train_start", full), pl.callback("on_train_end", has_room)]
    logger = pl.Logger()
    try:
        pl.trainer(logger, callbacks=hooks).fit(pl.model(), digits())
    finally:
        has_room()
    logger.stop()
    run = tracelet.load_run(logger.version)
    assert (list(range(BATCHES)), 0) == (run.series("train/accuracy").steps.tolist(), run.lost)


def test_training_goes_on_when_the_run_directory_is_deleted(pl: Lightning):
    def delete(trainer: Any, *_: Any) -> None:
        if trainer.global_step == 3:
            # Under another name first: the journal makes new files there while the tree is taken apart.
            shutil.rmtree(Path(logger.log_dir).rename("removed"))

    logger = pl.Logger()
    trainer = pl.trainer(logger, callbacks=[pl.callback("on_train_batch_end", delete)])
    trainer.fit(pl.model(), digits())
    assert BATCHES == trainer.global_step
