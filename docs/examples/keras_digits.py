"""Train a small Keras network on scikit-learn's handwritten digits, and record it: one line of it is Tracelet's.

KERAS_BACKEND=jax python docs/examples/keras_digits.py --learning-rate 0.003
"""

from __future__ import annotations

import argparse

import keras
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from tracelet_keras import TraceletCallback

Arrays = tuple[np.ndarray, np.ndarray]


def digits() -> tuple[Arrays, Arrays]:
    """1,437 pictures of 8 by 8 pixels and their digits to train on, and 360 others to validate with."""
    images, labels = load_digits(return_X_y=True)
    parts = train_test_split(images / 16, labels, test_size=0.2, random_state=0, stratify=labels)
    train_images, val_images, train_labels, val_labels = parts
    return (train_images.astype("float32"), train_labels), (val_images.astype("float32"), val_labels)


def network(hidden: int = 64, learning_rate: float = 1e-3) -> keras.Model:
    """A compiled network of one hidden layer."""
    model = keras.Sequential(
        [keras.Input((64,)), keras.layers.Dense(hidden, activation="relu"), keras.layers.Dense(10)]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(learning_rate), loss, metrics=["accuracy"])
    return model


def train(learning_rate: float, epochs: int) -> TraceletCallback:
    """Train the network, and return the callback that has recorded it."""
    keras.utils.set_random_seed(0)
    (images, labels), held_out = digits()
    callback = TraceletCallback("digits", project="keras")
    model = network(learning_rate=learning_rate)
    model.fit(images, labels, epochs=epochs, validation_data=held_out, callbacks=[callback], verbose=0)
    callback.stop()
    return callback


def main() -> None:
    """Train with the options of the command line."""
    parser = argparse.ArgumentParser(description="Train a small network on handwritten digits.")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--epochs", type=int, default=8)
    options = parser.parse_args()
    experiment = train(options.learning_rate, options.epochs).experiment
    print(f"Recorded as {experiment.run_id} in {experiment.run_dir}")


if __name__ == "__main__":
    main()
