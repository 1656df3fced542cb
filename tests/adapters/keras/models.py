"""Small real models and data for the tests: handwritten digits. For what runs in a `KerasProcess`.

Each `fit` has 8 batches of 16 an epoch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from sklearn.datasets import load_digits

BATCHES = 8
BATCH = 16


def digits(count: int = BATCHES * BATCH) -> tuple[np.ndarray, np.ndarray]:
    images, labels = load_digits(return_X_y=True)
    return (images[:count] / 16).astype("float32"), labels[:count].astype("int32")


def validation() -> tuple[np.ndarray, np.ndarray]:
    images, labels = digits(300)
    return images[-100:], labels[-100:]


def network(optimizer: Any = "sgd", seed: int = 0, kind: Any = keras.Model, **compiling: Any) -> keras.Model:
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((64,))
    hidden = keras.layers.Dense(8, activation="relu", name="hidden")(inputs)
    model = kind(inputs, keras.layers.Dense(10, name="scores")(hidden))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=optimizer, **{"loss": loss, "metrics": ["accuracy"], **compiling})
    return model


def two_headed() -> keras.Model:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((64,))
    hidden = keras.layers.Dense(8, activation="relu")(inputs)
    digit = keras.layers.Dense(10, activation="softmax", name="digit")(hidden)
    parity = keras.layers.Dense(1, activation="sigmoid", name="parity")(hidden)
    model = keras.Model(inputs, {"digit": digit, "parity": parity})
    model.compile(
        "sgd",
        loss={"digit": "sparse_categorical_crossentropy", "parity": "binary_crossentropy"},
        metrics={"digit": ["accuracy"], "parity": ["accuracy"]},
    )
    return model


class Stepping(keras.Model):
    """A training step of its own, whose metrics are not those that `compile()` has made."""

    def train_step(self, *args: Any) -> Any:
        outcome = super().train_step(*args)
        if keras.backend.backend() != "jax":
            return {"loss": outcome["loss"], "doubled": outcome["loss"] * 2}
        logs, state = outcome
        return {"loss": logs["loss"], "doubled": logs["loss"] * 2}, state


def stepping_network() -> keras.Model:
    return network(kind=Stepping)


def endless() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches whose number nobody knows beforehand."""
    images, labels = digits()
    for start in range(0, len(images), BATCH):
        yield images[start : start + BATCH], labels[start : start + BATCH]


class Batches(keras.utils.PyDataset):
    """The same, loaded by threads."""

    def __init__(self) -> None:
        super().__init__(workers=2)
        self.images, self.labels = digits()

    def __len__(self) -> int:
        return BATCHES

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        part = slice(index * BATCH, (index + 1) * BATCH)
        return self.images[part], self.labels[part]


class Seen(keras.callbacks.Callback):
    """What Keras tells any callback of each batch, by its number in the whole training from 1."""

    async_safe = True  # So that it changes nothing for the others.

    def __init__(self) -> None:
        super().__init__()
        self.logs: dict[int, dict[str, float]] = {}
        self.epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.logs[self.epoch * BATCHES + min(batch + 1, BATCHES)] = dict(logs)


class At(keras.callbacks.Callback):
    """Calls a function as a batch begins."""

    def __init__(self, step: int, action: Any) -> None:
        super().__init__()
        self.step, self.action, self.count = step, action, 0

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.count += 1
        if self.count == self.step:
            self.action()
