"""A training goes on, and its record stays whole, whatever happens around it."""

from __future__ import annotations

import copy
import pickle
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

import tracelet
from tests.adapters.hf.helpers import STEPS, Fail, Hook, classifier, points, reviews, trainer
from tracelet import RunStatus
from tracelet.errors import PluginNotFoundError, RunNotFoundError, UsageError
from tracelet.testing import MemoryBackend
from tracelet_hf import TraceletCallback
from tracelet_hf.progress import Progress
from tracelet_hf.session import Session


def load(callback: TraceletCallback) -> tracelet.Run:
    return tracelet.load_run(callback.run_id)


def test_an_unknown_backend_raises_before_any_training():
    made = trainer(TraceletCallback(backend="mlfow"))
    with pytest.raises(PluginNotFoundError, match="mlfow"):
        made.train()
    assert 0 == made.state.global_step


def test_an_unknown_backend_does_not_stop_an_evaluation_alone(caplog: Any):
    assert "eval_loss" in trainer(TraceletCallback(backend="mlfow"), eval_dataset=reviews(8, 1)).evaluate()
    assert any("mlfow" in record.message for record in caplog.records)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"log_model": "all"}, "log_model is one of False, 'end', 'checkpoint', 'best', not 'all'"),
        ({"log_model": True}, "not True"),
        ({"resume": "maybe"}, "not 'maybe'"),
    ],
)
def test_a_wrong_argument_raises_at_once(wrong: dict[str, Any], error: str):
    with pytest.raises(UsageError, match=error):
        TraceletCallback(**wrong)


def test_an_experiment_comes_alone():
    with pytest.raises(UsageError, match="give the rest to Experiment"):
        TraceletCallback(experiment=tracelet.Experiment("mine"), project="p")


def test_a_run_that_must_be_there_and_is_not_raises_before_any_training():
    made = trainer(TraceletCallback(run_id="gone", resume="must"))
    with pytest.raises(RunNotFoundError):
        made.train()
    assert 0 == made.state.global_step


EVENTS = [
    "step_ended", "log", "epoch_ended", "evaluated", "pause_ended", "checkpoint_saved",
    "training_ended", "training_began", "describe", "push_begins",
]  # fmt: skip


@pytest.mark.parametrize("event", EVENTS)
def test_a_fault_of_ours_is_logged_once_and_the_training_goes_on(event: str, monkeypatch: Any, caplog: Any):
    def fail(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(Session, event, fail)
    callback = TraceletCallback()
    often = {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 4}
    made = trainer(callback, eval_dataset=reviews(8, 1), num_train_epochs=2, **often)
    made.train()
    made.predict(reviews(8, 1))
    callback.on_push_begin(made.args, made.state, made.control, model=made.model)
    assert 2 * STEPS == made.state.global_step
    faults = [record for record in caplog.records if "the training goes on" in record.message]
    assert len(faults) == len({record.message for record in faults}) >= 1
    assert all("ZeroDivisionError('ours')" in record.message for record in faults)
    if event != "log":
        assert 2 * STEPS == len(load(callback).series("train/loss"))


def test_a_fault_in_what_is_known_of_the_groups_is_no_fault_of_the_step(monkeypatch: Any, caplog: Any):
    callback = TraceletCallback()
    monkeypatch.setattr(Progress, "begin", lambda self, *_: setattr(self, "watches_groups", True))
    monkeypatch.setattr(Progress, "optimizer_steps", None)  # It can't be called.
    trainer(callback).train()
    assert STEPS == len(load(callback).series("train/loss"))
    assert 1 == len(
        [record for record in caplog.records if record.message.startswith("on_pre_optimizer_step: not recorded")]
    )


def test_nothing_that_a_strange_model_does_stops_the_training(caplog: Any):
    class Strange:
        def to_dict(self) -> Any:
            raise RuntimeError("not now")

    model = classifier()
    object.__setattr__(model, "peft_config", Strange())
    callback = TraceletCallback()
    trainer(callback, model=model).train()
    assert STEPS == len(load(callback).series("train/loss"))
    assert ["_describe: not recorded, the training goes on: RuntimeError('not now')"] == [
        record.message for record in caplog.records if "goes on" in record.message
    ]


def test_a_training_that_fails_is_a_run_that_failed_once_the_next_one_begins():
    callback = TraceletCallback()
    with pytest.raises(RuntimeError):
        trainer(callback, Fail(3, RuntimeError("no memory"))).train()
    assert RunStatus.RUNNING is load(callback).status
    trainer(callback).train()
    assert 2 == len(list(load(callback).path.glob("*.log")))
    callback.stop()
    assert (RunStatus.FINISHED, 3 + STEPS) == (load(callback).status, len(load(callback).series("train/loss")))


def test_an_experiment_of_the_users_is_his_to_stop():
    with tracelet.Experiment("mine") as experiment:
        callback = TraceletCallback(experiment=experiment)
        with pytest.raises(RuntimeError):
            trainer(callback, Fail(3, RuntimeError("no memory"))).train()
        trainer(callback).train()
        experiment.log_metric("mine", 1.0, 0)
    run = tracelet.load_run(experiment.run_id)
    assert (RunStatus.FINISHED, 3 + STEPS, 1) == (
        run.status, len(run.series("train/loss")), len(list(run.path.glob("*.log")))
    )  # fmt: skip


def test_training_ends_while_a_backend_hangs():
    backend = MemoryBackend()
    released = threading.Event()
    backend.stall(until=released)
    callback = TraceletCallback(backend=backend, log_model="end")
    made = trainer(callback, eval_dataset=reviews(8, 1))
    made.train()
    made.evaluate()
    assert [] == backend.records
    assert STEPS == len(load(callback).series("train/loss"))
    released.set()
    callback.stop()
    assert STEPS == len([record for record in backend.records if record.name == "train/loss"])


def test_training_runs_where_nothing_can_be_written(tmp_path: Path):
    (tmp_path / "file").touch()
    made = trainer(TraceletCallback(dir=tmp_path / "file" / "runs", log_model="checkpoint"), save_strategy="epoch")
    made.train()
    assert STEPS == made.state.global_step


def test_training_goes_on_when_the_run_directory_is_deleted():
    callback = TraceletCallback(log_model="checkpoint")

    def delete(state: Any, **_: Any) -> None:
        if state.global_step == 3:
            # Under another name first: the journal makes new files there while the tree is taken apart.
            shutil.rmtree(callback.experiment.run_dir.rename("removed"))

    made = trainer(callback, Hook("on_step_end", delete), save_strategy="steps", save_steps=2, save_total_limit=1)
    made.train()
    assert STEPS == made.state.global_step


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda callback: pickle.loads(pickle.dumps(callback))])
@pytest.mark.parametrize("begun", [False, True])
def test_a_copy_records_into_the_same_run(copied: Any, begun: bool):
    callback = TraceletCallback(tags=["mine"], true_loss=True, log_model="checkpoint")
    if begun:
        trainer(callback).train()
    copy_ = copied(callback)
    trainer(copy_).train()
    assert callback.run_id == copy_.run_id
    run = load(callback)
    assert ({"mine": ""}, (2 if begun else 1) * STEPS) == (run.tags, len(run.series("train/loss")))
    assert [(0, 2.0)] == (points(run, "tracelet/segment") if begun else [(0, 2.0)])


def test_a_copy_can_be_made_in_the_middle_of_a_training():
    copies: list[Any] = []

    def copy_all(state: Any, model: Any, **_: Any) -> None:
        if state.global_step == 3:
            copies.extend([copy.deepcopy(callback), pickle.loads(pickle.dumps(callback)), copy.deepcopy(model)])

    callback = TraceletCallback(true_loss=True)
    trainer(callback, Hook("on_step_end", copy_all)).train()
    copies[2].train()(input_ids=classifier().dummy_inputs["input_ids"] * 0, labels=None)
    run = load(callback)
    assert list(range(1, STEPS + 1)) == run.series("train/true_loss").steps.tolist()
    assert [callback.run_id] * 2 == [one.run_id for one in copies[:2]]


def test_callbacks_share_nothing():
    before = {key: value for key, value in vars(TraceletCallback).items() if not key.startswith("__")}
    callbacks = [TraceletCallback(project="a"), TraceletCallback(project="b")]
    for callback in callbacks:
        trainer(callback, output_dir=f"out-{callback.experiment.project}").train()
    assert callbacks[0].run_id != callbacks[1].run_id
    assert [STEPS, STEPS] == [len(load(callback).series("train/loss")) for callback in callbacks]
    assert before == {key: value for key, value in vars(TraceletCallback).items() if not key.startswith("__")}


def test_two_trainers_may_have_the_same_arguments_and_the_same_callback():
    callback = TraceletCallback()
    first = trainer(callback)
    second = trainer(callback)
    second.args = first.args
    first.train()
    second.train()
    assert 2 * STEPS == len(load(callback).series("train/loss"))


def test_no_thread_and_no_hook_outlives_the_run():
    before = set(threading.enumerate())
    callback = TraceletCallback(true_loss=True)
    made = trainer(callback)
    made.train()
    assert {} == dict(made.model._forward_hooks)
    callback.stop()
    left = [thread for thread in threading.enumerate() if thread not in before]
    assert [] == [thread.name for thread in left if not thread.daemon or thread.name.startswith("tracelet-")]
