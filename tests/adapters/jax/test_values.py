"""Arrays of JAX as values of an experiment, in particular those that are still being computed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.dispatch import runtime_tokens

import tracelet
from tests.adapters.jax.device import Device
from tracelet import Experiment, MetricData, MetricType, Run
from tracelet.errors import UsageError


@pytest.fixture(scope="module")
def gate() -> Device:
    return Device()


@pytest.fixture
def device(gate: Device) -> Iterator[Device]:
    yield gate
    gate.let_go()


@pytest.fixture
def experiment() -> Iterator[Experiment]:
    experiment = Experiment("e", collectors=()).start()
    yield experiment
    experiment.stop()


def read(experiment: Experiment) -> Run:
    return tracelet.load_run(experiment.run_dir)


def points(experiment: Experiment, name: str) -> list[tuple[int, float]]:
    series = read(experiment).series(name)
    return list(zip(series.steps.tolist(), series.values.tolist(), strict=True))


def test_an_array_that_is_ready_is_on_the_disk_when_the_call_returns(experiment):
    experiment.log_metric("loss", (jnp.float32(0.5) + 1).block_until_ready(), 3)
    assert [(3, 1.5)] == points(experiment, "loss")


def test_the_loop_runs_ahead_of_the_device_and_each_value_is_recorded_at_its_step_and_time(experiment, device):
    step = jax.jit(lambda total: (total + 1, {"loss": total * 2, "more": {"count": total.astype(jnp.int32)}}))
    jax.block_until_ready(step(jnp.float32(0)))
    total = device.hold()
    for index in range(4):
        total, metrics = step(total)
        experiment.log_metric("total", total)
        experiment.log_metrics({**metrics, "host": float(index)}, index + 10)
    assert not total.is_ready()
    assert [] == [name for name in read(experiment).names() if name != "host" and points(experiment, name)]
    device.let_go()
    assert experiment.flush()
    assert [(index, index + 1.0) for index in range(4)] == points(experiment, "total")
    assert [(index + 10, index * 2.0) for index in range(4)] == points(experiment, "loss")
    assert [(index + 10, float(index)) for index in range(4)] == points(experiment, "more/count")
    found = read(experiment)
    lag_s = found.series("loss").times_s - found.series("host").times_s  # Both are of the call.
    assert np.all(np.abs(lag_s) < found.series("loss").times_s.max() - found.created_s)
    assert [0, 0] == [experiment.status()[key] for key in ("pending", "waited")]


def test_stop_waits_for_what_is_pending(device):
    experiment = Experiment("e", collectors=()).start()
    experiment.log_metric("loss", device.hold() + 2)
    assert 1 == experiment.status()["pending"]
    device.let_go()
    experiment.stop()
    assert [(0, 2.0)] == points(experiment, "loss")
    assert ["e", "finished"] == [read(experiment).name, read(experiment).status.value]


def test_a_ready_value_of_a_series_does_not_overtake_one_that_is_pending(experiment, device):
    experiment.log_metric("loss", device.hold() + 1)
    experiment.log_metric("loss", jnp.float32(2))
    device.let_go()
    experiment.flush()
    assert [(0, 1.0), (1, 2.0)] == points(experiment, "loss")


def test_an_array_may_be_given_away_after_the_call(experiment, device):
    step = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf + 1, state), donate_argnums=0)
    state = {"step": jnp.int32(0), "params": jnp.zeros(3), "scale": device.hold()}
    for _ in range(3):
        state = jax.block_until_ready(step(state)) if state["scale"].is_ready() else step(state)
        experiment.log_metrics({"step": state["step"], "scale": state["scale"], "params": state["params"]})
    device.let_go()
    jax.block_until_ready(step(state))
    assert state["step"].is_deleted()
    experiment.flush()
    assert [(0, 1.0), (1, 2.0), (2, 3.0)] == points(experiment, "step") == points(experiment, "scale")
    assert 3 == len(read(experiment).records(MetricType.TENSOR))


def test_the_step_may_be_an_array_that_is_pending_too(experiment, device):
    zero = device.hold()
    experiment.log_metric("loss", zero + 1, (zero + 7).astype(jnp.int32))
    experiment.log_metrics({"plain": 0.5}, (zero + 8).astype(jnp.int32))
    device.let_go()
    experiment.flush()
    assert [(7, 1.0)] == points(experiment, "loss")
    assert [(8, 0.5)] == points(experiment, "plain")


DTYPES = {
    "bfloat16": (3.140625, 3.14),
    "float16": (3.140625, 3.14),
    "float8_e4m3fn": (3.25, 3.3),
    "float8_e5m2": (3.5, 3.3),
    "float32": (float(np.float32(0.1)), 0.1),
    "int4": (-3, -3),
    "int8": (-100, -100),
    "int32": (2**31 - 1, 2**31 - 1),
    "uint8": (200, 200),
    "uint32": (2**32 - 1, 2**32 - 1),
    "bool": (1.0, True),
}


@pytest.mark.parametrize("ready", [True, False], ids=["ready", "pending"])
def test_every_type_of_number_keeps_its_value(experiment, device, ready):
    values = {name: jnp.asarray(value, name) for name, (_, value) in DTYPES.items()}
    values |= {"nan": jnp.float32(math.nan), "inf": jnp.bfloat16(-math.inf), "one": jnp.full((1, 1), 5.0)}
    if not ready:
        late = jax.jit(
            lambda zero, tree: jax.tree.map(lambda value: jnp.where(zero > 1, jnp.zeros_like(value), value), tree)
        )
        values = late(device.hold(), values)
        assert not values["int8"].is_ready()
    experiment.log_metrics(values, 1)
    device.let_go()
    experiment.flush()
    expected = {name: float(value) for name, (value, _) in DTYPES.items()} | {"inf": -math.inf, "one": 5.0}
    found = {name: points(experiment, name) for name in expected}
    assert {name: [(1, value)] for name, value in expected.items()} == found
    assert math.isnan(points(experiment, "nan")[0][1])


def test_with_64_bits_nothing_is_cut(experiment, device):
    with jax.enable_x64(True):
        zero = device.hold()
        experiment.log_metrics({"float": zero.astype(jnp.float64) + 0.1, "int": zero.astype(jnp.int64) + 2**52 + 1})
        device.let_go()
        experiment.flush()
    assert [[(0, 0.1)], [(0, 2.0**52 + 1)]] == [points(experiment, "float"), points(experiment, "int")]


@pytest.mark.parametrize("ready", [True, False], ids=["ready", "pending"])
def test_what_is_no_single_number_is_recorded_as_what_it_is(experiment, device, ready):
    zero = device.hold()
    if ready:
        device.let_go()
        zero.block_until_ready()
    experiment.log_metric("vector", jnp.arange(3) + zero, 4)
    experiment.log_metric("complex", zero + 1j, 4)
    experiment.log_metric("key", jax.random.key(7), 4)
    device.let_go()
    experiment.flush()
    run = read(experiment)
    tensors = {record.name: record for record in run.records(MetricType.TENSOR)}
    assert [0.0, 1.0, 2.0] == np.load(tensors["vector"].value).tolist()
    assert jax.random.key_data(jax.random.key(7)).tolist() == np.load(tensors["key"].value).tolist()
    assert [4, 4] == [tensors[name].iteration for name in ("vector", "key")]
    assert [(4, "1j")] == run.texts("complex")


def test_a_value_that_could_not_be_computed_is_a_text_that_says_why(experiment, device):
    def fail(zero: Any) -> Any:
        raise ValueError("the data ended")

    failing = jax.jit(lambda zero: jax.pure_callback(fail, jax.ShapeDtypeStruct((), jnp.float32), zero))
    failed = failing(device.hold())
    experiment.log_metrics({"loss": failed + 1, "fine": jnp.float32(3)}, 2)
    experiment.log_metric("loss", jnp.float32(4), 3)
    device.let_go()
    experiment.flush()
    ((step, text),) = read(experiment).texts("loss")
    assert 2 == step
    assert "the data ended" in text
    assert [(2, 3.0)] == points(experiment, "fine")
    assert [(3, 4.0)] == points(experiment, "loss")
    runtime_tokens.clear()  # Or JAX tells of the error again when the interpreter ends.


def test_an_array_that_was_given_away_before_the_call_is_a_text_that_says_so(experiment):
    gone = jnp.zeros(())
    jax.jit(lambda x: x + 1, donate_argnums=0)(gone)
    experiment.log_metric("loss", gone)
    ((step, text),) = read(experiment).texts("loss")
    assert 0 == step
    assert "deleted" in text


@pytest.mark.parametrize("transform", [jax.jit, jax.grad, jax.vmap], ids=["jit", "grad", "vmap"])
def test_a_tracer_is_refused_with_what_to_do(experiment, transform):
    def logs(value: Any) -> Any:
        experiment.log_metric("loss", value)
        return value

    def logs_many(value: Any) -> Any:
        experiment.log_metrics({"loss": value, "fine": 1.0})
        return value

    argument = jnp.ones(2) if transform is jax.vmap else 1.0
    for function in (logs, logs_many):
        with pytest.raises(UsageError, match="Return it from the function and log it outside"):
            transform(function)(argument)
    assert ["fine"] == read(experiment).names()


def test_a_source_gives_the_time(experiment, device):
    data = MetricData("loss", device.hold() + 1, MetricType.SCALAR, 3, 1234.5, "source")
    experiment.emit_metric(data)
    device.let_go()
    experiment.flush()
    series = read(experiment).series("loss")
    assert ([3], [1.0], [1234.5]) == (series.steps.tolist(), series.values.tolist(), series.times_s.tolist())


def test_a_variable_of_nnx_is_read_at_the_call(experiment):
    from flax import nnx

    variable = nnx.BatchStat(jnp.float32(1))
    experiment.log_metric("mean", variable)
    variable.set_value(jnp.float32(2))
    assert [(0, 1.0)] == points(experiment, "mean")
