"""A training goes on, and its record says the truth, whatever happens around it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tracelet
from tests.adapters.keras.reading import nothing_recorded, only_run, points, steps
from tests.adapters.keras.workers import BACKENDS, KerasProcess
from tests.forking import ForkingProcess
from tracelet import RunStatus
from tracelet.errors import PluginNotFoundError, RunNotFoundError, UsageError


def fit(callbacks: Any, epochs: int = 2, **options: Any) -> None:
    from tests.adapters.keras import models

    images, labels = models.digits()
    model = models.network(**options)
    model.fit(
        images,
        labels,
        batch_size=16,
        epochs=epochs,
        validation_data=models.validation(),
        callbacks=callbacks,
        verbose=0,
    )


# -- mistakes of the user ----------------------------------------------------------------------------------------------


def make(**options: Any) -> None:
    import tracelet_keras

    if options.pop("with_experiment", False):
        options["experiment"] = tracelet.Experiment("mine")
    tracelet_keras.TraceletCallback(**options)


@pytest.mark.parametrize("log_freq", [0, -1, "step", 1.5, True, None])
def test_a_wrong_frequency_raises_at_construction(keras: KerasProcess, log_freq: Any):
    with pytest.raises(UsageError, match="'epoch', 'batch' or a number of batches"):
        keras.run(make, log_freq=log_freq)
    assert nothing_recorded()


def test_an_experiment_excludes_the_description_of_another_one(keras: KerasProcess):
    with pytest.raises(UsageError, match=r"give the rest to Experiment\(\)"):
        keras.run(make, with_experiment=True, project="p")


def test_a_name_that_keras_does_not_have_is_an_attribute_error():
    import tracelet_keras

    with pytest.raises(AttributeError, match="has no attribute 'TraceletCallbak'"):
        _ = tracelet_keras.TraceletCallbak


def fit_with(**options: Any) -> None:
    from tracelet_keras import TraceletCallback

    fit([TraceletCallback(**options)])


def test_a_backend_that_is_not_installed_raises_before_the_training(keras: KerasProcess):
    with pytest.raises(PluginNotFoundError, match="'mlfow'"):
        keras.run(fit_with, backend="mlfow")
    assert nothing_recorded()


def test_a_run_that_has_to_be_there_raises_before_the_training(keras: KerasProcess):
    with pytest.raises(RunNotFoundError):
        keras.run(fit_with, run_id="new", resume=True)


# -- faults ------------------------------------------------------------------------------------------------------------


def fit_with_a_fault(hook: str) -> tuple[int, list[str]]:
    """Breaks what the hook calls; returns how far the training came, and what was logged."""
    import logging

    from tests.adapters.keras import models
    from tracelet.utils import guarding
    from tracelet_keras import TraceletCallback

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    messages: list[str] = []
    handler = Keep()
    guarding.logger.addHandler(handler)
    guarding.logger.propagate = False
    callback, seen = TraceletCallback(log_freq="batch"), models.Seen()

    def broken(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError(hook)

    setattr(callback if hook == "_record" else callback._progress, hook, broken)
    try:
        fit([callback, seen])
    finally:
        guarding.logger.removeHandler(handler)
        guarding.logger.propagate = True
    return len(seen.logs), messages


@pytest.mark.parametrize("hook", ["_record", "begin_epoch", "begin_batch", "end_batch", "end_epoch"])
def test_a_fault_of_ours_is_logged_once_for_each_hook_and_stops_no_training(keras: KerasProcess, hook: str):
    batches, messages = keras.run(fit_with_a_fault, hook)
    assert 16 == batches
    assert len(messages) == len(set(messages)) >= 1
    assert all(f"not recorded, the training goes on: ZeroDivisionError('{hook}')" in message for message in messages)


def fit_and_stop_in_the_middle() -> None:
    from tests.adapters.keras import models
    from tracelet_keras import TraceletCallback

    callback = TraceletCallback(log_freq="batch")
    fit([callback, models.At(4, callback.stop)])


def test_a_run_that_is_stopped_in_the_middle_stops_no_training(keras: KerasProcess):
    keras.run(fit_and_stop_in_the_middle)
    assert 4 >= len(only_run().series("train/loss"))


def fit_where_nothing_can_be_written() -> None:
    from tracelet_keras import TraceletCallback

    Path("file").touch()
    fit([TraceletCallback(dir="file/runs")])


def test_training_runs_where_nothing_can_be_written(keras: KerasProcess):
    keras.run(fit_where_nothing_can_be_written)
    assert "" == Path("file").read_text()


# -- how a run ends ----------------------------------------------------------------------------------------------------

PROGRAM = """
import os, signal, sys
from tests.adapters.keras import models
from tracelet_keras import TraceletCallback
import tracelet

def fail():
    raise RuntimeError("no memory")

def interrupt():
    raise KeyboardInterrupt

def kill():
    os.kill(os.getpid(), signal.SIGKILL)

images, labels = models.digits()
model = models.network()
def fit(epochs=4, callbacks=()):
    return model.fit(images, labels, batch_size=16, epochs=epochs, callbacks=[callback, *callbacks], verbose=0)
callback = TraceletCallback(run_id="run", log_freq="batch")
"""


Program = Callable[[str], tuple[int, str]]


@pytest.fixture(scope="module")
def forking() -> Iterator[Callable[[str], ForkingProcess]]:
    """A process for each backend of Keras that is asked for."""
    made: dict[str, ForkingProcess] = {}

    def process_of(backend: str) -> ForkingProcess:
        if backend not in made:
            modules = "tests.adapters.keras.models", "tracelet_keras.callback"
            made[backend] = ForkingProcess(*modules, KERAS_BACKEND=backend, TF_CPP_MIN_LOG_LEVEL="3")
        return made[backend]

    yield process_of
    for process in made.values():
        process.close()


@pytest.fixture
def program(forking: Callable[[str], ForkingProcess], request: pytest.FixtureRequest) -> Program:
    """Runs `PROGRAM` and what comes after it, with the backend of the test's `keras` or with JAX."""
    backend = request.getfixturevalue("keras").backend if "keras" in request.fixturenames else "jax"
    return lambda body: forking(backend).run(PROGRAM + body)


# After step 10. All before it is recorded; of a process that is killed, only what Keras's pool has done by then.
AT_STEP_11 = "fit(callbacks=[models.At(11, {})])"
HANDLED = """
try:
    fit(callbacks=[models.At(11, {})])
except BaseException:
    pass
"""


@pytest.mark.parametrize(
    ("body", "code", "status", "error", "last_step"),
    [
        ("fit()", 0, RunStatus.FINISHED, None, 32),
        (AT_STEP_11.format("fail"), 1, RunStatus.FAILED, "RuntimeError: no memory", 10),
        (AT_STEP_11.format("interrupt"), -signal.SIGINT, RunStatus.FAILED, "KeyboardInterrupt", 10),
        (AT_STEP_11.format("kill"), -signal.SIGKILL, RunStatus.KILLED, None, 8),  # Those of a whole epoch.
        (HANDLED.format("fail"), 0, RunStatus.FAILED, "The training did not end", 10),
        (HANDLED.format("interrupt") + "callback.stop()", 0, RunStatus.FAILED, "The training did not end", 10),
        (HANDLED.format("interrupt") + "callback.stop('finished')", 0, RunStatus.FINISHED, None, 10),
        (HANDLED.format("fail") + "fit()", 0, RunStatus.FINISHED, None, 42),
    ],
)
def test_the_status_is_true(
    program: Program, body: str, code: int, status: RunStatus, error: str | None, last_step: int
):
    ended, printed = program(body)
    run = tracelet.load_run("run")
    assert (code, status) == (ended, run.status), printed
    assert error is None or error in run.error
    found = steps(run, "train/loss")
    assert list(range(1, last_step + 1)) == (found[:last_step] if status is RunStatus.KILLED else found)


def test_an_experiment_of_the_user_is_his_to_end(program: Program):
    body = 'experiment = tracelet.Experiment("mine", run_id="mine").start()\ncallback = TraceletCallback('
    body += 'experiment=experiment, log_freq="batch")\n' + HANDLED.format("fail")
    ended, printed = program(body)
    assert 0 == ended, printed
    run = tracelet.load_run("mine")
    assert (RunStatus.FINISHED, "mine") == (run.status, run.name)
    assert list(range(1, 11)) == steps(run, "train/loss")


# -- going on ----------------------------------------------------------------------------------------------------------

BACKUP = """
import keras
backup = keras.callbacks.BackupAndRestore("backup")
"""


# The order is no matter of Keras' backend.
ORDERS = [
    *((backend, "[callback, backup, *more]") for backend in BACKENDS), (BACKENDS[0], "[backup, callback, *more]"),
]  # fmt: skip


@pytest.mark.parametrize(("keras", "order"), ORDERS, indirect=["keras"])
def test_backup_and_restore_goes_on_with_the_run_and_its_steps(keras: KerasProcess, program: Program, order: str):
    again = f"""{BACKUP}
more = [models.At(20, kill)] if {{}} else []
model.fit(images, labels, batch_size=16, epochs=4, callbacks={order}, verbose=0)
"""
    ended, printed = program(again.format("True"))
    assert -signal.SIGKILL == ended, printed
    killed = tracelet.load_run("run")
    assert (RunStatus.KILLED, [0, 1]) == (killed.status, [int(epoch) for _, epoch in points(killed, "epoch")])
    ended, printed = program(again.format("False"))
    assert 0 == ended, printed
    run = only_run()
    assert RunStatus.FINISHED is run.status
    assert [(8, 0.0), (16, 1.0), (24, 2.0), (32, 3.0)] == points(run, "epoch")
    found = steps(run, "train/loss")
    assert list(range(1, 33)) == sorted(set(found))
    assert {17, 18, 19} >= {step for step in found if found.count(step) > 1}  # Those that were done again.


def test_initial_epoch_goes_on_with_the_run_and_its_steps(keras: KerasProcess, program: Program):
    ended, printed = program('fit(2)\nmodel.save("model.keras")')
    assert 0 == ended, printed
    body = 'import keras\nmodel = keras.models.load_model("model.keras")\n'
    body += "model.fit(images, labels, batch_size=16, initial_epoch=2, epochs=4, callbacks=[callback], verbose=0)"
    ended, printed = program(body)
    assert 0 == ended, printed
    run = only_run()
    assert [(8, 0.0), (16, 1.0), (24, 2.0), (32, 3.0)] == points(run, "epoch")
    assert list(range(1, 33)) == steps(run, "train/loss")


def retry_in_the_same_process() -> None:
    import keras

    from tests.adapters.keras import models
    from tracelet_keras import TraceletCallback

    def fail() -> None:
        raise RuntimeError("no memory")

    images, labels = models.digits()
    model, callback = models.network(), TraceletCallback()
    model.build((None, 64))
    for more in ([models.At(20, fail)], []):
        backup = keras.callbacks.BackupAndRestore("backup")
        try:
            model.fit(images, labels, batch_size=16, epochs=4, callbacks=[callback, backup, *more], verbose=0)
        except RuntimeError:
            model.evaluate(images, labels, callbacks=[callback], verbose=0)
    callback.stop()


def test_a_retry_in_the_same_process_counts_from_what_was_restored(keras: KerasProcess):
    keras.run(retry_in_the_same_process)
    run = only_run()
    assert RunStatus.FINISHED is run.status
    assert [8, 16, 24, 32] == steps(run, "train/loss")
    assert 1 == len(run.series("test/loss"))  # And not `val`: the first training had ended.
