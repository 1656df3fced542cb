"""What a Neptune run is made of: fields of a type, at a path.

Values without behaviour, for any thread.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, final

from tracelet.utils.escaping import NameEscaping

MAX_POINT_CHARS: Final = 1_000  # Of one text in a series; the client cuts what is longer.
MAX_TEXT_CHARS: Final = 16_384  # Of a single text; the same.

# A path may have 1,024 bytes: 250 characters of four bytes each, and what is put before or after them.
NAMES: Final = NameEscaping(r"\w ./:=+@,()\-", 250, paths=True)
_LEVELS: Final = NameEscaping(r"\w .:=+@,()\-", 250)


@final
class FieldKind(enum.Enum):
    """Neptune's types of fields, and how a value gets there."""

    FLOAT_SERIES = "float series"
    STRING_SERIES = "string series"
    FILE_SERIES = "file series"  # Images only; the value is a path.
    FILE = "file"  # The value is a path.
    CONTENT = "content"  # A file as well; the value is `(text, suffix)`.
    FILE_SET = "file set"  # The value is the path of a directory.
    STRING_SET = "string set"
    FLOAT = "float"
    INT = "int"
    BOOL = "bool"
    STRING = "string"
    DATETIME = "datetime"

    @property
    def is_series(self) -> bool:
        """Whether a field holds many points."""
        return self in (FieldKind.FLOAT_SERIES, FieldKind.STRING_SERIES, FieldKind.FILE_SERIES)


@final
@dataclass(frozen=True, slots=True)
class Field:
    """A value and where it goes.

    Attributes:
        name: As it was logged.
        root: The namespace before the name, with its slash.
        tail: What comes after the name.
        owner: Keeps the fields of two records apart that want the same path. Empty for a field of Neptune's or
            Tracelet's own, of which `root` is the whole path.
    """

    kind: FieldKind
    name: str
    value: Any
    root: str = ""
    tail: str = ""
    owner: str = ""

    @property
    def path(self) -> str:
        """The path, if no other field has it."""
        if not self.owner:
            return self.root
        path = f"{self.root}{NAMES.escape(self.name)}{self.tail}"
        # Neptune's own namespace, where nobody else may write.
        is_taken = not self.root and (path == "sys" or path.startswith("sys/"))
        return f"sys_{path[3:]}" if is_taken else path

    @property
    def plain_path(self) -> str:
        """The path, if Neptune took every name."""
        return f"{self.root}{self.name}{self.tail}"

    @property
    def key(self) -> str:
        """What tells the field from all others of the run."""
        return "\n".join((self.owner, self.kind.value, self.root, self.tail, NAMES.escape(self.name)))


def fixed(path: str, value: str | bool | float | datetime | set[str]) -> Field:
    """A field of Neptune's or Tracelet's own."""
    kinds: Mapping[type, FieldKind] = {
        str: FieldKind.STRING,
        bool: FieldKind.BOOL,
        float: FieldKind.FLOAT,
        datetime: FieldKind.DATETIME,
        set: FieldKind.STRING_SET,
    }
    return Field(kinds[type(value)], "", value, root=path)


def name_of(field: Field, path: str) -> Field:
    """Keeps the true name of a field that has another path."""
    pair = json.dumps({path: field.name[: MAX_TEXT_CHARS // 8]}, ensure_ascii=False)
    return fixed(f"tracelet/names/{_LEVELS.escape(path)}", pair)
