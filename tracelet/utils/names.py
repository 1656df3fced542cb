"""From a name that a user chose to one that every file system takes.

Called on any thread, by whatever puts a user's name into a path: projects, run ids, backends. Pure functions. The
guarantee: two names never share a directory, but for long names whose 40-bit hashes meet; on a file system that
ignores case, names that differ in case alone do share one.
"""

from __future__ import annotations

import hashlib
import re
from urllib.parse import quote

_LIMIT_BYTES = 100
_WINDOWS_DEVICE = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\.|$)", re.IGNORECASE)


def safe_directory_name(name: str) -> str:
    """The name of a directory for whatever is called `name`.

    ASCII letters, digits, `.`, `_` and `-` stay. All else becomes `%` and two hex digits for each byte of its UTF-8
    form, and so does a character that stands in a bad place: a dot or dash at the start, a dot at the end, the first
    letter of a name that Windows keeps for a device. `urllib.parse.unquote(result, errors="surrogatepass")` gives
    `name` back unless it was empty or cut.

    Args:
        name: Any string: paths, `..`, NUL, lone surrogates and the empty string included.

    Returns:
        1 to 100 ASCII characters. Exactly 100 only where the escaped name has 100 or more: then it is cut, and ends
        in `-` and ten hex digits of the SHA-256 of `name`.
    """
    if not name:
        return "%empty"  # no other name gives this: elsewhere two hex digits follow a `%`
    escaped = quote(name, safe="", errors="surrogatepass").replace("~", "%7E")
    if escaped[0] in ".-" or _WINDOWS_DEVICE.match(escaped):
        escaped = f"%{ord(escaped[0]):02X}{escaped[1:]}"
    if escaped[-1] == ".":
        escaped = f"{escaped[:-1]}%2E"
    if len(escaped) < _LIMIT_BYTES:
        return escaped
    # A cut name has exactly 100 characters and no other name has: so it cannot meet a short name that looks like it.
    ending = "-" + hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:10]
    return escaped[: _LIMIT_BYTES - len(ending)] + ending
