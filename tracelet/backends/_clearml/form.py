"""A file as the form that ClearML's files server takes. For one thread; nothing is read into memory as a whole."""

from __future__ import annotations

import mimetypes
import os
from typing import BinaryIO, Final, final

_BOUNDARY: Final = "tracelet-5f1c9d0a7be34c62"
CONTENT_TYPE: Final = f"multipart/form-data; boundary={_BOUNDARY}"


@final
class Form:
    """A form of one file of any size, as `requests` reads it. Its field has the file's key: the server wants it so."""

    def __init__(self, key: str, file: BinaryIO) -> None:
        mime_type = mimetypes.guess_type(key)[0] or "application/octet-stream"
        head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{key}"; filename="{key}"\r\n'
        self._pending = f"{head}Content-Type: {mime_type}\r\n\r\n".encode("ascii")
        self._file: BinaryIO | None = file
        self._tail = f"\r\n--{_BOUNDARY}--\r\n".encode("ascii")
        self._size_bytes = len(self._pending) + file.seek(0, os.SEEK_END) + len(self._tail)
        file.seek(0)

    def __len__(self) -> int:
        return self._size_bytes

    def read(self, count: int = -1) -> bytes:
        """The next bytes, `count` at most; none at the end."""
        if not self._pending and self._file is not None:
            self._pending = self._file.read(count)
            if not self._pending:
                self._file, self._pending = None, self._tail
        piece = self._pending if count < 0 else self._pending[:count]
        self._pending = self._pending[len(piece) :]
        return piece
