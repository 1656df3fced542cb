"""What is measured of an optimizer's step: norms and learning rates. Called while a function is traced."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax


def norm(tree: Any) -> jax.Array:
    """The Euclidean norm over all real and complex leaves, computed in float32 at least."""
    total = jnp.float32(0)
    for leaf in _inexact(tree):
        wide = leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))
        total = total + jnp.sum(jnp.real(wide * jnp.conj(wide)))
    return jnp.sqrt(total)


def moved(new: Any, old: Any) -> jax.Array:
    """The norm of the difference of two trees: how far an update went, whatever has changed it on its way."""
    return norm([after - before for after, before in zip(_inexact(new), _inexact(old), strict=True)])


def learning_rates(opt_state: Any) -> dict[str, jax.Array]:
    """Those that `optax.inject_hyperparams` has put into the state; of several optimizers, each with its place.

    Of a schedule, the state holds its own state under the same name: so this is no search by name.
    """
    nodes = [node for node in jax.tree.leaves(opt_state, is_leaf=_is_injected) if _is_injected(node)]
    found = [node.hyperparams["learning_rate"] for node in nodes if "learning_rate" in node.hyperparams]
    names = ["learning_rate"] if len(found) == 1 else [f"learning_rate/{place}" for place in range(len(found))]
    return dict(zip(names, found, strict=True))


def _inexact(tree: Any) -> list[jax.Array]:
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    return [leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.inexact)]


def _is_injected(node: Any) -> bool:
    return isinstance(node, (optax.InjectHyperparamsState, optax.InjectStatefulHyperparamsState))
