"""A training goes on with the run of its checkpoint, and marks what it does again.

Three interruptions of one training by `BackupAndRestore` are in `tests/adapters/resume`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import tracelet
from tests.adapters.keras.reading import all_runs, only_run
from tests.adapters.keras.workers import KerasProcess
from tracelet import RunStatus
from tracelet.core.records import REWIND_NAME, SEGMENT_NAME


def train(checkpoint: str | None, *, more: Any = (), model: Any = None, first: int = 0, **options: Any) -> str:
    """Train for an epoch of 8 steps; returns the run's id."""
    from tests.adapters.keras import models
    from tracelet_keras import TraceletCallback

    images, labels = models.digits()
    callback = TraceletCallback(checkpoint=checkpoint, log_freq="batch", **options)
    model = model or models.network()
    model.fit(
        images, labels, batch_size=16, initial_epoch=first, epochs=first + 1, callbacks=[callback, *more], verbose=0
    )
    callback.stop()
    return callback.experiment.run_id


def by_file(path: str = "model.keras", **options: Any) -> list[str]:
    """A training, one of its checkpoint, and one of a new model beside the same file."""
    import keras

    from tracelet_keras import TraceletModelCheckpoint

    first = train(None, more=[TraceletModelCheckpoint(path, monitor="loss")])
    again = train(path, model=keras.models.load_model(path), first=1, **options)
    return [first, again, train(path)]


def by_orbax() -> list[str]:
    import keras

    from tracelet_keras import TraceletOrbaxCheckpoint

    first = train(None, more=[TraceletOrbaxCheckpoint("saved", monitor="loss")])
    return [first, train("saved", model=keras.models.load_model(os.path.abspath("saved")), first=1), train("saved")]


@pytest.mark.parametrize("body", [by_file, by_orbax])
def test_a_model_that_was_loaded_goes_on_with_its_run_and_a_new_one_begins_another(keras: KerasProcess, body: Any):
    first, again, new = keras.run(body)
    assert first == again != new
    run = tracelet.load_run(first)
    assert ([None, 8], list(range(1, 17))) == (
        [attempt.rewound_to for attempt in run.attempts],
        sorted(run.live("train/loss").steps.tolist()),
    )
    assert 1 == len(tracelet.load_run(new).attempts)


def test_a_run_id_of_the_users_wins_over_the_checkpoint(keras: KerasProcess):
    assert "mine" == keras.run(by_file, run_id="mine")[1]


def damaged() -> list[str]:
    import keras

    from tracelet_keras import TraceletModelCheckpoint

    first = train(None, more=[TraceletModelCheckpoint("model.keras", monitor="loss")])
    for text in ("{", "[]", '{"run_id": "r"}'):
        Path("model.keras.tracelet.json").write_text(text)
        assert first != train("model.keras", model=keras.models.load_model("model.keras"), first=1)
    return [first]


def test_a_file_that_names_no_run_is_no_obstacle(keras: KerasProcess):
    keras.run(damaged)
    assert 4 == len(all_runs())
    assert {RunStatus.FINISHED} == {run.status for run in all_runs()}


def broken_off(prefix: str = "") -> None:
    """A training that fails in step 13, and goes on from the backup of step 8 in the same process."""
    import keras

    from tests.adapters.keras import models
    from tracelet_keras import TraceletCallback

    def fail() -> None:
        raise RuntimeError("no memory")

    images, labels = models.digits()
    model, callback = models.network(), TraceletCallback(log_freq="batch", prefix=prefix)
    for more in ([models.At(13, fail)], []):
        backup = keras.callbacks.BackupAndRestore("backup")
        try:
            model.fit(images, labels, batch_size=16, epochs=2, callbacks=[callback, backup, *more], verbose=0)
        except RuntimeError:
            continue
    callback.stop()


def test_a_retry_in_the_same_process_supersedes_what_it_does_again(keras: KerasProcess):
    keras.run(broken_off)
    run = only_run()
    assert [8.0] == run.series(REWIND_NAME).values.tolist()
    assert list(range(1, 17)) == sorted(run.live("train/loss").steps.tolist())
    assert len(run.series("train/loss")) > 16


def test_several_trainings_that_share_a_run_by_prefixes_supersede_nothing(keras: KerasProcess):
    keras.run(broken_off, prefix="small")
    assert REWIND_NAME not in only_run().names()


def begun_anew(status: str) -> None:
    train(None, run_id="run")
    with tracelet.Experiment("keras", run_id="run") as experiment:
        experiment.log_metric("train/loss", 0.0, 9)
        experiment.stop(status)
    train(None, run_id="run")


@pytest.mark.parametrize(("status", "held"), [("failed", 8), ("finished", 17)])
def test_a_training_that_begins_anew_supersedes_one_that_was_broken_off(keras: KerasProcess, status: str, held: int):
    keras.run(begun_anew, status)
    run = only_run()
    assert held == len(run.live("train/loss"))
    assert (status == "finished") is (SEGMENT_NAME in run.names())
