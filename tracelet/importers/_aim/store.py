"""The databases of Aim 3, read without Aim: a RocksDB of what it says of a run, and one of what was logged.

Called on the thread that imports. A key is a path: each part ends with a byte that no text in UTF-8 has, and a whole
number has it in front, too. A value is a byte for its type, and its bytes. Large ones are empty and lie elsewhere.

Guarantee: nothing is written or locked, so that a training may go on. It is read as it was when it was opened.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

from tracelet.utils.imports import require

_END: Final = b"\xfe"
_LARGE: Final = b"BLOBS" + _END
_KEY_NUMBER: Final = struct.Struct(">q")
_INTEGER: Final = struct.Struct("<q")
_FLOAT: Final = struct.Struct("<d")
_FAULTS: Final = ("Corruption", "Incomplete", "InvalidArgument", "NotFound", "NotSupported", "RocksIOError")
_TYPES: Final[Mapping[bytes, Callable[[bytes], Any]]] = {
    b"\0": lambda _: None,
    b"\1": lambda data: data != b"\0",
    b"\2": lambda data: _INTEGER.unpack(data)[0],
    b"\3": lambda data: _FLOAT.unpack(data)[0],
    b"\4": bytes.decode,
    b"\5": bytes,
    b"\6": lambda _: [],
    b"\7": lambda _: {},
    b"\x0f": lambda data: AimObject(data.decode(), {}),
}
_ATTEMPTS: Final = 20


@final
@dataclass(frozen=True, slots=True)
class AimObject:
    """What Aim has a class for, as `aim.image`."""

    kind: str
    fields: dict[str | int, Any]


@final
class Store:
    """One database."""

    def __init__(self, directory: Path) -> None:
        """Open it.

        Raises:
            MissingDependencyError: RocksDB for Python is not installed.
            ValueError: It can't be read.
        """
        rocks = require("aimrocks", "Importing from Aim", "aim")
        errors = require("aimrocks.errors", "Importing from Aim", "aim")
        self._faults = tuple(vars(errors)[name] for name in _FAULTS)
        fault: Exception | None = None
        for _ in range(_ATTEMPTS):
            before = _version(directory)
            try:
                options = rocks.Options(create_if_missing=False, max_open_files=-1)
                self._database = rocks.DB(os.fspath(directory), options, read_only=True)
            except self._faults as error:
                fault = error
            else:
                if _version(directory) == before:
                    return
        raise ValueError("it is written too fast" if fault is None else _told(fault)) from fault

    def leaves(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """What follows the prefix in each key that begins with it, and the raw value, in the order of the keys."""
        try:
            items = self._database.iteritems()
            items.seek(prefix)
            for key, value in items:
                if not key.startswith(prefix):
                    return
                yield key[len(prefix) :], value
        except self._faults as error:
            raise ValueError(_told(error)) from error

    def tree(self, prefix: bytes) -> Any:
        """All that is below a prefix, as one value; an empty dict where there is nothing.

        Raises:
            ValueError, struct.error: It can't be read, or is not as Aim writes it.
        """
        root: dict[Any, Any] = {}
        for rest, raw in self.leaves(prefix):
            node = root
            for part in path_of(rest):
                node = node.setdefault(part, {})
            node[_END] = self._large(prefix + rest) if raw == b"" else value_of(raw)
        return _folded(root)

    def column(self, prefix: bytes, name: str) -> Iterator[tuple[bytes, bytes]]:
        """The rows of one column of a sequence, each with what its key ends with."""
        return (leaf for leaf in self.leaves(prefix + key_of(name)) if leaf[0])  # The first says that it is a list.

    def columns(self, prefix: bytes, names: Sequence[str]) -> Iterator[tuple[bytes, list[Any]]]:
        """The rows of a sequence that all of its columns have, each with what its key ends with.

        Aim writes one after the other: the last row may not be whole yet.
        """
        columns = [self.column(prefix, name) for name in names]
        heads = [next(column, None) for column in columns]
        while True:
            whole = [head for head in heads if head is not None]
            if len(whole) < len(heads):
                return
            latest = max(rest for rest, _ in whole)
            if all(rest == latest for rest, _ in whole):
                yield latest, [value_of(raw) for _, raw in whole]
                heads = [next(column, None) for column in columns]
            else:
                pairs = zip(whole, columns, strict=True)
                heads = [next(column, None) if head[0] < latest else head for head, column in pairs]

    def _large(self, key: bytes) -> Any:
        try:
            raw = self._database.get(_LARGE + key)
        except self._faults as error:
            raise ValueError(_told(error)) from error
        if raw is None:
            raise ValueError("a value that lies apart is not there")
        return value_of(raw)


def key_of(*parts: str | int) -> bytes:
    """The key of a path, or the beginning of those below it."""
    return b"".join(
        (part.encode() if isinstance(part, str) else _END + _KEY_NUMBER.pack(part)) + _END for part in parts
    )


def path_of(key: bytes) -> list[str | int]:
    """The path of a key.

    Raises:
        ValueError, struct.error: It is not as Aim writes it.
    """
    parts, place = list[str | int](), 0
    while place < len(key):
        end = key.index(_END, place)
        if end > place:
            parts.append(key[place:end].decode())
        else:
            end = place + 1 + _KEY_NUMBER.size
            parts.append(_KEY_NUMBER.unpack(key[place + 1 : end])[0])
        place = end + 1
    return parts


def value_of(raw: bytes) -> Any:
    """A value; of a container an empty one.

    Raises:
        ValueError, struct.error: It is not as Aim writes it.
    """
    read = _TYPES.get(raw[:1])
    if read is None:
        raise ValueError(f"a value has the unknown type {raw[:1]!r}")
    return read(raw[1:])


def _folded(node: dict[Any, Any]) -> Any:
    own = node.pop(_END, {})
    inner = {part: _folded(below) for part, below in node.items()}
    match own:
        case list():
            return list(inner.values())
        case AimObject():
            return AimObject(own.kind, inner)
        case dict():
            return inner
        case _:
            return own


def _version(directory: Path) -> list[tuple[str, int]]:
    """Tells whether a training has moved points from the log into a table: those may have been missed in between."""
    return sorted((path.name, os.path.getsize(path)) for path in directory.glob("MANIFEST-*"))


def _told(error: Exception) -> str:
    text = error.args[0] if error.args else error
    return text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
