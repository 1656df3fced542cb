"""The norm of the gradients, which torch leaves on the weights until the next step. JAX and TensorFlow keep none.

Guarantee: nothing waits for the device on the thread that trains. `take` only starts the computation there; `taken`
gives the result to whoever records it, on a thread of Keras's pool.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, final

import keras  # type: ignore[import-untyped]  # Keras ships no types.

from tracelet.errors import UsageError


@final
class GradientNorms:
    """Norms on their way from the thread that trains to the one that records. See the module docstring."""

    def __init__(self) -> None:
        """Prepare.

        Raises:
            UsageError: The backend is not torch.
        """
        if keras.backend.backend() != "torch":
            raise UsageError(
                f"gradient_norm=True needs the torch backend; {keras.backend.backend()} gives callbacks no gradients"
            )
        self._norms: deque[tuple[int, Any]] = deque()

    def take(self, step: int, model: Any) -> None:
        """Compute the norm over all gradients of the last step, before clipping. None without gradients."""
        from torch.nn.utils import get_total_norm

        gradients = [weight.value.grad for weight in model.trainable_weights]
        if found := [gradient for gradient in gradients if gradient is not None]:
            self._norms.append((step, get_total_norm(found)))

    def taken(self) -> Iterator[tuple[int, Any]]:
        """The norms that nobody has recorded yet, each with its step."""
        while self._norms:
            try:
                yield self._norms.popleft()
            except IndexError:  # Another thread of the pool was faster.
                return
