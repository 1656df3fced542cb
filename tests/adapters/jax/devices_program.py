"""Trains on several devices: python -m tests.adapters.jax.devices_program OUT [PORT NUMBER], of two processes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import jax_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import tracelet
from tests.adapters.jax.training import batches, loss_of, plain, recorded, step
from tracelet import Experiment
from tracelet.frameworks.jax_framework import tracked, wrap

STEPS = 3


def averaged_step(state: Any, batch: Any) -> Any:
    loss, grads = jax.lax.pmean(jax.value_and_grad(loss_of)(state.params, batch), "devices")
    return state.apply_gradients(grads=grads, loss=loss)


def mean_step(state: Any, batch: Any) -> Any:
    """For `shard_map`, where the gradient of what is the same everywhere is a sum already."""
    loss, grads = jax.value_and_grad(lambda params: jax.lax.pmean(loss_of(params, batch), "devices"))(state.params)
    return state.apply_gradients(grads=grads, loss=loss)


def pmapped(compiler: Callable[..., Any]) -> None:
    state = jax_utils.replicate(wrap(plain()))
    train_step = compiler(averaged_step)
    for batch in batches(STEPS):
        state = train_step(state, batch.reshape(4, 2, 3))
    assert [STEPS] * 4 == state.step.tolist()
    assert type(jax_utils.unreplicate(state)) is type(wrap(plain()))


def shard_mapped(compiler: Callable[..., Any]) -> None:
    mesh = jax.make_mesh((4,), ("devices",), axis_types=(AxisType.Auto,))
    specs = {"in_specs": (PartitionSpec(), PartitionSpec("devices")), "out_specs": PartitionSpec()}
    train_step = compiler(jax.shard_map(mean_step, mesh=mesh, **specs))
    state = wrap(plain())
    for batch in batches(STEPS):
        state = train_step(state, batch)


def sharded(compiler: Callable[..., Any], kind: AxisType = AxisType.Auto, **options: Any) -> None:
    """Parameters and batches are in pieces on the devices, of all processes."""
    count = jax.device_count()
    mesh = jax.make_mesh((count,), ("devices",), axis_types=(kind,))
    state = wrap(plain(), **options)
    spec = PartitionSpec(None, "devices") if count == 2 else PartitionSpec()
    placed = jax.tree.map(
        lambda leaf: NamedSharding(mesh, spec if jnp.shape(leaf) == (3, 2) else PartitionSpec()), state
    )
    rows = NamedSharding(mesh, PartitionSpec("devices"))
    train_step = compiler(step, in_shardings=(placed, rows), out_shardings=placed, donate_argnums=0)
    state = _put(state, placed)
    for batch in batches(STEPS):
        state = train_step(state, _put(batch, rows))


def scanned(compiler: Callable[..., Any]) -> None:
    mesh = jax.make_mesh((4,), ("devices",), axis_types=(AxisType.Auto,))
    rows = NamedSharding(mesh, PartitionSpec(None, "devices"))
    state = jax.device_put(wrap(plain()), NamedSharding(mesh, PartitionSpec()))
    train = compiler(lambda state, batches: jax.lax.scan(lambda s, b: (step(s, b), None), state, batches)[0])
    train(state, jax.device_put(batches(STEPS), rows))


def logged(experiment: Experiment) -> None:
    """Plain values of several devices."""
    mesh = jax.make_mesh((jax.device_count(),), ("devices",), axis_types=(AxisType.Auto,))
    everywhere = _put(jnp.float32(2), NamedSharding(mesh, PartitionSpec()))
    parts = _put(jnp.arange(float(jax.device_count())), NamedSharding(mesh, PartitionSpec("devices")))
    total = jax.jit(jnp.sum, out_shardings=NamedSharding(mesh, PartitionSpec()))(parts)
    experiment.log_metrics({"everywhere": everywhere, "total": total, "parts": parts}, 1)


def _put(tree: Any, shardings: Any) -> Any:
    """The same in every process; also where not all of the devices are of this one."""
    shardings = shardings if not isinstance(shardings, NamedSharding) else jax.tree.map(lambda _: shardings, tree)

    def put(leaf: Any, sharding: Any) -> Any:
        array = np.asarray(leaf)
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    return jax.tree.map(put, tree, shardings)


WAYS: dict[str, Callable[[], None]] = {
    "pmap, tracked": lambda: pmapped(lambda f: tracked(f, transform=jax.pmap, axis_name="devices")),
    "pmap, callback": lambda: pmapped(lambda f: jax.pmap(f, axis_name="devices", donate_argnums=0)),
    "shard_map, tracked": lambda: shard_mapped(tracked),
    "shard_map, callback": lambda: shard_mapped(jax.jit),
    "sharded, tracked": lambda: sharded(tracked),
    "sharded, callback": lambda: sharded(jax.jit),
    "sharded, explicit": lambda: sharded(tracked, AxisType.Explicit),
    "sharded, scan": lambda: scanned(tracked),
}


def main(out: str, port: str = "", number: str = "0") -> None:
    if port:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(f"127.0.0.1:{port}", 2, int(number))
    ways = WAYS if not port else {
        "sharded, tracked": lambda: sharded(tracked),
        "sharded, all processes": lambda: sharded(tracked, all_processes=True),
    }  # fmt: skip
    found: dict[str, Any] = {}
    for way, train in ways.items():
        with Experiment(way, dir=Path(out) / number, collectors=()) as experiment:
            train()
            found[way] = recorded(experiment)
    with Experiment("values", dir=Path(out) / number, collectors=()) as experiment:
        logged(experiment)
        found["values"] = recorded(experiment)
        run = tracelet.load_run(experiment.run_dir)
        found["texts"] = run.texts("parts")
        found["tensors"] = [np.load(record.value).tolist() for record in run.records(tracelet.MetricType.TENSOR)]
    (Path(out) / f"found-{number}.json").write_text(json.dumps(found))
    if port:
        jax.distributed.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
