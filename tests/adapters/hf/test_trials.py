"""A hyper-parameter search with Optuna: one run for each trial."""

from __future__ import annotations

from typing import Any

import optuna

import tracelet
from tests.adapters.hf.helpers import STEPS, Fail, classifier, reviews, trainer
from tracelet import RunStatus
from tracelet.journal.load import list_runs
from tracelet_hf import TraceletCallback

optuna.logging.set_verbosity(optuna.logging.WARNING)


def search(callback: TraceletCallback, trials: int = 3, hp_name: Any = None, **changed: Any) -> Any:
    made = trainer(
        callback, model_init=lambda trial: classifier(), eval_dataset=reviews(8, 1),
        **{"eval_strategy": "epoch", "save_strategy": "epoch", **changed},
    )  # fmt: skip
    made.hyperparameter_search(
        hp_space=lambda trial: {"learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-2)},
        backend="optuna", n_trials=trials, direction="minimize",
        hp_name=hp_name, sampler=optuna.samplers.RandomSampler(seed=1),
    )  # fmt: skip
    return made


def runs() -> list[tracelet.Run]:
    return sorted(list_runs("tracelet_runs"), key=lambda run: run.tags.get("trial", "9"))


def test_each_trial_is_a_run_and_a_tag_groups_them():
    callback = TraceletCallback(name="search", tags=["team"], config={"why": "baseline"}, log_model="checkpoint")
    group = callback.run_id
    search(callback)
    callback.stop()
    found = runs()
    assert ["search-trial-1", "search-trial-2", "search-trial-3"] == [run.name for run in found]
    assert [RunStatus.FINISHED] * 3 == [run.status for run in found]
    for run in found:
        assert {"team": "", "hpo": group, "trial": run.name[-1]} == run.tags
        assert run.params["trial/learning_rate"] == run.params["learning_rate"]
        assert "baseline" == run.params["why"]
        assert list(range(1, STEPS + 1)) == run.series("train/loss").steps.tolist()
        assert [STEPS] == run.series("eval/loss").steps.tolist()
        (checkpoint,) = run.records(tracelet.MetricType.ARTIFACT)
        assert f"model/checkpoint-{STEPS}" == checkpoint.name
    assert 3 == len({run.params["learning_rate"] for run in found})


def test_trials_have_the_names_that_the_user_gives_them():
    callback = TraceletCallback()
    search(callback, trials=1, hp_name=lambda trial: f"number {trial.number}")
    assert ["number 0"] == [run.name for run in runs()]


def test_an_evaluation_after_the_training_belongs_to_the_trial():
    callback = TraceletCallback()
    search(callback, trials=2, eval_strategy="no")
    callback.stop()
    assert [[STEPS], [STEPS]] == [run.series("eval/loss").steps.tolist() for run in runs()]


def test_a_trial_that_fails_is_a_run_that_failed():
    callback = TraceletCallback()
    fail = Fail(3, RuntimeError("no memory"))
    made = trainer(callback, fail, model_init=lambda trial: classifier(), eval_dataset=reviews(8, 1))

    def space(trial: optuna.Trial) -> dict[str, float]:
        fail.step = 3 if trial.number == 0 else -1
        return {"learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-2)}

    made.hyperparameter_search(hp_space=space, backend="optuna", n_trials=2, catch=(RuntimeError,))
    callback.stop()
    assert [RunStatus.FAILED, RunStatus.FINISHED] == [run.status for run in runs()]


def test_a_training_after_the_search_is_a_run_of_its_own():
    callback = TraceletCallback(run_id="base")
    made = search(callback, trials=1)
    made.train()
    callback.stop()
    trial, base = runs()
    assert ("1", "base", {}) == (trial.tags["trial"], base.id, base.tags)
    assert (RunStatus.FINISHED, STEPS) == (base.status, len(base.series("train/loss")))


def test_an_experiment_of_the_users_takes_all_trials_as_segments():
    with tracelet.Experiment("mine") as experiment:
        search(TraceletCallback(experiment=experiment), trials=2)
    (run,) = runs()
    assert 2 * STEPS == len(run.series("train/loss"))
