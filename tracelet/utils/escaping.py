"""From any name to one that a tracker takes, and back. Pure functions, for any thread.

The guarantee: two names never become one, and `unescape(escape(name)) == name` for every string, lone surrogates and
the empty one included; only a name that has to be cut is not told by its key alone, and `unescape` says so.

The escape is the one that spreadsheets use: `_xHHHH_`, with the character's code point in four to six hexadecimal
digits. It needs nothing but letters, digits and underscores, which every tracker takes.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from typing import Final, final

_ESCAPE: Final = re.compile(r"_x([0-9A-F]{4,6})_")
_LOOKS_ESCAPED: Final = re.compile(r"_(?=x[0-9A-F]{4,6})")  # Its underscore is escaped, or it would be taken for one.
_EMPTY: Final = "_x110000_"  # One beyond the last code point of Unicode.
_CUT: Final = re.compile(r"_h[0-9a-f]{16}_\Z")
_CUT_CHARS: Final = 19
_MAX_CACHED: Final = 10_000


@final
class NameEscaping:
    """The rules of one tracker."""

    def __init__(self, allowed: str, max_chars: int, *, paths: bool = False) -> None:
        r"""Make the rules.

        Args:
            allowed: The characters that may stand in a name, as within the brackets of a regular expression:
                `\w./ -`. They must include ASCII letters, digits and the underscore.
            max_chars: The longest name; at least 40.
            paths: Whether a name is read as a path: then no level of it may be empty, `.` or `..`.
        """
        self._forbidden = re.compile(rf"[^{allowed}]")
        self._max_chars = max_chars
        self._paths = paths
        self._cache: dict[str, str] = {}

    def escape(self, name: str) -> str:
        """The name for the tracker; the same one if it is good."""
        key = self._cache.get(name)
        if key is None:
            if len(self._cache) >= _MAX_CACHED:  # A run with a name for each step keeps no memory here.
                self._cache.clear()
            key = self._cache[name] = self._escaped(name)
        return key

    def unescape(self, key: str) -> str | None:
        """The name that has this key; None for one that was cut."""
        if key == _EMPTY:
            return ""
        if len(key) == self._max_chars and _CUT.search(key):
            return None
        return _ESCAPE.sub(lambda match: chr(int(match[1], 16)), key)

    def _escaped(self, name: str) -> str:
        if not name:
            return _EMPTY
        key = self._forbidden.sub(lambda match: _code(match[0]), _LOOKS_ESCAPED.sub(_code("_"), name))
        if self._paths:
            levels = key.split("/")
            # The slash before or after an empty level is escaped, and so joins it to its neighbour.
            key = levels[0]
            for before, level in itertools.pairwise(levels):
                key += ("/" if before and level else _code("/")) + level
            key = "/".join(_code(".") + level[1:] if level in (".", "..") else level for level in key.split("/"))
        if len(key) < self._max_chars:
            return key
        # A cut key has exactly the full length, and no other key has: so it meets no whole one.
        ending = f"_h{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}_"
        head = key[: self._max_chars - _CUT_CHARS].rstrip("/. ")
        return head + "_" * (self._max_chars - _CUT_CHARS - len(head)) + ending


def _code(character: str) -> str:
    return f"_x{ord(character):04X}_"
