"""Words for error messages. Pure functions, for any thread."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Final

from tracelet.utils.redaction import clean

_MOST_CHARS: Final = 10_000


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)`, to stand behind an unknown name; nothing where none is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def in_a_line(error: BaseException, max_chars: int = 300) -> str:
    """An error's class and the beginning of its text: servers answer with pages, and databases with statements.

    Without credentials: a text of an SDK's may have the URL in it that it was given.
    """
    text = clean(" ".join(f"{type(error).__name__}: {error}"[:_MOST_CHARS].split()))
    return text if len(text) <= max_chars else f"{text[:max_chars]}…"
