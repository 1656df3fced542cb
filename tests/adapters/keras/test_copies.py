"""Copies of a callback: KerasTuner makes one for each trial, and pickle one for another process."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import tracelet
from tests.adapters.keras.reading import all_runs, nothing_recorded, only_run, steps
from tests.adapters.keras.workers import KerasProcess
from tracelet import RunStatus


def fit(callback: Any, epochs: int = 1) -> Any:
    from tests.adapters.keras import models

    images, labels = models.digits()
    model = models.network()
    model.fit(images, labels, batch_size=16, epochs=epochs, callbacks=[callback], verbose=0)
    return model


def make() -> Any:
    from tracelet_keras import TraceletCallback

    return TraceletCallback(config={"a": 1})


def test_making_a_callback_writes_nothing(keras: KerasProcess):
    keras.run(make_and_drop)
    assert nothing_recorded()


def make_and_drop() -> None:
    callback = make()
    assert callback.experiment.run_id == callback.experiment.run_id


def fit_copies_of_a_new_one() -> list[str]:
    callback = make()
    copies = [copy.deepcopy(callback), pickle.loads(pickle.dumps(callback))]
    for one in copies:
        fit(one)
        assert not one.experiment.is_running
    assert not callback.experiment.is_running
    return [one.experiment.run_id for one in copies]


def test_a_copy_of_a_callback_that_has_not_begun_is_a_run_that_ends_with_its_fit(keras: KerasProcess):
    ids = keras.run(fit_copies_of_a_new_one)
    runs = all_runs()
    assert set(ids) == {run.id for run in runs}
    assert 2 == len(runs)
    for run in runs:
        assert (RunStatus.FINISHED, 1, [8]) == (run.status, run.params["a"], steps(run, "train/loss"))


def fit_a_copy_of_one_that_has_begun() -> None:
    callback = make()
    model = fit(callback)
    for twin in (copy.deepcopy(callback), pickle.loads(pickle.dumps(callback))):
        assert twin.experiment is callback.experiment
        assert twin.model is None  # A copy of it would be a large one.
        model.fit(*data(), batch_size=16, callbacks=[twin], verbose=0)
    callback.stop()


def data() -> Any:
    from tests.adapters.keras import models

    return models.digits()


def test_a_copy_of_a_callback_that_has_begun_goes_on_with_its_run(keras: KerasProcess):
    keras.run(fit_a_copy_of_one_that_has_begun)
    assert [8, 16, 24] == steps(only_run(), "train/loss")


def fit_copies_of_a_chosen_run() -> None:
    from tracelet_keras import TraceletCallback

    callback = TraceletCallback(run_id="chosen")
    model = fit(callback)
    model.fit(*data(), batch_size=16, callbacks=[copy.deepcopy(callback)], verbose=0)


def test_a_run_that_the_user_has_chosen_is_that_of_all_copies(keras: KerasProcess):
    keras.run(fit_copies_of_a_chosen_run)
    assert ("chosen", [8, 16]) == (only_run().id, steps(only_run(), "train/loss"))


def attributes_of_the_class() -> bool:
    from tracelet_keras import TraceletCallback

    def state() -> dict[str, Any]:
        return {
            f"{kind.__name__}.{name}": repr(v) for kind in TraceletCallback.__mro__ for name, v in vars(kind).items()
        }

    before = state()
    fit(make())
    return before == state()


def test_a_training_leaves_nothing_on_the_class(keras: KerasProcess):
    assert keras.run(attributes_of_the_class)


def search() -> list[float]:
    import keras_tuner

    from tests.adapters.keras import models
    from tracelet_keras import TraceletCallback, TraceletModelCheckpoint

    def build(hp: Any) -> Any:
        import keras

        return models.network(keras.optimizers.SGD(hp.Choice("learning_rate", [0.1, 0.2, 0.4])))

    tuner = keras_tuner.GridSearch(build, "val_loss", max_trials=3, directory="search", overwrite=True)
    images, labels = models.digits()
    callback = TraceletCallback(log_freq="batch")
    callbacks = [callback, TraceletModelCheckpoint("last.keras", callback=callback)]
    tuner.search(
        images, labels, batch_size=16, epochs=2, validation_data=models.validation(), callbacks=callbacks, verbose=0
    )
    assert not callback.experiment.is_running
    return [trial.score for trial in tuner.oracle.get_best_trials(3)]


def test_each_trial_of_keras_tuner_is_a_run(keras: KerasProcess):
    scores = keras.run(search)
    runs = all_runs()
    assert {RunStatus.FINISHED} == {run.status for run in runs}
    assert [0.1, 0.2, 0.4] == sorted(round(run.params["optimizer/learning_rate"], 6) for run in runs)
    assert sorted(scores) == sorted(min(run.series("val/loss").values.tolist()) for run in runs)
    for run in runs:
        assert list(range(1, 17)) == steps(run, "train/loss")
        assert 2 == len(run.records(tracelet.MetricType.ARTIFACT))
