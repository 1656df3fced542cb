"""Files that commands write for the user. On the main thread."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from tracelet.errors import UsageError


@contextlib.contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A path to write to, that takes the name `path` at the end: there is the old file or the whole new one.

    Raises:
        UsageError: It can't be written there.
    """
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise UsageError(f"{os.fspath(path)!r} can't be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
