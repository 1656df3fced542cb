"""A device that computes nothing more until the test lets it."""

from __future__ import annotations

import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

WAIT_S = 60.0


class Device:
    """Holds a computation back, and with it all that needs its result."""

    def __init__(self) -> None:
        self._gate = threading.Event()
        self._busy = jax.jit(lambda seed: jax.lax.fori_loop(0, 400, lambda i, x: jnp.tanh(x @ x), seed)[0, 0] * 0)
        result = jax.ShapeDtypeStruct((), jnp.float32)
        self._held = jax.jit(lambda zero: jax.pure_callback(self._wait, result, zero))
        self._gate.set()
        self._held(self._busy(jnp.zeros((256, 256)))).block_until_ready()

    def hold(self) -> Any:
        """A float32 0 that is not there before `let_go`."""
        self._gate.clear()
        # JAX's CPU runs a callback at once, on the thread that calls, where its arguments are ready: so they are not.
        zero = self._held(self._busy(jnp.zeros((256, 256))))
        assert not zero.is_ready()
        return zero

    def let_go(self) -> None:
        self._gate.set()

    def _wait(self, zero: Any) -> Any:
        assert self._gate.wait(WAIT_S)
        return np.asarray(zero)
