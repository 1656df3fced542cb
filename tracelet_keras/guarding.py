"""Callbacks whose faults stop no training: see `tracelet.utils.guarding`. On the threads that Keras calls on."""

from __future__ import annotations

from typing import Any

import keras  # type: ignore[import-untyped]  # Keras ships no types.

from tracelet.utils.guarding import Guarded


class GuardedCallback(Guarded, keras.callbacks.Callback):  # type: ignore[misc]  # Keras ships no types.
    """See the module docstring. Its hooks are marked with `safely`."""

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_model": None}  # A copy gets a model where it is used.
