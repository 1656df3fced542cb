"""Train a small Flax (linen) network on scikit-learn's handwritten digits, and record it.

python docs/examples/flax_digits.py --learning-rate 0.003
"""

from __future__ import annotations

import argparse
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from tracelet import Experiment
from tracelet.frameworks.jax_framework import TraceletTrainState, tracked

Batch = tuple[jax.Array, jax.Array]


def digits() -> tuple[Batch, Batch]:
    """1,437 pictures of 8 by 8 pixels and their digits to train on, and 360 others to validate with."""
    images, labels = load_digits(return_X_y=True)
    parts = train_test_split(images / 16, labels, test_size=0.2, random_state=0, stratify=labels)
    train_images, val_images, train_labels, val_labels = (jnp.asarray(part) for part in parts)
    return (train_images.astype("float32"), train_labels), (val_images.astype("float32"), val_labels)


class Network(nn.Module):
    """One hidden layer."""

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Logits, of shape (n, 10)."""
        return nn.Dense(10)(nn.relu(nn.Dense(64)(images)))


def new_state(learning_rate: float) -> TraceletTrainState:
    """A state at step 0, whose steps are recorded."""
    network = Network()
    params = network.init(jax.random.key(0), jnp.zeros((1, 64)))["params"]
    tx = optax.inject_hyperparams(optax.adam)(learning_rate=learning_rate)
    return TraceletTrainState.create(apply_fn=network.apply, params=params, tx=tx)


def evaluate(state: Any, batch: Batch) -> dict[str, jax.Array]:
    """Loss and accuracy."""
    logits = state.apply_fn({"params": state.params}, batch[0])
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch[1])
    return {"loss": losses.mean(), "accuracy": (logits.argmax(-1) == batch[1]).mean()}


@tracked(donate_argnums=0)  # In place of jax.jit.
def train_step(state: Any, batch: Batch) -> Any:
    """One step: what it was like is recorded with it."""

    def loss_of(params: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        metrics = evaluate(state.replace(params=params), batch)
        return metrics["loss"], metrics

    (_, metrics), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
    return state.apply_gradients(grads=grads, **metrics)


def train(learning_rate: float, epochs: int, batch_size: int = 64) -> Experiment:
    """Train the network, and return the experiment that has recorded it."""
    (images, labels), held_out = digits()
    validate = jax.jit(evaluate)
    order, steps = np.random.default_rng(0), len(images) // batch_size
    config = {"learning_rate": learning_rate, "epochs": epochs, "batch_size": batch_size}
    with Experiment("digits", project="flax", config=config) as experiment:
        state = new_state(learning_rate)
        for _ in range(epochs):
            shuffled = order.permutation(len(images))
            for chosen in shuffled[: steps * batch_size].reshape(steps, batch_size):
                state = train_step(state, (images[chosen], labels[chosen]))
            experiment.log_metrics({"val": validate(state, held_out)}, state.step)
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
