"""`monitor`: a part of an `optax.chain` that records what passes through it. Called while a step function is traced."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, final

import jax
import jax.numpy as jnp
import optax

from tracelet.core.experiment import Experiment
from tracelet.frameworks._jax.leaving import Outlet, emit
from tracelet.frameworks._jax.measuring import norm
from tracelet.frameworks._jax.rows import flattened


@final
class MonitorState(NamedTuple):
    """Attributes: count: The steps so far, int32 of shape ()."""

    count: Any


def monitor(
    name: str = "grad_norm",
    *,
    given: Sequence[str] = (),
    param_norm: bool = False,
    experiment: Experiment | None = None,
    prefix: str = "train",
    all_processes: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """A transformation that changes nothing and records the norm of what it is given.

    ```python
    tx = optax.chain(monitor("grad_norm"), optax.adam(1e-3), monitor("update_norm", param_norm=True))
    ```

    Args:
        name: Of the norm.
        given: Names of numbers that `update` is given besides, to record: `tx.update(grads, state, params, loss=loss)`.
        param_norm: Record that of the parameters, before the update, where `update` gets them.
        experiment: What records. None: the active one, each time. In a tracked function, that has its own.
        prefix: In front of the names.
        all_processes: In a JAX program of several processes, record in each one, and not in the first one only.
    """
    outlet = Outlet(experiment, all_processes)

    def init(params: Any) -> MonitorState:
        del params
        return MonitorState(jnp.zeros((), jnp.int32))

    def update(updates: Any, state: MonitorState, params: Any = None, **others: Any) -> tuple[Any, MonitorState]:
        count: jax.Array = optax.safe_increment(state.count)
        found = {key: others[key] for key in given if key in others} | {name: norm(updates)}
        if param_norm and params is not None:
            found["param_norm"] = norm(params)
        emit(f"{prefix}/{name}" if prefix else name, count, flattened(found, prefix), outlet)
        return updates, MonitorState(count)

    return optax.GradientTransformationExtraArgs(init, update)
