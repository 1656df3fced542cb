"""Search the learning rate of a digits classifier with Optuna; start it as often as there are processes to use."""

from __future__ import annotations

import argparse
import math
import warnings

import optuna
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

import tracelet

STUDY = "digits"


# --8<-- [start:objective]
def objective(trial: optuna.Trial) -> float:
    tags = {"study": trial.study.study_name, "trial": str(trial.number)}
    lr = trial.suggest_float("lr", 1e-5, 1.0, log=True)
    with tracelet.Experiment(f"trial {trial.number}", config=trial.params, tags=tags) as experiment:
        try:
            accuracy = train(lr, trial, experiment)
        except optuna.TrialPruned:
            experiment.set_tags({"state": "pruned"})
            experiment.stop()  # As finished: in Optuna, too, it is no failure.
            raise
        experiment.set_tags({"state": "complete"})
        experiment.log_metric("objective", accuracy)
    return accuracy  # Any other exception makes the run `failed`, with its traceback.


# --8<-- [end:objective]


def train(lr: float, trial: optuna.Trial, experiment: tracelet.Experiment) -> float:
    x_train, x_val, y_train, y_val = train_test_split(*load_digits(return_X_y=True), random_state=0)
    model = MLPClassifier((16,), learning_rate_init=lr, max_iter=1, warm_start=True, random_state=0)
    accuracy = math.nan
    for epoch in range(5):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # It has not converged after one epoch.
            model.fit(x_train / 16, y_train)
        accuracy = float(model.score(x_val / 16, y_val))
        experiment.log_metrics({"train/loss": model.loss_, "val/accuracy": accuracy}, epoch)
        trial.report(accuracy, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
    return accuracy


def main(trials: int, storage: str) -> None:
    study = optuna.create_study(
        study_name=STUDY, storage=storage, load_if_exists=True, direction="maximize",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=2, n_warmup_steps=1),
    )  # fmt: skip
    study.optimize(objective, n_trials=trials, n_jobs=2)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--storage", default="sqlite:///optuna.db")
    arguments = parser.parse_args()
    main(arguments.trials, arguments.storage)
