"""What a real training leaves behind, value by value, beside Keras's own `History`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tracelet
from tests.adapters.keras.reading import only_run, points, steps
from tests.adapters.keras.workers import KerasProcess
from tracelet import MetricType, RunStatus

History = dict[str, list[float]]
Points = dict[str, list[tuple[int, float]]]


def expected(history: History, batches: int = 8, validation_freq: int = 1) -> Points:
    """What `History` has, as series: one point an epoch, after its last batch."""
    found = {}
    for key, values in history.items():
        is_validation = key.startswith("val_")
        name = f"val/{key.removeprefix('val_')}" if is_validation else f"train/{key}"
        every = batches * (validation_freq if is_validation else 1)
        found[name] = [((index + 1) * every, value) for index, value in enumerate(values)]
    return found


def at_ends(run: tracelet.Run, wanted: Points) -> Points:
    """The points of these series at the ends of the epochs."""
    ends = {step for step, _ in wanted["train/loss"]}
    return {name: [point for point in points(run, name) if point[0] in ends] for name in wanted}


# -- epochs ------------------------------------------------------------------------------------------------------------


def plain(**compiling: Any) -> tuple[Any, dict[str, Any]]:
    from tests.adapters.keras import models

    images, labels = models.digits()
    data = {"x": images, "y": labels, "batch_size": models.BATCH, "validation_data": models.validation(), "epochs": 4}
    return models.network(**compiling), data


def of_unknown_length() -> tuple[Any, dict[str, Any]]:
    from tests.adapters.keras import models

    return models.network(), {"x": models.endless(), "validation_data": models.validation()}


def loaded_by_threads() -> tuple[Any, dict[str, Any]]:
    from tests.adapters.keras import models

    return models.network(), {"x": models.Batches(), "validation_data": models.validation(), "epochs": 3}


def with_class_weights() -> tuple[Any, dict[str, Any]]:
    model, data = plain()
    return model, {**data, "class_weight": {digit: 1.0 + digit for digit in range(10)}}


def with_two_outputs() -> tuple[Any, dict[str, Any]]:
    from tests.adapters.keras import models

    def both(labels: Any) -> dict[str, Any]:
        return {"digit": labels, "parity": labels % 2}

    _, data = plain()
    images, labels = data["validation_data"]
    return models.two_headed(), {**data, "y": both(data["y"]), "validation_data": (images, both(labels))}


def with_its_own_train_step() -> tuple[Any, dict[str, Any]]:
    from tests.adapters.keras import models

    _, data = plain()
    return models.stepping_network(), data


def train(case: Callable[[], tuple[Any, dict[str, Any]]], compiling: Any = None, **options: Any) -> tuple[Any, Any]:
    """Returns `History`, and what each batch brought."""
    from tests.adapters.keras import models
    from tracelet_keras import TraceletCallback

    model, data = case(**(compiling or {}))
    callback, seen = TraceletCallback(**options), models.Seen()
    history = model.fit(**data, callbacks=[callback, seen], verbose=0)
    callback.stop()
    return dict(history.history), seen.logs


CASES = [plain, of_unknown_length, loaded_by_threads, with_class_weights, with_two_outputs, with_its_own_train_step]


@pytest.mark.parametrize("log_freq", ["epoch", "batch"])
@pytest.mark.parametrize("case", CASES)
def test_every_epoch_has_the_values_of_history(keras: KerasProcess, case: Any, log_freq: Any):
    history, _ = keras.run(train, case, log_freq=log_freq)
    run = only_run()
    wanted = expected(history)
    assert wanted == at_ends(run, wanted)
    assert RunStatus.FINISHED is run.status
    assert list(range(len(history["loss"]))) == [int(epoch) for _, epoch in points(run, "epoch")]


def test_without_a_frequency_there_is_one_point_an_epoch(keras: KerasProcess):
    history, _ = keras.run(train, plain)
    run = only_run()
    wanted = expected(history)
    assert wanted == {name: points(run, name) for name in wanted}
    times = {"train/time_s", "train/mean_step_time_s", "train/samples_per_s", "val/time_s"}
    assert {*wanted, *times, "epoch", "train/learning_rate"} == set(run.names())
    assert {(8, 16, 24, 32)} == {tuple(steps(run, name)) for name in run.names()}


@pytest.mark.parametrize("case", CASES)
def test_every_batch_has_the_values_that_keras_tells(keras: KerasProcess, case: Any):
    history, seen = keras.run(train, case, log_freq="batch")
    run = only_run()
    for name in ("loss", "accuracy", "digit_loss"):
        batches = {step: logs[name] for step, logs in seen.items() if name in logs}
        if batches:
            ends = dict(expected(history)[f"train/{name}"])  # Where they differ, they come later.
            assert batches | ends == dict(points(run, f"train/{name}"))
    assert list(range(1, 8 * len(history["loss"]) + 1)) == sorted(set(steps(run, "train/loss")))


def test_no_point_is_recorded_twice(keras: KerasProcess):
    keras.run(train, plain, log_freq="batch")
    run = only_run()
    assert list(range(1, 33)) == steps(run, "train/loss") == steps(run, "train/accuracy")


def test_every_third_step_and_the_end_of_each_epoch(keras: KerasProcess):
    keras.run(train, plain, log_freq=3)
    assert sorted({*range(3, 33, 3), 8, 16, 24, 32}) == steps(only_run(), "train/loss")


@pytest.mark.parametrize(
    ("together", "log_freq", "wanted"),
    [
        (8, "batch", [8, 16, 24, 32]),
        (8, "epoch", [8, 16, 24, 32]),
        (3, "batch", [3, 6, 8, 11, 14, 16, 19, 22, 24, 27, 30, 32]),
        (3, 6, [6, 8, 14, 16, 19, 24, 30, 32]),
    ],
)
def test_steps_that_are_executed_together_count_as_many(
    keras: KerasProcess, together: int, log_freq: Any, wanted: list[int]
):
    if keras.backend == "torch":  # It executes one step at a time, and says so.
        with pytest.raises(ValueError, match="must be 1 with the PyTorch backend"):
            keras.run(train, plain, {"steps_per_execution": together})
        return
    history, seen = keras.run(train, plain, {"steps_per_execution": together}, log_freq=log_freq)
    run = only_run()
    assert wanted == steps(run, "train/loss")
    assert [seen[step]["loss"] for step in wanted] == [value for _, value in points(run, "train/loss")]
    ends = expected(history)
    assert ends == at_ends(run, ends)


def fit_with_validation_freq(validation_freq: int) -> History:
    from tracelet_keras import TraceletCallback

    model, data = plain()
    callback = TraceletCallback()
    history = model.fit(**data, validation_freq=validation_freq, callbacks=[callback], verbose=0)
    return dict(history.history)


def test_validation_stands_at_the_step_of_its_epoch(keras: KerasProcess):
    history = keras.run(fit_with_validation_freq, 2)
    wanted = expected(history, validation_freq=2)
    assert [16, 32] == [step for step, _ in wanted["val/loss"]]
    assert wanted == {name: points(only_run(), name) for name in wanted}


def add_to_the_logs() -> None:
    import keras

    from tracelet_keras import TraceletCallback

    class Adds(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            logs["val_f1"], logs["mine"] = epoch / 2, epoch / 4

    model, data = plain()
    model.fit(**data, callbacks=[Adds(), TraceletCallback()], verbose=0)


def test_what_another_callback_adds_to_the_logs_is_recorded(keras: KerasProcess):
    keras.run(add_to_the_logs)
    run = only_run()
    assert [0.0, 0.5, 1.0, 1.5] == [value for _, value in points(run, "val/f1")]
    assert [0.0, 0.25, 0.5, 0.75] == [value for _, value in points(run, "train/mine")]
    assert 4 == len(run.series("val/loss"))


def fit_with_a_metric_of_each_class() -> History:
    import keras

    from tests.adapters.keras import models
    from tracelet_keras import TraceletCallback

    images, labels = models.digits()
    metrics = [keras.metrics.F1Score(average=None, name="f1")]
    model = models.network(loss=keras.losses.CategoricalCrossentropy(from_logits=True), metrics=metrics)
    targets = keras.utils.to_categorical(labels, 10)
    callback = TraceletCallback(log_freq="batch")
    history = model.fit(images, targets, batch_size=16, epochs=2, callbacks=[callback], verbose=0).history
    return {"loss": history["loss"], "f1": [value.tolist() for value in history["f1"]]}


def test_a_metric_that_is_a_vector_is_recorded_as_a_tensor(keras: KerasProcess):
    history = keras.run(fit_with_a_metric_of_each_class)
    run = only_run()
    wanted = expected({"loss": history["loss"]})
    assert wanted == at_ends(run, wanted)
    tensors = {record.iteration: np.load(record.value).tolist() for record in run.records(MetricType.TENSOR)}
    assert list(range(1, 17)) == sorted(tensors)
    assert history["f1"] == [tensors[8], tensors[16]]


# -- several calls, and other ones -------------------------------------------------------------------------------------


def fit_twice_and_evaluate() -> tuple[History, History, list[float]]:
    from tracelet_keras import TraceletCallback

    model, data = plain()
    callback = TraceletCallback(log_freq="batch")
    histories = [dict(model.fit(**data, callbacks=[callback], verbose=0).history) for _ in range(2)]
    scores = model.evaluate(*data["validation_data"], callbacks=[callback], verbose=0)
    model.predict(data["x"], callbacks=[callback], verbose=0)
    callback.stop()
    return histories[0], histories[1], scores


def test_a_second_fit_goes_on_counting_and_evaluate_and_predict_belong_to_the_run(keras: KerasProcess):
    first, second, scores = keras.run(fit_twice_and_evaluate)
    run = only_run()
    wanted = expected({name: first[name] + second[name] for name in first})
    assert wanted == at_ends(run, wanted)
    assert list(range(1, 65)) == steps(run, "train/loss")
    assert [(64, scores[0])] == points(run, "test/loss")
    assert [(64, scores[1])] == points(run, "test/accuracy")
    assert [64] == steps(run, "test/time_s") == steps(run, "predict/time_s")


def evaluate_a_loaded_model() -> float:
    import keras

    from tracelet_keras import TraceletCallback

    model, data = plain()
    model.fit(**data, verbose=0)
    model.save("trained.keras")
    model = keras.models.load_model("trained.keras")
    return model.evaluate(*data["validation_data"], callbacks=[TraceletCallback()], verbose=0)[0]


def test_evaluate_alone_is_a_run_at_the_step_of_the_model(keras: KerasProcess):
    loss = keras.run(evaluate_a_loaded_model)
    run = only_run()
    assert [(32, loss)] == points(run, "test/loss")
    assert ["test/accuracy", "test/loss", "test/time_s"] == sorted(run.names())


def predict_alone() -> None:
    from tracelet_keras import TraceletCallback

    model, data = plain()
    model.predict(data["x"], callbacks=[TraceletCallback(config={"why": "baseline"})], verbose=0)


def test_predict_alone_is_a_run(keras: KerasProcess):
    keras.run(predict_alone)
    run = only_run()
    assert (["predict/time_s"], "baseline") == (run.names(), run.params["why"])


def loop(with_epochs: bool) -> list[dict[str, float]]:
    import keras

    from tests.adapters.keras import models
    from tracelet_keras import TraceletCallback

    model = models.network()
    callbacks = keras.callbacks.CallbackList([TraceletCallback(log_freq="batch")], model=model)
    seen = []
    callbacks.on_train_begin()
    for epoch in range(2):
        if with_epochs:
            callbacks.on_epoch_begin(epoch)
        for index, (images, labels) in enumerate(models.endless()):
            batch = index if with_epochs else 8 * epoch + index
            callbacks.on_train_batch_begin(batch)
            seen.append(model.train_on_batch(images, labels, return_dict=True))
            callbacks.on_train_batch_end(batch, seen[-1])
        if with_epochs:
            callbacks.on_epoch_end(epoch, {**seen[-1], "val_loss": 0.5})
    callbacks.on_train_end()
    return seen


@pytest.mark.parametrize("with_epochs", [True, False])
def test_a_loop_of_ones_own_is_recorded_through_a_callback_list(keras: KerasProcess, with_epochs: bool):
    seen = keras.run(loop, with_epochs)
    run = only_run()
    assert [(step, logs["loss"]) for step, logs in enumerate(seen, 1)] == points(run, "train/loss")
    assert "train/samples_per_s" not in run.names()  # Nobody has told how many there were.
    if with_epochs:
        assert [(8, 0.5), (16, 0.5)] == points(run, "val/loss")
    else:
        assert [16] == steps(run, "train/time_s")


def train_two_models_with_one_callback() -> None:
    from tests.adapters.keras import models
    from tracelet_keras import TraceletCallback

    callback = TraceletCallback()
    for seed in range(2):
        images, labels = models.digits()
        models.network(seed=seed).fit(images, labels, batch_size=16, callbacks=[callback], verbose=0)


def test_a_second_model_goes_on_where_the_first_one_ended(keras: KerasProcess):
    keras.run(train_two_models_with_one_callback)
    assert [8, 16] == steps(only_run(), "train/loss")


def weights_after(with_callback: bool) -> list[Any]:
    from tracelet_keras import TraceletCallback

    model, data = plain()
    model.fit(**data, callbacks=[TraceletCallback(log_freq="batch")] if with_callback else [], verbose=0)
    return [weight.tolist() for weight in model.get_weights()]


def test_recording_does_not_change_the_training(keras: KerasProcess):
    assert keras.run(weights_after, True) == keras.run(weights_after, False)
