"""Names and texts as MLflow takes them. Pure functions, for any thread."""

from __future__ import annotations

import hashlib
from typing import Final

from tracelet.utils.escaping import NameEscaping

# `mlflow.utils.validation` has these rules.
KEYS: Final = NameEscaping(r"\w./ :\-", 250, paths=True)
MAX_PARAM_CHARS: Final = 6_000
MAX_TAG_CHARS: Final = 8_000

# A column of 250 characters; NUL and lone surrogates are in no database.
TITLES: Final = NameEscaping(r"\x01-\uD7FF\uE000-\U0010FFFF", 250)

# Paths: MLflow refuses `#`, and decodes `%`. What stands on a disk has 255 bytes for each level.
_FILES: Final = NameEscaping(r"\w./ \-=+,@()~", 500, paths=True)
_LONG_FILES: Final = NameEscaping(r"a-zA-Z0-9_. \-=", 200)
_MAX_LEVEL_BYTES: Final = 200
MODELS: Final = NameEscaping(r"\w \-+=,@()", 200)  # Logged models.
_GRID_KEYS: Final = NameEscaping(r"a-zA-Z0-9_./ \-", 120, paths=True)  # As `MlflowClient.log_image` has it.


def mark(kind: str, name: str) -> str:
    """The key of a tag of ours about a name."""
    return KEYS.escape(kind + name)


def storable(text: str) -> str:
    """A text without what no database takes: NUL and lone surrogates are written as in Python's source."""
    return text.replace("\0", r"\x00").encode("utf-8", "backslashreplace").decode()


def cut(text: str, max_chars: int) -> str:
    """The text, or its beginning, its length and its digest: two texts never become one."""
    if len(text) <= max_chars:
        return text
    ending = f"… (cut from {len(text)} characters, sha256 {digest_of(text)})"
    return text[: max_chars - len(ending)] + ending


def path_of(name: str) -> str:
    """The path of a file among a run's artifacts."""
    path = _FILES.escape(name)
    is_short = all(len(level.encode()) <= _MAX_LEVEL_BYTES for level in path.split("/"))
    return path if is_short else _LONG_FILES.escape(name)


def suffix_of(suffix: str) -> str:
    """How its name ends; nothing where that is no usual suffix."""
    return suffix if suffix.isascii() and suffix[1:].isalnum() and len(suffix) <= 16 else ""


def grid_key_of(name: str) -> str:
    """The name of an image in the grid of MLflow's pages, which reads `~` as a slash."""
    return _GRID_KEYS.escape(name).replace("/", "~")


def digest_of(text: str) -> str:
    """16 digits that stand for a text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
