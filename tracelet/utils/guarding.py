"""Hooks of frameworks: a fault of ours in one is logged, and never raised, for the framework would end the training.

Called on whatever thread a framework calls its hooks on, several at a time too. Guarantee: the first fault of each hook
is logged with its traceback, and the training goes on. What is no `Exception` (Ctrl-C, the end of the program) passes.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar, cast

logger = logging.getLogger(__name__)

H = TypeVar("H", bound=Callable[..., Any])

_REPORTED: Final = "_reported_hooks"


class Guarded:
    """What has hooks whose faults are logged, once for each hook; see `safely`. It needs no `__init__`."""

    def report(self, hook: str, error: Exception) -> None:
        """Log the first fault of a hook."""
        mine = object()  # Both `setdefault`s are atomic: of several threads that fail together one logs.
        if vars(self).setdefault(_REPORTED, {}).setdefault(hook, mine) is mine:
            _log(hook, error)


def safely(hook: H) -> H:
    """The hook of something `Guarded`, with its faults reported. What it returns is lost."""

    @functools.wraps(hook)
    def safe(self: Guarded, /, *args: Any, **kwargs: Any) -> None:
        try:
            hook(self, *args, **kwargs)
        except Exception as error:  # noqa: BLE001 - whatever it is, the training is worth more
            self.report(hook.__name__, error)

    return cast("H", safe)


@contextmanager
def reported(what: str) -> Iterator[None]:
    """Log a fault in place of raising it, each time."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - as in `safely`
        _log(what, error)


def _log(what: str, error: Exception) -> None:
    logger.warning("%s: not recorded, the training goes on: %r", what, error, exc_info=error)
