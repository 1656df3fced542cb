"""`tracked`, `capture`, `monitor` and the parts of NNX."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from tests.adapters.jax.training import STEPS, assert_same, batches, by_hand, loss_of, params, plain, recorded
from tracelet import Experiment
from tracelet.errors import UsageError
from tracelet.frameworks.jax_framework import TraceletMultiMetric, TraceletOptimizer, capture, monitor, tracked

# -- tracked and capture -----------------------------------------------------------------------------------------------


def count(state: Any, batch: Any) -> Any:
    return state + 1, {"loss": jnp.sum(batch) + state, "state": state, "more": {"text": "x", "mean": jnp.mean(batch)}}


def test_any_step_function_gives_what_it_gives_and_its_numbers_are_recorded(experiment):
    plain_step, step = jax.jit(lambda state, batch: count(state, batch)[1]["loss"]), tracked(_without_text, prefix="")
    state, expected = jnp.int32(5), []
    for batch in batches():
        expected.append(float(plain_step(state, batch)))
        state, metrics = step(state, batch)
        assert {"loss", "state", "more", "batch"} == metrics.keys()
    found = recorded(experiment)
    assert [(number, value) for number, value in enumerate(expected, 1)] == found["loss"]
    assert [(number, number + 4.0) for number in range(1, STEPS + 1)] == found["state"]
    assert {"loss", "state", "more/mean"} == found.keys()


def _without_text(state: Any, batch: Any) -> Any:
    state, metrics = count(state, batch)
    return state, {**metrics, "more": {"mean": metrics["more"]["mean"]}, "batch": batch}


def test_the_first_step_and_the_prefix_are_as_given(experiment):
    step = tracked(lambda batch: {"sum": jnp.sum(batch)}, prefix="eval", first_step=100)
    for batch in batches(2):
        step(batch)
    assert [100, 101] == [number for number, _ in recorded(experiment)["eval/sum"]]


def test_what_a_tracked_function_records_for_its_own_experiment_goes_nowhere_else(experiment):
    with Experiment("other", collectors=()) as other:
        tracked(lambda: {"a": jnp.float32(1)}, experiment=experiment)()
        assert {} == recorded(other)
    assert [(1, 1.0)] == recorded(experiment)["train/a"]


def test_what_is_captured_is_recorded_wherever_it_is_computed(experiment):
    def inner(total: Any, value: Any) -> Any:
        capture({"inner": value}, step=value.astype(jnp.int32), prefix="scan")
        return total + value, None

    @tracked
    def step(values: Any) -> Any:
        capture({"first": values[0], "deep": {"last": values[-1]}})
        jax.vmap(lambda value: capture({"member": value}, step=value.astype(jnp.int32)))(values)
        return jax.lax.scan(inner, 0.0, values)[0]

    step(jnp.arange(4.0))
    capture({"plain": 7}, step=3)
    jax.jit(lambda value: capture({"jit": value}, step=4))(8.0)
    found = recorded(experiment)
    numbers = [(number, float(number)) for number in range(4)]
    assert [(1, 0.0)] == found["train/first"]
    assert [(1, 3.0)] == found["train/deep/last"]
    assert numbers == sorted(found["scan/inner"]) == sorted(found["train/member"])
    assert [(3, 7.0)] == found["train/plain"]
    assert [(4, 8.0)] == found["train/jit"]


def test_a_value_that_is_no_number_is_refused_where_it_is_captured():
    with pytest.raises(UsageError, match=r"'train/a' is float32\[2\]"):
        capture({"a": jnp.ones(2)})


# -- monitor -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compiler", [lambda f: f, jax.jit, tracked], ids=["python", "jit", "tracked"])
def test_monitor_records_what_passes_through_a_chain(experiment, compiler):
    tx = optax.chain(monitor(given=["loss"]), optax.adam(0.1), monitor("update_norm", param_norm=True))

    @compiler
    def step(params: Any, opt_state: Any, batch: Any) -> Any:
        loss, grads = jax.value_and_grad(loss_of)(params, batch)
        updates, opt_state = tx.update(grads, opt_state, params, loss=loss)
        return optax.apply_updates(params, updates), opt_state

    weights, opt_state = params(), tx.init(params())
    for batch in batches():
        weights, opt_state = step(weights, opt_state, batch)
    state = plain(optax.adam(0.1))
    expected = by_hand(state, batches(), lambda new: 0.0)
    del expected["train/learning_rate"]
    before = [float(optax.tree.norm(params())), *(value for _, value in expected["train/param_norm"][:-1])]
    expected["train/param_norm"] = list(enumerate(before, 1))
    assert_same(recorded(experiment), expected)


# -- NNX ---------------------------------------------------------------------------------------------------------------


class Network(nnx.Module):
    def __init__(self) -> None:
        self.w, self.b = nnx.Param(params()["w"]), nnx.Param(params()["b"])


def nnx_loss(model: Network, batch: Any) -> Any:
    return loss_of({"w": model.w[...], "b": model.b[...]}, batch)


def nnx_step(model: Network, optimizer: TraceletOptimizer, batch: Any) -> Any:
    loss, grads = nnx.value_and_grad(nnx_loss)(model, batch)
    optimizer.update(model, grads, metrics={"loss": loss})


@pytest.mark.parametrize(
    "compiler",
    [lambda step: step, nnx.jit, lambda step: tracked(step, transform=nnx.jit)],
    ids=["python", "jit", "tracked"],
)
def test_an_optimizer_of_nnx_records_its_steps(experiment, compiler):
    rate = optax.linear_schedule(0.1, 0.01, 10)
    tx = optax.inject_hyperparams(optax.adam)(learning_rate=rate)
    model, bare = Network(), Network()
    optimizer, theirs = TraceletOptimizer(model, tx, wrt=nnx.Param), nnx.Optimizer(bare, tx, wrt=nnx.Param)
    step = compiler(nnx_step)
    for batch in batches():
        step(model, optimizer, batch)
        theirs.update(bare, nnx.grad(nnx_loss)(bare, batch))
    np.testing.assert_allclose(model.w[...], bare.w[...], rtol=1e-5)
    assert jax.tree.structure(nnx.state(optimizer)) == jax.tree.structure(nnx.state(theirs))
    assert_same(recorded(experiment), by_hand(plain(), batches()))


def test_the_learning_rate_of_an_nnx_optimizer_can_be_given(experiment):
    model = Network()
    optimizer = TraceletOptimizer(
        model, optax.sgd(0.5), wrt=nnx.Param, learning_rate=lambda done: 0.5 - 0.125 * done, measure=["learning_rate"]
    )
    for batch in batches(2):
        nnx_step(model, optimizer, batch)
    assert [(1, 0.5), (2, 0.375)] == recorded(experiment)["train/learning_rate"]


def test_metrics_of_nnx_record_themselves_and_begin_anew(experiment):
    metrics = TraceletMultiMetric(loss=nnx.metrics.Average("loss"), accuracy=nnx.metrics.Accuracy())
    update = nnx.jit(lambda metrics, loss: metrics.update(loss=loss, logits=jnp.eye(2), labels=jnp.asarray([0, 0])))
    for number, losses in enumerate(([1.0, 3.0], [5.0]), 1):
        for loss in losses:
            update(metrics, jnp.float32(loss))
        given = metrics.log(number * 10, prefix="eval")
    assert 5.0 == float(given["loss"])
    found = recorded(experiment)
    assert [(10, 2.0), (20, 5.0)] == found["eval/loss"]
    assert [(10, 0.5), (20, 0.5)] == found["eval/accuracy"]


def test_metrics_of_nnx_ask_for_an_experiment():
    with pytest.raises(UsageError, match="no experiment is running"):
        TraceletMultiMetric(loss=nnx.metrics.Average("loss")).log()
