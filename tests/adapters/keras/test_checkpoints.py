"""Checkpoints that are kept with the run, read back by loading them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

import tracelet
from tests.adapters.keras.reading import only_run
from tests.adapters.keras.workers import KerasProcess
from tracelet import MetricType


def fit(checkpoint: Any, epochs: int = 3, before: Any = (), optimizer: Any = "adam", **fitting: Any) -> Any:
    """Returns the validation's loss after each epoch, and what Keras then computes with each kept checkpoint."""
    import keras

    from tests.adapters.keras import models
    from tracelet_keras import TraceletCallback

    images, labels = models.digits()
    model = models.network(optimizer)
    callback = TraceletCallback(log_freq="batch")
    history = model.fit(
        images,
        labels,
        batch_size=16,
        epochs=epochs,
        validation_data=models.validation(),
        callbacks=[*before, callback, checkpoint],
        verbose=0,
        **fitting,
    )
    callback.stop()
    kept = []
    for record in artifacts(tracelet.load_run("latest")):
        if record.value.endswith(".keras"):
            kept.append(keras.models.load_model(record.value).evaluate(*models.validation(), verbose=0)[0])
        elif record.value.endswith(".weights.h5"):
            model.load_weights(record.value)
            kept.append(model.evaluate(*models.validation(), verbose=0)[0])
    return history.history["val_loss"], kept


def artifacts(run: tracelet.Run) -> list[Any]:
    return run.records(MetricType.ARTIFACT)


def save(path: str, epochs: int = 3, optimizer: Any = "adam", **options: Any) -> Any:
    from tracelet_keras import TraceletModelCheckpoint

    return fit(TraceletModelCheckpoint(path, **options), epochs, optimizer=optimizer)


@pytest.mark.parametrize("path", ["model.keras", "saved/{epoch:02d}.keras"])
def test_each_checkpoint_is_kept_as_it_was(keras: KerasProcess, path: str):
    losses, kept = keras.run(save, path)
    assert 3 == len(set(losses))
    assert losses == pytest.approx(kept, rel=1e-5)  # One file was written three times: yet each one is another.
    found = artifacts(only_run())
    assert [8, 16, 24] == [record.iteration for record in found]
    assert [0, 1, 2] == [record.metadata["epoch"] for record in found]
    assert losses == [record.metadata["val_loss"] for record in found]
    assert {"model"} == {record.metadata["type"] for record in found}
    assert [f"checkpoints/{Path(path.format(epoch=epoch)).name}" for epoch in (1, 2, 3)] == [r.name for r in found]
    assert Path(path.format(epoch=3)).exists()


def test_weights_alone_are_kept_too(keras: KerasProcess):
    losses, kept = keras.run(save, "model.weights.h5", save_weights_only=True)
    assert losses == pytest.approx(kept, rel=1e-5)


def save_with_losses(losses: list[float], path: str = "model.keras", **options: Any) -> None:
    """Lets the validation have these losses."""
    import keras

    from tracelet_keras import TraceletModelCheckpoint

    class Sets(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            logs["val_loss"] = losses[epoch]

    fit(TraceletModelCheckpoint(path, **options), len(losses), [Sets()])


def test_the_best_one_so_far_has_the_alias(keras: KerasProcess):
    keras.run(save_with_losses, [3.0, 2.0, 2.5, 1.0, float("nan")])
    aliases = [record.metadata["aliases"] for record in artifacts(only_run())]
    assert [["latest", "best"], ["latest", "best"], ["latest"], ["latest", "best"], ["latest"]] == aliases


def test_the_best_one_may_be_the_highest(keras: KerasProcess):
    keras.run(save_with_losses, [1.0, 2.0, 1.5], mode="max")
    assert [True, True, False] == ["best" in record.metadata["aliases"] for record in artifacts(only_run())]


def test_with_save_best_only_only_the_best_ones_are_there(keras: KerasProcess):
    keras.run(save_with_losses, [3.0, 2.0, 2.5, 1.0], save_best_only=True)
    found = artifacts(only_run())
    assert [3.0, 2.0, 1.0] == [record.metadata["val_loss"] for record in found]
    assert [8, 16, 32] == [record.iteration for record in found]
    assert all(["latest", "best"] == record.metadata["aliases"] for record in found)


def test_checkpoints_between_epochs_have_their_step(keras: KerasProcess):
    keras.run(save, "model.keras", save_freq=5, monitor="loss")
    found = artifacts(only_run())
    assert [5, 10, 15, 20] == [record.iteration for record in found]
    assert ["latest", "best"] == found[0].metadata["aliases"]


def save_beside_a_link() -> bool:
    """The file of an earlier process is linked into its run; this one writes it anew."""
    with mock.patch("tracelet.journal.files.COPIED_BYTES", -1):  # This model is a small one.
        save("model.keras", 1)
    first = artifacts(tracelet.load_run("latest"))[0].value
    before = Path(first).read_bytes()
    assert os.stat(first).st_ino == os.stat("model.keras").st_ino
    save("model.keras", 2)
    return Path(first).read_bytes() == before


def test_a_checkpoint_of_an_earlier_run_is_not_written_over(keras: KerasProcess):
    assert keras.run(save_beside_a_link)


def save_without_a_run(path: str) -> list[str]:
    import logging

    from tests.adapters.keras import models
    from tracelet_keras import TraceletModelCheckpoint, recording

    messages: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    handler = Keep()
    recording.logger.addHandler(handler)
    images, labels = models.digits()
    try:
        models.network().fit(
            images,
            labels,
            batch_size=16,
            epochs=2,
            callbacks=[TraceletModelCheckpoint(path, "loss")],
            verbose=0,
        )
    finally:
        recording.logger.removeHandler(handler)
    return messages


def test_without_a_run_the_file_is_saved_and_the_log_says_once_why_it_is_not_kept(keras: KerasProcess):
    messages = keras.run(save_without_a_run, "model.keras")
    assert Path("model.keras").exists()
    assert 1 == len(messages)
    assert "no experiment is running" in messages[0]


def save_to_what_is_a_directory() -> None:
    from tracelet_keras import TraceletModelCheckpoint

    Path("model.keras").mkdir()
    fit(TraceletModelCheckpoint("model.keras"))


def test_an_error_of_keras_stays_one(keras: KerasProcess):
    with pytest.raises(OSError, match="non-directory"):
        keras.run(save_to_what_is_a_directory)
    assert [] == artifacts(only_run())


def copies_hold_the_copy_of_their_callback() -> bool:
    import copy

    from tracelet_keras import TraceletCallback, TraceletModelCheckpoint

    callback = TraceletCallback()
    twin, checkpoint = copy.deepcopy([callback, TraceletModelCheckpoint("model.keras", callback=callback)])
    return checkpoint._recorder._callback is twin and checkpoint._recorder._monitor is checkpoint


def test_a_copied_list_of_callbacks_belongs_together(keras: KerasProcess):
    assert keras.run(copies_hold_the_copy_of_their_callback)


# -- Orbax -------------------------------------------------------------------------------------------------------------


def save_with_orbax(**options: Any) -> list[Any]:
    """Returns the weights after each epoch and those of each kept checkpoint."""
    import keras
    import orbax.checkpoint.experimental.v1 as ocp

    from tracelet_keras import TraceletOrbaxCheckpoint

    after = []

    class Weights(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            after.append(keras.ops.convert_to_numpy(self.model.get_layer("hidden").kernel).tolist())

    fit(TraceletOrbaxCheckpoint("orbax", **options), before=[Weights()])
    kept = []
    for record in artifacts(tracelet.load_run("latest")):
        tree = ocp.load_checkpointables(record.value)["pytree"]
        kept.append(tree["trainable_variables"]["hidden"]["kernel"].tolist())
    return [after, kept]


@pytest.mark.parametrize("in_background", [True, False])
def test_each_checkpoint_of_orbax_is_kept(keras: KerasProcess, in_background: bool):
    after, kept = keras.run(save_with_orbax, save_on_background=in_background)
    assert after == kept
    found = artifacts(only_run())
    assert [("checkpoints/0", 8), ("checkpoints/1", 16), ("checkpoints/2", 24)] == [
        (r.name, r.iteration) for r in found
    ]
    assert [0, 1, 2] == [record.metadata["epoch"] for record in found]
    assert ["latest", "best"] == found[0].metadata["aliases"]
    assert ["2"] == [name for name in os.listdir("orbax") if name.isdigit()]  # Orbax itself keeps one.
