"""Checkpoints know nothing of Tracelet: those of a state that records load into one that does not, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import serialization

from tests.adapters.jax.test_train_state import WithStats
from tests.adapters.jax.training import STEPS, batches, optimizer, params, plain, recorded, step
from tracelet.frameworks.jax_framework import tracked, wrap


def stats() -> WithStats:
    return WithStats.create(
        apply_fn=None, params=params(), tx=optimizer(), batch_stats={"mean": jnp.ones(2)}, note="mine"
    )


def by_flax(state: Any, target: Any, path: Path) -> Any:
    path.write_bytes(serialization.to_bytes(state))
    return serialization.from_bytes(target, path.read_bytes())


def by_orbax(state: Any, target: Any, path: Path) -> Any:
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, state)
        checkpointer.wait_until_finished()
        return checkpointer.restore(path, target)


def by_orbax_pytree(state: Any, target: Any, path: Path) -> Any:
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(path, state)
        return checkpointer.restore(path, item=target)


def by_orbax_manager(state: Any, target: Any, path: Path) -> Any:
    with ocp.CheckpointManager(path) as manager:
        manager.save(1, args=ocp.args.StandardSave(state))
        manager.wait_until_finished()
        return manager.restore(1, args=ocp.args.StandardRestore(jax.eval_shape(lambda: target)))


@pytest.mark.parametrize("save", [by_flax, by_orbax, by_orbax_pytree, by_orbax_manager])
@pytest.mark.parametrize("make", [plain, stats])
def test_a_checkpoint_loads_both_ways_and_the_training_goes_on(experiment, tmp_path, save, make):
    train_step = tracked(step)
    ours, fresh = wrap(make()), make().replace(params=jax.tree.map(jnp.zeros_like, params()))
    for batch in batches(3):
        ours = train_step(ours, batch)
    theirs = save(ours, fresh, tmp_path / "ours")
    assert type(theirs) is type(fresh)
    again = save(theirs, wrap(fresh), tmp_path / "theirs")
    assert type(again) is type(ours)
    for kept in (theirs, again):
        for mine, other in zip(jax.tree.leaves(ours), jax.tree.leaves(kept), strict=True):
            np.testing.assert_array_equal(mine, other)
    for batch in batches()[3:]:
        again = train_step(again, batch)
    assert [*range(1, STEPS + 1)] == [number for number, _ in recorded(experiment)["train/loss"]]
