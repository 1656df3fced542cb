"""What each part of the system collector is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol


class Probe(Protocol):
    """Reads one kind of source. Every call comes on the collector's thread."""

    name: str
    """What a warning calls it."""

    def facts(self) -> Iterable[tuple[str, Any]]:
        """Names and values of what does not change while the run goes on; None where it is not known. Asked once."""

    def read(self, now_s: float) -> Iterable[tuple[str, float]]:
        """Names and values now. `now_s` is the time by the monotonic clock."""

    def close(self) -> None:
        """Let go of what is open."""
