"""Train a small Flax (NNX) network on scikit-learn's handwritten digits, and record it.

python docs/examples/nnx_digits.py --learning-rate 0.003
"""

from __future__ import annotations

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from tracelet import Experiment
from tracelet.frameworks.jax_framework import TraceletMultiMetric, TraceletOptimizer, tracked

Batch = tuple[jax.Array, jax.Array]


def digits() -> tuple[Batch, Batch]:
    """1,437 pictures of 8 by 8 pixels and their digits to train on, and 360 others to validate with."""
    images, labels = load_digits(return_X_y=True)
    parts = train_test_split(images / 16, labels, test_size=0.2, random_state=0, stratify=labels)
    train_images, val_images, train_labels, val_labels = (jnp.asarray(part) for part in parts)
    return (train_images.astype("float32"), train_labels), (val_images.astype("float32"), val_labels)


class Network(nnx.Module):
    """One hidden layer."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        """Make one with random weights."""
        self.hidden = nnx.Linear(64, 64, rngs=rngs)
        self.out = nnx.Linear(64, 10, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Logits, of shape (n, 10)."""
        return self.out(nnx.relu(self.hidden(images)))


def loss_of(network: Network, batch: Batch) -> tuple[jax.Array, jax.Array]:
    """The mean loss, and the logits."""
    logits = network(batch[0])
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]).mean(), logits


@tracked(transform=nnx.jit)  # In place of nnx.jit.
def train_step(network: Network, optimizer: TraceletOptimizer, batch: Batch) -> None:
    """One step: what it was like is recorded with it."""
    (loss, _), grads = nnx.value_and_grad(loss_of, has_aux=True)(network, batch)
    optimizer.update(network, grads, metrics={"loss": loss})


@nnx.jit
def validate(network: Network, metrics: TraceletMultiMetric, batch: Batch) -> None:
    """Gather loss and accuracy."""
    loss, logits = loss_of(network, batch)
    metrics.update(values=loss, logits=logits, labels=batch[1])


def train(learning_rate: float, epochs: int, batch_size: int = 64) -> Experiment:
    """Train the network, and return the experiment that has recorded it."""
    (images, labels), held_out = digits()
    network = Network(nnx.Rngs(0))
    tx = optax.inject_hyperparams(optax.adam)(learning_rate=learning_rate)
    optimizer = TraceletOptimizer(network, tx, wrt=nnx.Param)
    metrics = TraceletMultiMetric(loss=nnx.metrics.Average(), accuracy=nnx.metrics.Accuracy())
    order, steps = np.random.default_rng(0), len(images) // batch_size
    config = {"learning_rate": learning_rate, "epochs": epochs, "batch_size": batch_size}
    with Experiment("digits", project="nnx", config=config) as experiment:
        for _ in range(epochs):
            shuffled = order.permutation(len(images))
            for chosen in shuffled[: steps * batch_size].reshape(steps, batch_size):
                train_step(network, optimizer, (images[chosen], labels[chosen]))
            validate(network, metrics, held_out)
            metrics.log(optimizer.step[...], prefix="val")
    return experiment


def main() -> None:
    """Train with the options of the command line."""
    parser = argparse.ArgumentParser(description="Train a small network on handwritten digits.")
    parser.add_argument("--learning-rate", type=float, default=1e-2)
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args()
    experiment = train(options.learning_rate, options.epochs)
    print(f"Recorded as {experiment.run_id} in {experiment.run_dir}")


if __name__ == "__main__":
    main()
