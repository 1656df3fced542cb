"""`log_model`: which checkpoints are kept with the run, under which aliases, and when they go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import tracelet
from tests.adapters.lightning.helpers import BATCHES, Lightning, digits
from tracelet import Artifact
from tracelet.errors import UsageError
from tracelet.testing import MemoryBackend

NAMES = {step: f"model/epoch=0-step={step}" for step in (2, 4, 6, 8)}


def saving(pl: Lightning, folder: str = "checkpoints", **options: Any) -> Any:
    return pl.module.callbacks.ModelCheckpoint(folder, **{"every_n_train_steps": 2, **options})


def train(pl: Lightning, logger: Any, *callbacks: Any, model: Any = None) -> tracelet.Run:
    trainer = pl.trainer(logger, enable_checkpointing=True, callbacks=[*callbacks])
    trainer.fit(pl.model() if model is None else model, digits())
    return tracelet.load_run(logger.version)


def rising_then_falling(pl: Lightning) -> Any:
    """A module whose metric is the best at step 4."""

    class Module(type(pl.model())):  # type: ignore[misc]  # A base of the chosen namespace.
        def training_step(self, batch: Any, index: int) -> Any:
            self.log("score", -abs(3.0 - index))
            return super().training_step(batch, index)

    torch.manual_seed(1)
    return Module()


def kept(run: tracelet.Run) -> list[str]:
    return [artifact.name for artifact in run.artifacts() if artifact.is_kept]


def content(artifact: Artifact) -> bytes:
    with artifact.open() as file:
        return file.read()


def named(run: tracelet.Run, name: str) -> Artifact:
    (artifact,) = [artifact for artifact in run.artifacts() if artifact.name == name and artifact.is_kept]
    return artifact


def test_none_is_kept_unless_it_is_asked_for(pl: Lightning):
    assert [] == train(pl, pl.Logger(), saving(pl, save_top_k=-1)).artifacts()


def test_all_are_kept_as_they_are_saved_with_score_step_and_the_bytes_of_the_file(pl: Lightning):
    logger = pl.Logger(log_model="all")
    run = train(pl, logger, saving(pl, monitor="score", mode="max", save_top_k=-1), model=rising_then_falling(pl))
    assert sorted(NAMES.values()) == kept(run)
    best = named(run, NAMES[4])
    assert ("model", 4, ("best", "latest")) == (best.type, best.step, best.aliases)
    assert ("score", "max", 0.0) == tuple(best.metadata[key] for key in ("monitor", "mode", "score"))
    assert ("latest",) == named(run, NAMES[8]).aliases
    for step, name in NAMES.items():
        assert Path(f"checkpoints/epoch=0-step={step}.ckpt").read_bytes() == content(named(run, name))


def test_true_keeps_those_that_lightning_has_at_the_end(pl: Lightning):
    logger = pl.Logger(log_model=True)
    run = train(pl, logger, saving(pl, monitor="score", mode="max", save_top_k=2), model=rising_then_falling(pl))
    assert {f"model/{path.stem}" for path in Path("checkpoints").iterdir()} == set(kept(run))
    assert 2 == len(run.artifacts())


@pytest.mark.parametrize("error", [RuntimeError("no memory"), KeyboardInterrupt()])
@pytest.mark.parametrize("log_model", [True, "all"])
def test_failures_and_ctrl_c_lose_none_not_even_the_one_that_is_saved_for_them(
    pl: Lightning, log_model: Any, error: BaseException, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pl.module.trainer.call.signal, "signal", lambda *_: None)

    def fail(trainer: Any, *_: Any) -> None:
        if trainer.global_step == 5:
            raise error

    logger = pl.Logger(log_model=log_model)
    with pytest.raises((RuntimeError, SystemExit)):
        train(pl, logger, saving(pl, save_top_k=-1, save_on_exception=True), pl.callback("on_train_batch_start", fail))
    run = tracelet.load_run(logger.version)
    assert ["model/epoch=0-step=2", "model/epoch=0-step=4", "model/epoch=0-step=5"] == kept(run)
    assert tracelet.RunStatus.FAILED is run.status


@pytest.mark.parametrize("backend", [None, MemoryBackend()])
def test_what_lightning_deletes_the_run_lets_go_once_every_backend_has_it(pl: Lightning, backend: Any):
    logger = pl.Logger(log_model="all", backend=backend)
    train(pl, logger, saving(pl, save_top_k=1))
    logger.stop()
    run = tracelet.load_run(logger.version)
    assert [NAMES[8]] == kept(run)
    assert ["epoch=0-step=8.ckpt"] == [path.name for path in Path("checkpoints").iterdir()]
    assert sorted(NAMES.values()) == [artifact.name for artifact in run.artifacts()]
    assert [f"{NAMES[step]}:v0" for step in (2, 4, 6)] == [text for _, text in run.texts("model/pruned")]


def test_what_a_backend_has_not_got_stays(pl: Lightning):
    backend = MemoryBackend()
    backend.fail(ConnectionError)
    logger = pl.Logger(log_model="all", backend=backend)
    assert sorted(NAMES.values()) == kept(train(pl, logger, saving(pl, save_top_k=1)))
    backend.recover()
    logger.stop()
    assert [NAMES[8]] == kept(tracelet.load_run(logger.version))


def test_only_the_best_is_kept(pl: Lightning):
    logger = pl.Logger(log_model="best")
    run = train(pl, logger, saving(pl, monitor="score", mode="max", save_top_k=2), model=rising_then_falling(pl))
    assert [NAMES[4]] == kept(run)
    assert [NAMES[2], NAMES[4]] == [artifact.name for artifact in run.artifacts()]


@pytest.mark.parametrize(("save_last", "last"), [(None, NAMES[8]), (True, "model/last"), ("link", NAMES[8])])
def test_only_the_last_is_kept(pl: Lightning, save_last: Any, last: str):
    run = train(pl, pl.Logger(log_model="last"), saving(pl, save_top_k=-1, save_last=save_last))
    assert [last] == kept(run)


def test_a_file_that_is_written_anew_is_the_next_version_and_the_one_before_goes(pl: Lightning):
    run = train(pl, pl.Logger(log_model="all"), saving(pl, filename="same", enable_version_counter=False))
    versions = [(artifact.version, artifact.is_kept, artifact.step) for artifact in run.artifacts()]
    assert [("v0", False, 2), ("v1", False, 4), ("v2", False, 6), ("v3", True, 8)] == versions
    assert Path("checkpoints/same.ckpt").read_bytes() == content(run.artifact("model/same"))


def test_several_callbacks_keep_each_its_own(pl: Lightning):
    logger = pl.Logger(log_model="best")
    callbacks = [
        saving(pl, "a", monitor="score", mode="max", filename="best"),
        saving(pl, "b", monitor="score", mode="min", filename="best"),
    ]
    run = train(pl, logger, *callbacks, model=rising_then_falling(pl))
    found = {name: named(run, name).metadata["score"] for name in kept(run)}
    assert {0.0, -4.0} == set(found.values())
    assert 2 == len(found)


def test_a_fault_in_keeping_does_not_end_the_training(
    pl: Lightning, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    logger = pl.Logger(log_model="all")

    def fail(*_: Any, **__: Any) -> None:
        raise OSError("no such device")

    monkeypatch.setattr(tracelet.Experiment, "log_artifact", fail)
    run = train(pl, logger, saving(pl))
    assert BATCHES == len(run.series("train/accuracy"))
    assert any("keeping a checkpoint: not recorded" in record.message for record in caplog.records)


def test_a_word_that_says_nothing_raises(pl: Lightning):
    with pytest.raises(UsageError, match="log_model is one of False, True, 'all', 'best', 'last', not 'some'"):
        pl.Logger(log_model="some")
