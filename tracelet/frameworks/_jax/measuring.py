"""What is measured of an optimizer's step: norms and learning rates. Called while a function is traced."""

from __future__ import annotations

from typing import Any, Final

import jax
import jax.numpy as jnp
import optax

_SMALL: Final = 1 << 16  # 256 kB: it stays in the cache.


def norm(tree: Any) -> jax.Array:
    """The Euclidean norm over all real and complex leaves, computed in float32 at least."""
    leaves = [leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32)) for leaf in _inexact(tree)]
    if jax.device_count() > 1:  # Each may have a piece of a leaf, and to flatten it would bring them together.
        squares = [jnp.sum(jnp.real(leaf * jnp.conj(leaf))) for leaf in leaves]
    else:  # On a CPU, a product of vectors takes half the time of a sum.
        squares = [jnp.real(jnp.vdot(leaf, leaf, precision="highest")) for leaf in _joined(leaves)]
    return jnp.sqrt(sum(squares, jnp.float32(0)))


def _joined(leaves: list[jax.Array]) -> list[jax.Array]:
    """With the small ones of each type in one: for them a computation of its own costs more than a copy."""
    small: dict[Any, list[jax.Array]] = {}
    for leaf in leaves:
        if leaf.size <= _SMALL:
            small.setdefault(leaf.dtype, []).append(leaf.reshape(-1))
    return [leaf for leaf in leaves if leaf.size > _SMALL] + [jnp.concatenate(group) for group in small.values()]


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
