"""The suite every framework plug-in must pass, on functions that JAX compiles."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import pytest

from tracelet.frameworks.jax_framework import JAXFramework
from tracelet.testing import FrameworkContract


class TestJAXFramework(FrameworkContract):
    subject = JAXFramework

    @pytest.fixture
    def framework(self) -> JAXFramework:
        return JAXFramework()

    @pytest.fixture
    def train(self) -> Callable[[], float]:
        return lambda: float(jax.jit(lambda x: x * 2 + 1)(jnp.float32(1)))
