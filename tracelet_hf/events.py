"""What any callback of a trainer needs: events that never raise, and a way to find the callback that the user gave."""

from __future__ import annotations

import functools
import logging
from abc import ABC
from collections.abc import Callable, Mapping
from typing import Any, Final, final

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

logger = logging.getLogger(__name__)

_LINK: Final = "_tracelet_callbacks"


class SafeCallback(TrainerCallback, ABC):
    """A callback whose faults are logged, once for each event; see `safely`."""

    def __init__(self) -> None:
        """Make one that has reported nothing yet."""
        self._reported: set[str] = set()

    def report(self, what: str, error: Exception) -> None:
        """Log a fault."""
        if what not in self._reported:
            self._reported.add(what)
            logger.warning("%s: not recorded, the training goes on: %r", what, error, exc_info=error)


def safely(event: Callable[..., None]) -> Callable[..., None]:
    """The event, with its faults reported: the trainer would stop at an exception."""

    @functools.wraps(event)
    def safe(
        self: SafeCallback, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        try:
            event(self, args, state, control, **given)
        except Exception as error:  # noqa: BLE001 - whatever it is, the training is worth more
            self.report(event.__name__, error)

    return safe


@final
class Link:
    """The callbacks that the user gave to a trainer, in an attribute of the training arguments.

    The arguments are all that an object which the trainer makes from a checkpoint has in common with the one that it
    stands for. A pickle or a copy of them has None there.
    """

    def __init__(self, state: TrainerState) -> None:
        """Make one for the trainer that has this state as it is made."""
        self.state = state
        self.callbacks: list[Any] = []

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        return type(None), ()

    @staticmethod
    def in_(args: TrainingArguments) -> Link | None:
        """The link of the last trainer that was made with these arguments."""
        return vars(args).get(_LINK)

    @classmethod
    def of(cls, args: TrainingArguments, state: TrainerState) -> Link:
        """The link of the trainer that is being made, and has this state."""
        link = cls.in_(args)
        if link is None or link.state is not state:
            link = vars(args)[_LINK] = cls(state)
        return link


def saved_in(state: TrainerState, name: str, place: int) -> Mapping[str, Any] | None:
    """What a callback has left in the checkpoint that a training resumes from; None where it resumes from none.

    Args:
        state: At the beginning of the training.
        name: The class of the callback.
        place: Which one it is of the trainer's callbacks of this class.
    """
    if state.global_step == 0:  # Then it is the state as the trainer was made.
        return None
    known: Any = state.stateful_callbacks  # A dict, whatever its annotation says.
    found = known.get(name, [])
    saved = [one["attributes"]["saved"] for one in (found if isinstance(found, list) else [found])]
    return next((one for one in reversed(saved) if one["place"] == place), None)  # The trainer appends new ones.
