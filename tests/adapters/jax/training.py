"""A small training, and the same one by hand: what is recorded has to be what this gives."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training.train_state import TrainState

import tracelet
from tracelet import Experiment

STEPS = 6
Curves = dict[str, list[tuple[int, float]]]


def batches(count: int = STEPS, size: int = 8) -> Any:
    """Of shape (count, size, 3)."""
    return jnp.asarray(np.random.default_rng(0).normal(size=(count, size, 3)), jnp.float32)


def params() -> Any:
    return {"w": jnp.asarray([[0.5, -0.25], [1.0, 0.125], [-0.75, 0.5]]), "b": jnp.zeros(2)}


def apply(params: Any, batch: Any) -> Any:
    return jnp.tanh(batch @ params["w"] + params["b"])


def loss_of(params: Any, batch: Any) -> Any:
    return jnp.mean((apply(params, batch) - batch[:, :2]) ** 2)


@functools.cache
def optimizer() -> Any:
    return optax.inject_hyperparams(optax.adam)(learning_rate=optax.linear_schedule(0.1, 0.01, 10))


def plain(tx: Any = None) -> TrainState:
    return TrainState.create(apply_fn=apply, params=params(), tx=tx or optimizer())


def step(state: Any, batch: Any) -> Any:
    """The step function of most tests."""
    loss, grads = jax.value_and_grad(loss_of)(state.params, batch)
    return state.apply_gradients(grads=grads, loss=loss)


@jax.jit
def _plain_step(state: Any, batch: Any) -> Any:
    loss, grads = jax.value_and_grad(loss_of)(state.params, batch)
    return loss, grads, state.apply_gradients(grads=grads)


def by_hand(state: Any, batches: Iterable[Any], rate: Callable[[Any], Any] | None = None) -> Curves:
    """What a training of the same steps has to record."""
    curves: Curves = {}
    for number, batch in enumerate(batches, 1):
        loss, grads, new = _plain_step(state, batch)
        values = {
            "loss": loss,
            "grad_norm": optax.tree.norm(grads),
            "update_norm": optax.tree.norm(jax.tree.map(jnp.subtract, new.params, state.params)),
            "param_norm": optax.tree.norm(new.params),
            "learning_rate": (rate or (lambda state: state.opt_state.hyperparams["learning_rate"]))(new),
        }
        for name, value in values.items():
            curves.setdefault(f"train/{name}", []).append((number, float(value)))
        state = new
    return curves


def recorded(experiment: Experiment) -> Curves:
    """What an experiment has recorded, in the order of the calls."""
    jax.effects_barrier()
    experiment.flush()
    run = tracelet.load_run(experiment.run_dir)
    curves = {}
    for name in run.names(tracelet.MetricType.SCALAR):
        series = run.series(name)
        curves[name] = list(zip(series.steps.tolist(), series.values.tolist(), strict=True))
    return curves


def assert_same(found: Curves, expected: Curves) -> None:
    """Each value once, at its step; equal but for the order in which a compiler adds."""
    assert expected.keys() == found.keys()
    for name, points in expected.items():
        assert [point for point, _ in points] == [point for point, _ in found[name]], name
        np.testing.assert_allclose(
            [value for _, value in found[name]], [value for _, value in points], rtol=2e-5, atol=1e-7, err_msg=name
        )
