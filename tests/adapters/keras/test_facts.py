"""What is recorded beside the metrics: parameters, learning rates, loss scales, gradients, times."""

from __future__ import annotations

from typing import Any

import pytest

from tests.adapters.keras.reading import all_runs, only_run, points, steps
from tests.adapters.keras.workers import KerasProcess
from tracelet.errors import UsageError


def fit(optimizer: Any = "sgd", callbacks: Any = (), epochs: int = 2, compiling: Any = None, **options: Any) -> None:
    from tests.adapters.keras import models
    from tracelet_keras import TraceletCallback

    model = models.network(optimizer, **(compiling or {}))
    images, labels = models.digits()
    callback = TraceletCallback(**options)
    model.fit(images, labels, batch_size=16, epochs=epochs, callbacks=[callback, *callbacks], verbose=0)


# -- parameters --------------------------------------------------------------------------------------------------------


def fit_with_a_frozen_layer() -> None:
    import keras

    from tests.adapters.keras import models
    from tracelet_keras import TraceletCallback

    model = models.network()
    model.get_layer("hidden").trainable = False
    model.compile(
        keras.optimizers.Adam(0.25, clipnorm=2.0), loss="sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    images, labels = models.digits()
    model.fit(images, labels, batch_size=16, epochs=3, callbacks=[TraceletCallback(config={"note": "x"})], verbose=0)


def test_the_model_and_how_it_is_trained_are_parameters(keras: KerasProcess):
    keras.run(fit_with_a_frozen_layer)
    run = only_run()
    wanted = {
        "note": "x",
        "keras/backend": keras.backend,
        "keras/dtype_policy": "float32",
        "model/parameters": 610,
        "model/trainable_parameters": 90,
        "model/frozen_parameters": 520,
        "optimizer/class": "Adam",
        "optimizer/learning_rate": 0.25,
        "optimizer/clipnorm": 2.0,
        "compile/loss": "sparse_categorical_crossentropy",
        "compile/metrics": ["accuracy"],
        "compile/steps_per_execution": 1,
        "fit/epochs": 3,
        "fit/steps_per_epoch": 8,
    }
    assert wanted == {name: run.params.get(name) for name in wanted}
    assert "hidden (Dense)" in run.texts("model/summary")[0][1]


def fit_twice(log_model: bool = True) -> None:
    from tests.adapters.keras import models
    from tracelet_keras import TraceletCallback

    model, callback = models.network(), TraceletCallback(log_model=log_model)
    images, labels = models.digits()
    for epochs in (1, 2):
        model.fit(images, labels, batch_size=16, epochs=epochs, callbacks=[callback], verbose=0)


def test_parameters_are_recorded_once_and_again_when_changed(keras: KerasProcess):
    from tracelet import MetricType

    keras.run(fit_twice)
    run = only_run()
    records = [(record.name, record.value) for record in run.records(MetricType.PARAMETER)]
    assert [1, 2] == [value for name, value in records if name == "fit/epochs"]
    assert 1 == [name for name, _ in records].count("optimizer/class")
    # TensorFlow makes the optimizer's own parameters in the first training, and the summary then has them.
    assert (2 if keras.backend == "tensorflow" else 1) == len(run.texts("model/summary"))


def test_the_description_of_the_model_can_be_left_out(keras: KerasProcess):
    keras.run(fit_twice, log_model=False)
    run = only_run()
    setting = {"keras/version", "keras/backend", "keras/dtype_policy"}
    assert setting | {"fit/epochs", "fit/steps_per_epoch"} == run.params.keys()
    assert [] == run.texts("model/summary")


def fit_what_keras_cannot_describe() -> None:
    import keras

    class Odd(keras.losses.Loss):
        def call(self, y_true: Any, y_pred: Any) -> Any:
            return keras.ops.mean(y_pred**2, axis=-1)

        def get_config(self) -> Any:
            raise RuntimeError("no configuration")

    fit(compiling={"loss": Odd()})


def test_a_model_that_cannot_be_described_is_trained_and_recorded(keras: KerasProcess):
    keras.run(fit_what_keras_cannot_describe)
    run = only_run()
    assert [8, 16] == steps(run, "train/loss")
    assert (610, "SGD") == (run.params["model/parameters"], run.params["optimizer/class"])


# -- learning rates ----------------------------------------------------------------------------------------------------


def fit_with_a_schedule(log_freq: Any, wrapped: bool) -> dict[int, float]:
    import keras

    from tracelet_keras import hooks

    hooks._RATE_INTERVAL_S = float("-inf")  # type: ignore[misc]  # To see each one, in any order.
    schedule = keras.optimizers.schedules.ExponentialDecay(0.5, 10, 0.5)
    optimizer = keras.optimizers.SGD(schedule)
    if wrapped:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=1024.0, dynamic_growth_steps=12)
    try:
        fit(optimizer, log_freq=log_freq)
    finally:
        hooks._RATE_INTERVAL_S = 1.0  # type: ignore[misc]  # As it was.
    return {step: float(keras.ops.convert_to_numpy(schedule(step))) for step in range(1, 17)}


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("log_freq", ["epoch", "batch"])
def test_the_rate_of_a_schedule_is_that_of_the_step(keras: KerasProcess, log_freq: Any, wrapped: bool):
    rates = keras.run(fit_with_a_schedule, log_freq, wrapped)
    assert 0.5 > rates[1] > rates[16]
    found = points(only_run(), "train/learning_rate")
    assert ({8, 16} if log_freq == "epoch" else set(range(1, 17))) == {step for step, _ in found}
    assert all(value == pytest.approx(rates[step], rel=1e-6) for step, value in found)


def test_the_loss_scale_is_recorded(keras: KerasProcess):
    keras.run(fit_with_a_schedule, "epoch", True)
    assert [(8, 1024.0), (16, 2048.0)] == points(only_run(), "train/loss_scale")  # It doubles after 12 steps.


def fit_with_callbacks_that_set_the_rate() -> None:
    import keras

    fit(callbacks=[keras.callbacks.LearningRateScheduler(lambda epoch: 0.5 / (epoch + 1))], epochs=3)


def test_the_rate_that_another_callback_sets_is_recorded(keras: KerasProcess):
    keras.run(fit_with_callbacks_that_set_the_rate)
    rates = [0.5, 0.25, 0.5 / 3]
    assert rates == pytest.approx([value for _, value in points(only_run(), "train/learning_rate")])


def train_an_adversarial_pair() -> None:
    import keras

    from tests.adapters.keras import models
    from tracelet_keras import TraceletCallback

    model = models.network("rmsprop")  # Which is never used.
    model.critic_optimizer = keras.optimizers.SGD(0.1)
    model.maker_optimizer = keras.optimizers.SGD(0.2)
    weights = [keras.Variable([1.0]), keras.Variable([1.0])]
    callbacks = keras.callbacks.CallbackList([TraceletCallback()], model=model)
    callbacks.on_train_begin()
    for epoch in range(2):
        callbacks.on_epoch_begin(epoch)
        for batch in range(3):
            callbacks.on_train_batch_begin(batch)
            for _ in range(2):
                model.critic_optimizer.apply([keras.ops.ones(1)], weights[:1])
            model.maker_optimizer.apply([keras.ops.ones(1)], weights[1:])
            callbacks.on_train_batch_end(batch, {"loss": 1.0})
        callbacks.on_epoch_end(epoch, {"loss": 1.0})
    callbacks.on_train_end()


def test_each_of_several_optimizers_has_its_rate(keras: KerasProcess):
    keras.run(train_an_adversarial_pair)
    run = only_run()
    rates = {name: points(run, name) for name in run.names() if "learning_rate" in name}
    assert {"train/learning_rate/critic_optimizer", "train/learning_rate/maker_optimizer"} == rates.keys()
    assert [3, 6] == [step for step, _ in rates["train/learning_rate/maker_optimizer"]] == steps(run, "train/loss")
    assert [0.2, 0.2] == pytest.approx([value for _, value in rates["train/learning_rate/maker_optimizer"]])


def fit_that_accumulates() -> None:
    import keras

    from tests.adapters.keras import models
    from tracelet_keras import TraceletCallback

    images, labels = models.digits()
    model = models.network(keras.optimizers.SGD(0.1, gradient_accumulation_steps=3))
    for _ in range(2):  # The second one knows of the first one by the optimizer alone.
        callback = TraceletCallback(run_id="run", log_freq="batch")
        model.fit(images, labels, batch_size=16, callbacks=[callback], verbose=0)
        callback.stop()


def test_with_gradient_accumulation_a_step_is_still_a_batch(keras: KerasProcess):
    keras.run(fit_that_accumulates)
    assert list(range(1, 17)) == steps(only_run(), "train/loss")


def fit_that_skips_steps() -> int:
    import keras

    from tests.adapters.keras import models
    from tracelet_keras import TraceletCallback

    images, labels = models.digits()
    images[3] = float("inf")
    model = models.network(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1)))
    callbacks = [TraceletCallback(log_freq="batch")]
    for _ in range(2):  # A second `fit` begins where the first one has ended, not where the optimizer is.
        model.fit(images, labels, batch_size=16, callbacks=callbacks, verbose=0)
    return int(model.optimizer.iterations)


def test_steps_that_a_loss_scale_skips_count_too(keras: KerasProcess):
    assert 14 == keras.run(fit_that_skips_steps)
    assert list(range(1, 17)) == steps(only_run(), "train/loss")


# -- gradients ---------------------------------------------------------------------------------------------------------


def fit_with_norms(log_freq: Any) -> dict[int, float]:
    import keras

    class Norms(keras.callbacks.Callback):
        """Synchronous: it sees the gradients before anybody touches them."""

        def __init__(self) -> None:
            super().__init__()
            self.norms: dict[int, float] = {}

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            squares = [float((weight.value.grad**2).sum()) for weight in self.model.trainable_weights]
            self.norms[len(self.norms) + 1] = sum(squares) ** 0.5

    norms = Norms()
    fit(callbacks=[norms], log_freq=log_freq, gradient_norm=True)
    fit(log_freq=log_freq, gradient_norm=True, name="in the pool", run_id="pool")
    return norms.norms


@pytest.mark.parametrize(("log_freq", "wanted"), [("batch", [*range(1, 17)]), (3, [3, 6, 9, 12, 15])])
def test_the_norm_of_the_gradients_is_recorded_on_torch(keras: KerasProcess, log_freq: Any, wanted: list[int]):
    if keras.backend != "torch":
        with pytest.raises(UsageError, match=f"needs the torch backend; {keras.backend} gives"):
            keras.run(fit, gradient_norm=True)
        return
    norms = keras.run(fit_with_norms, log_freq)
    runs = all_runs()
    assert 2 == len(runs)
    for run in runs:
        found = points(run, "train/grad_norm")
        assert wanted == [step for step, _ in found]
        assert [norms[step] for step in wanted] == pytest.approx([value for _, value in found], rel=1e-5)


# -- times -------------------------------------------------------------------------------------------------------------


def test_times_are_recorded(keras: KerasProcess):
    keras.run(fit, log_freq="batch")
    run = only_run()
    assert [8, 16] == steps(run, "train/time_s") == steps(run, "train/samples_per_s")
    assert [*range(1, 8), *range(9, 16)] == steps(run, "train/step_time_s")  # The last one of an epoch has no next one.
    for (_, time_s), (_, rate), (_, mean_s) in zip(
        points(run, "train/time_s"),
        points(run, "train/samples_per_s"),
        points(run, "train/mean_step_time_s"),
        strict=True,
    ):
        assert (128.0, 8.0) == pytest.approx((rate * time_s, time_s / mean_s))


def test_a_prefix_stands_before_metrics_alone(keras: KerasProcess):
    keras.run(fit, prefix="teacher", log_freq="batch")
    run = only_run()
    assert [] == [name for name in run.names() if not name.startswith("teacher/")]
    assert {"teacher/train/loss", "teacher/train/step_time_s", "teacher/epoch"} <= set(run.names())
    assert "keras/version" in run.params
