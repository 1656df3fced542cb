"""A writer of a run as its reader knows it, whether it reads the run whole or follows it while it grows.

Called on the reader's own thread. The clock may go back from one attempt to the next, which may be on another host: so
the order of writers is that of their attempts first, then that of the clock.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from tracelet.journal.ranks import rank_of

if TYPE_CHECKING:
    from tracelet.journal.columns import Columns


class Written(ABC):
    """What one writer has recorded.

    Attributes:
        facts: The first line of its log.
    """

    facts: Mapping[str, Any]

    @property
    def rank(self) -> int:
        """Of its process."""
        return rank_of(self.facts)

    @property
    def role(self) -> str:
        """As `JournalWriter` has it."""
        return str(self.facts.get("role"))

    @property
    def born_ns(self) -> int:
        """When it began: Unix time in nanoseconds."""
        born = self.facts.get("time_ns")
        return born if isinstance(born, int) else 0

    @property
    def attempt(self) -> int:
        """Which attempt of the run it belongs to, from 1."""
        attempt = self.facts.get("attempt")
        return attempt if isinstance(attempt, int) else 1

    @property
    @abstractmethod
    def last_s(self) -> float:
        """The time of its last record: Unix time in seconds. Without any, when it began: an import begins later."""

    @abstractmethod
    def has(self, name: str) -> bool:
        """Whether it has a series of this name."""

    @abstractmethod
    def columns(self, name: str) -> Columns:
        """Its points of a series, in their order; none where it has no such series."""


_Written = TypeVar("_Written", bound=Written)


def in_order(writers: Iterable[_Written]) -> list[_Written]:
    """The writers of a run, the oldest first."""
    return sorted(writers, key=lambda writer: (writer.attempt, writer.born_ns))


def ranks_of(writers: Iterable[Written], name: str) -> list[int]:
    """The ranks that have a series, ascending."""
    return sorted({writer.rank for writer in writers if writer.has(name)})


def first_rank(writers: Iterable[Written], name: str) -> int:
    """Whose points of a series are the main line: the first rank that has it."""
    return min((writer.rank for writer in writers if writer.has(name)), default=0)


def writers_of(writers: Iterable[_Written], name: str, rank: int | None = None) -> list[_Written]:
    """Those of one rank that have a series, in their order; None: of the first rank that has it."""
    found = [writer for writer in writers if writer.has(name)]
    wanted = min((writer.rank for writer in found), default=0) if rank is None else rank
    return [writer for writer in found if writer.rank == wanted]


def spans_s(writers: Iterable[Written]) -> dict[int, tuple[float, float]]:
    """When each attempt began, and when its last record was written: Unix times in seconds.

    Args:
        writers: All of the run, in their order.
    """
    known = list(writers)
    return {
        main.attempt: (main.born_ns / 1e9, max(each.last_s for each in known if each.attempt == main.attempt))
        for main in known
        if main.role == "main"
    }
