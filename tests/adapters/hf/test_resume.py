"""A training that resumes from a checkpoint goes on with the checkpoint's run, whoever died meanwhile."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import tracelet
from tests.adapters.hf.helpers import STEPS, Fail, reviews, trainer
from tracelet import RunStatus
from tracelet_hf import TraceletCallback

EVERY_2 = {"save_strategy": "steps", "save_steps": 2}


def broken_off(callback: TraceletCallback, step: int = 5, **changed: Any) -> None:
    with pytest.raises(RuntimeError, match="no memory"):
        trainer(callback, Fail(step, RuntimeError("no memory")), **{**EVERY_2, **changed}).train()


def test_values_after_resuming_are_those_of_an_unbroken_training():
    whole, broken, resumed = (TraceletCallback() for _ in range(3))
    trainer(whole).train()
    broken_off(broken)
    trainer(resumed, **EVERY_2).train(resume_from_checkpoint=True)
    expected = tracelet.load_run(whole.run_id).series("train/loss").values
    assert broken.run_id == resumed.run_id
    assert expected == pytest.approx(tracelet.load_run(resumed.run_id).live("train/loss").values)


@pytest.mark.parametrize("restored", [False, True])
def test_the_users_own_handle_stays_alive_and_shows_the_run(restored: bool):
    first = TraceletCallback(tags=["first"])
    broken_off(first)
    first.stop("failed")

    handle = TraceletCallback(tags=["second"], log_model="end")
    made = trainer(handle, **EVERY_2, restore_callback_states_from_checkpoint=restored)
    made.train(resume_from_checkpoint=True)
    (present,) = [one for one in made.callback_handler.callbacks if isinstance(one, TraceletCallback)]
    assert (present is handle) is not restored
    assert first.run_id == handle.run_id == present.run_id
    assert handle.experiment is present.experiment is tracelet.get_active_experiment()
    handle.experiment.log_metric("mine", 1.0, 0)
    made.evaluate(reviews(8, 1))
    handle.stop()
    run = tracelet.load_run(first.run_id)
    assert {"first": "", "second": ""} == run.tags
    assert [1] == [len(run.series(name)) for name in ("mine",)]
    assert [STEPS] == run.series("eval/loss").steps.tolist()
    assert RunStatus.FINISHED is run.status
    assert ["model/final"] == [record.name for record in run.records(tracelet.MetricType.ARTIFACT)]
    assert 1 == len(list(run.path.parent.iterdir()))


def test_a_callback_that_is_added_later_and_replaced_goes_on_with_the_run():
    first = TraceletCallback(project="p")
    broken_off(first)
    made = trainer(**EVERY_2, restore_callback_states_from_checkpoint=True)
    made.add_callback(TraceletCallback())
    made.train(resume_from_checkpoint=True)
    run = tracelet.load_run(first.run_id)
    assert list(range(1, STEPS + 1)) == run.live("train/loss").steps.tolist()


@pytest.mark.parametrize("restored", [False, True])
def test_several_callbacks_resume_each_its_own_run(restored: bool):
    first = [TraceletCallback(project=name) for name in "ab"]
    with pytest.raises(RuntimeError):
        trainer(*first, Fail(5, RuntimeError("no memory")), **EVERY_2).train()
    second = [TraceletCallback(project=name) for name in "ab"]
    made = trainer(*second, **EVERY_2, restore_callback_states_from_checkpoint=restored)
    made.train(resume_from_checkpoint=True)
    assert [one.run_id for one in first] == [one.run_id for one in second]
    for callback, project in zip(second, "ab", strict=True):
        run = tracelet.load_run(callback.run_id)
        assert (project, STEPS) == (run.project, len(run.live("train/loss")))


def test_a_failed_training_resumes_in_the_same_process_as_the_next_attempt():
    callback = TraceletCallback()
    broken_off(callback)
    trainer(callback, **EVERY_2).train(resume_from_checkpoint=True)
    callback.stop()
    run = tracelet.load_run(callback.run_id)
    statuses = [record for record in run.records(tracelet.MetricType.CUSTOM) if record.name == "tracelet/status"]
    assert ["failed", "finished"] == [record.value for record in statuses]
    assert "ended before its end" in statuses[0].metadata["error"]
    assert list(range(1, STEPS + 1)) == run.live("train/loss").steps.tolist()


def test_a_run_id_of_the_users_wins_over_that_of_the_checkpoint():
    broken_off(TraceletCallback())
    callback = TraceletCallback(run_id="mine")
    trainer(callback, **EVERY_2).train(resume_from_checkpoint=True)
    assert [5, 6, 7, 8] == tracelet.load_run("mine").series("train/loss").steps.tolist()


def test_an_experiment_of_the_users_wins_as_well():
    broken_off(TraceletCallback())
    with tracelet.Experiment("mine", run_id="mine") as experiment:
        trainer(TraceletCallback(experiment=experiment), **EVERY_2).train(resume_from_checkpoint=True)
    assert [5, 6, 7, 8] == tracelet.load_run("mine").series("train/loss").steps.tolist()


@pytest.mark.parametrize("moved_to", ["elsewhere", None])
def test_a_run_that_has_moved_is_found_where_runs_are_kept_now(moved_to: str | None, caplog: Any):
    first = TraceletCallback(project="p")
    broken_off(first)
    first.stop("failed")
    if moved_to is not None:
        shutil.move("tracelet_runs", moved_to)
    else:
        shutil.rmtree("tracelet_runs")
    second = TraceletCallback(dir="elsewhere", project="p")
    trainer(second, **EVERY_2).train(resume_from_checkpoint=True)
    assert first.run_id == second.run_id
    steps = tracelet.load_run(second.run_id, dir="elsewhere").series("train/loss").steps.tolist()
    assert ([1, 2, 3, 4, 5] if moved_to else []) + [5, 6, 7, 8] == steps
    assert (moved_to is None) is any("its record begins anew" in record.message for record in caplog.records)


def test_a_run_that_can_not_be_read_any_more_is_no_obstacle(caplog: Any):
    first = TraceletCallback()
    broken_off(first)
    first.stop("failed")
    Path(tracelet.load_run(first.run_id).path, "run.json").write_text("{")
    second = TraceletCallback()
    trainer(second, **EVERY_2).train(resume_from_checkpoint=True)
    assert first.run_id != second.run_id
    assert [5, 6, 7, 8] == tracelet.load_run(second.run_id).series("train/loss").steps.tolist()
    assert any("the run of the checkpoint can't go on" in record.message for record in caplog.records)


def test_an_evaluation_before_resuming_stays_a_run_of_its_own():
    first = TraceletCallback()
    broken_off(first)
    second = TraceletCallback()
    made = trainer(second, **EVERY_2)
    made.evaluate(reviews(8, 1))
    alone = second.run_id
    made.train(resume_from_checkpoint=True)
    assert RunStatus.FINISHED is tracelet.load_run(alone).status
    assert (first.run_id, ["eval/loss"]) == (
        second.run_id, [name for name in tracelet.load_run(alone).names() if name == "eval/loss"]
    )  # fmt: skip


def test_a_fresh_training_is_a_new_run_though_there_are_checkpoints():
    first, second = TraceletCallback(), TraceletCallback()
    trainer(first, **EVERY_2).train()
    trainer(second, **EVERY_2).train()
    assert first.run_id != second.run_id
    assert STEPS == len(tracelet.load_run(second.run_id).series("train/loss"))


def test_checkpoints_of_others_resume_as_a_new_run():
    trainer(**EVERY_2).train()
    callback = TraceletCallback()
    trainer(callback, **EVERY_2, max_steps=10).train(resume_from_checkpoint=True)
    assert [9, 10] == tracelet.load_run(callback.run_id).series("train/loss").steps.tolist()


def test_checkpoints_hold_the_identity_of_the_run_and_no_object_of_tracelets():
    callback = TraceletCallback(project="p")
    made = trainer(callback, **EVERY_2)
    made.train()
    saved = json.loads(Path("out/checkpoint-4/trainer_state.json").read_text())["stateful_callbacks"]
    identity = saved["TraceletCallback"]["attributes"]["saved"]
    assert (callback.run_id, "p") == (identity["run_id"], identity["project"])
    assert b"tracelet_hf" not in Path("out/checkpoint-4/training_args.bin").read_bytes()
    assert made.args.to_dict() == copy.deepcopy(made.args).to_dict()
