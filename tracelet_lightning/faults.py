"""A fault in recording is logged, and never raised: Lightning would end the training. On any thread."""

from __future__ import annotations

import functools
import logging
from abc import ABC
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Concatenate, ParamSpec, TypeVar

logger = logging.getLogger(__name__)

P = ParamSpec("P")
S = TypeVar("S", bound="Guarded")


class Guarded(ABC):
    """What has hooks whose faults are logged, once for each hook; see `safely`."""

    _reported: set[str]

    def report(self, hook: str, error: Exception) -> None:
        """Log a fault."""
        if hook not in self._reported:
            self._reported.add(hook)
            _log(hook, error)


def safely(hook: Callable[Concatenate[S, P], Any]) -> Callable[Concatenate[S, P], None]:
    """The hook, with its faults reported."""

    @functools.wraps(hook)
    def safe(self: S, /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            hook(self, *args, **kwargs)
        except Exception as error:  # noqa: BLE001 - whatever it is, the training is worth more
            self.report(hook.__name__, error)

    return safe


@contextmanager
def reported(what: str) -> Iterator[None]:
    """Log a fault in place of raising it."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - as above
        _log(what, error)


def _log(what: str, error: Exception) -> None:
    logger.warning("%s: not recorded, the training goes on: %r", what, error, exc_info=error)
