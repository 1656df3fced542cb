"""Callbacks whose faults stop no training: the first one of a callback is logged. On the thread that Keras calls on."""

from __future__ import annotations

import functools
import logging
from abc import ABC
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

import keras  # type: ignore[import-untyped]  # Keras ships no types.

logger = logging.getLogger(__name__)

G = TypeVar("G", bound="GuardedCallback")
P = ParamSpec("P")


class GuardedCallback(keras.callbacks.Callback, ABC):  # type: ignore[misc]  # Keras ships no types.
    """See the module docstring. Its hooks are marked with `guarded`."""

    def __init__(self) -> None:
        super().__init__()
        self._unlogged = {"fault": True}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_model": None}  # A copy gets a model where it is used.


def guarded(hook: Callable[Concatenate[G, P], None]) -> Callable[Concatenate[G, P], None]:
    """Keep what a hook raises from Keras: of a user's metric, of Keras, or of ours."""

    @functools.wraps(hook)
    def safe(self: G, /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            hook(self, *args, **kwargs)
        except Exception:
            if self._unlogged.pop("fault", False):  # At once, for the threads of Keras's pool may fail together.
                logger.exception("%s failed; the training goes on, and further faults are not logged", hook.__name__)

    return safe
