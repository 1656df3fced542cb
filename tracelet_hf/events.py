"""What a callback of a trainer needs besides its events: a way to find the callback that the user gave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, final

from transformers import TrainerState, TrainingArguments

_LINK: Final = "_tracelet_callbacks"


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
