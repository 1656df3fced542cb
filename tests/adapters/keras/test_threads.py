"""On which threads values become numbers, and that the order in which they come changes nothing."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any

import pytest

from tests.adapters.keras.reading import only_run, points, steps
from tests.adapters.keras.workers import KerasProcess


class Watched:
    """A value that notes which thread makes a number of it."""

    def __init__(self, value: Any, threads: set[str], delay: Any = None) -> None:
        self.value, self.threads, self.delay = value, threads, delay

    def __float__(self) -> float:
        self.threads.add(threading.current_thread().name)
        if self.delay is not None:
            self.delay()
        return float(self.value)

    __array__ = item = None


def watch(model: Any, threads: set[str], delay: Any = None) -> None:
    """Let the model's training give values that are watched; `delay` is called before one becomes a number."""
    model.make_train_function()
    function = model.train_function

    def watched(*args: Any) -> Any:
        outcome = function(*args)
        logs, *rest = outcome if isinstance(outcome, tuple) else (outcome,)
        marked = {name: Watched(value, threads, delay) for name, value in logs.items()}
        return (marked, *rest) if rest else marked

    model.train_function = watched


def fit_watched(more: str = "") -> set[str]:
    """Returns the threads on which the values of the batches became numbers."""
    import keras

    from tests.adapters.keras import models
    from tracelet_keras import TraceletCallback, TraceletModelCheckpoint

    threads: set[str] = set()
    model = models.network()
    images, labels = models.digits()
    watch(model, threads)
    others = {
        "": [],
        "checkpoint": [TraceletModelCheckpoint("model.keras", "loss")],
        "synchronous": [keras.callbacks.ModelCheckpoint("model.keras", "loss")],
    }[more]
    model.fit(
        images, labels, batch_size=16, epochs=2, callbacks=[TraceletCallback(log_freq="batch"), *others], verbose=0
    )
    return threads


@pytest.mark.parametrize("more", ["", "checkpoint"])
def test_no_value_becomes_a_number_on_the_thread_that_trains(keras: KerasProcess, more: str):
    threads = keras.run(fit_watched, more)
    assert list(range(1, 17)) == steps(only_run(), "train/loss")
    if keras.backend == "tensorflow":  # Which Keras does not call safe for threads.
        assert {"MainThread"} == threads
    else:
        assert threads
        assert "MainThread" not in threads


def test_a_callback_that_is_not_safe_for_threads_takes_all_others_with_it(keras: KerasProcess):
    assert {"MainThread"} == keras.run(fit_watched, "synchronous")
    assert list(range(1, 17)) == steps(only_run(), "train/loss")


def interrupt_while_the_pool_is_late(then: str) -> None:
    from tests.adapters.keras import models
    from tracelet_keras import TraceletCallback

    raised = threading.Event()

    def interrupt() -> None:
        raised.set()
        raise KeyboardInterrupt

    model, callback = models.network(), TraceletCallback(log_freq="batch")
    images, labels = models.digits()
    watch(model, set(), raised.wait)
    with pytest.raises(KeyboardInterrupt):
        model.fit(images, labels, batch_size=16, callbacks=[callback, models.At(7, interrupt)], verbose=0)
    if then == "fit":
        model.fit(images, labels, batch_size=16, callbacks=[callback], verbose=0)
    callback.stop()


@pytest.mark.parametrize(("then", "last_step"), [("stop", 6), ("fit", 14)])
def test_what_comes_late_after_ctrl_c_has_its_step(keras: KerasProcess, then: str, last_step: int):
    if keras.backend == "tensorflow":
        return  # It has no pool, and the values would wait for ever.
    keras.run(interrupt_while_the_pool_is_late, then)
    assert list(range(1, last_step + 1)) == steps(only_run(), "train/loss")


def validate_while_the_pool_is_late() -> None:
    import keras

    from tests.adapters.keras import models
    from tracelet_keras import TraceletCallback

    has_validated = threading.Event()

    class KeepsValidationsOffThePool(keras.callbacks.Callback):
        def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
            pass

        def on_test_end(self, logs: Any = None) -> None:
            has_validated.set()

    model = models.network()
    watch(model, set(), has_validated.wait)
    callbacks = [TraceletCallback(log_freq="batch"), KeepsValidationsOffThePool()]
    model.fit(*models.digits(), batch_size=16, validation_data=models.validation(), callbacks=callbacks, verbose=0)


def test_a_validation_that_ends_before_the_pool_has_its_step(keras: KerasProcess):
    if keras.backend == "tensorflow":
        return
    keras.run(validate_while_the_pool_is_late)
    run = only_run()
    assert ([8], [8]) == (steps(run, "val/loss"), steps(run, "val/time_s"))
    assert list(range(1, 9)) == steps(run, "train/loss")


def call_out_of_order() -> None:
    import keras

    from tests.adapters.keras import models
    from tracelet_keras import TraceletCallback

    callback = TraceletCallback(log_freq="batch")
    callbacks = keras.callbacks.CallbackList([callback], model=models.network())
    callbacks.on_train_begin()
    for epoch in range(2):
        callbacks.on_epoch_begin(epoch)
        for batch in range(6):
            callbacks.on_train_batch_begin(batch)
        for batch in (0, 2, 1, 5, 3, 4):
            callback.on_train_batch_end(batch, {"loss": float(10 * epoch + batch)})
        callbacks.on_epoch_end(epoch, {"loss": float(10 * epoch + 5)})
    callbacks.on_train_end()


def test_batches_that_come_out_of_order_have_their_own_steps(keras: KerasProcess):
    keras.run(call_out_of_order)
    values = [0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15]
    assert list(enumerate(map(float, values), 1)) == points(only_run(), "train/loss")


def model_is_touched_in_batch_hooks() -> list[str]:
    import keras

    from tests.adapters.keras import models
    from tracelet_keras import TraceletCallback

    seen: list[str] = []
    present: list[str] = []

    def watched(self: Any) -> Any:
        if present and isinstance(self, TraceletCallback):
            seen.append(present[-1])
        return original.fget(self)

    original = keras.callbacks.Callback.model
    keras.callbacks.Callback.model = property(watched)

    class Marks(keras.callbacks.Callback):
        async_safe = True

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            present.append("batch")

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            present.clear()

    try:
        images, labels = models.digits()
        callbacks = [Marks(), TraceletCallback(log_freq="batch")]
        models.network().fit(images, labels, batch_size=16, epochs=2, callbacks=callbacks, verbose=0)
    finally:
        keras.callbacks.Callback.model = original
    return seen


def test_no_batch_hook_touches_the_model_that_jax_would_have_to_bring_up_to_date(keras: KerasProcess):
    assert [] == keras.run(model_is_touched_in_batch_hooks)


IMPORT = """
import sys
from tracelet_keras import TraceletCallback, TraceletModelCheckpoint, TraceletOrbaxCheckpoint, TraceletPredictions
TraceletCallback()
print(*sys.modules)
"""


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_tensorflow_is_not_imported(backend: str):
    from tests.docs.test_pages import ROOT

    environment = {"KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT), "HOME": "."}
    command = [sys.executable, "-c", IMPORT]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    loaded = set(done.stdout.split())
    assert {"keras", "tracelet_keras.orbax"} <= loaded
    assert "tensorflow" not in loaded


def test_importing_the_package_alone_imports_no_framework():
    from tests.docs.test_pages import ROOT

    code = "import sys, tracelet_keras; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert not {"keras", "jax", "torch", "tensorflow"} & set(done.stdout.split())
