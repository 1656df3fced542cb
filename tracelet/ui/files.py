"""Hands out the files of a run: as attachments, never as something that a browser would run.

Called on the server's threads. Guarantee: nothing outside of the run directory leaves it, whatever a path says and
wherever a link leads.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from starlette.responses import FileResponse

from tracelet.errors import UsageError

_SHOWN: Final = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
    ".wav": "audio/wav",
    ".mp3": "audio/mpeg",
    ".ogg": "audio/ogg",
    ".flac": "audio/flac",
    ".mp4": "video/mp4",
    ".webm": "video/webm",
}
"""What a browser draws and cannot run. SVG and HTML are not among them: they can hold scripts."""

_TEXT: Final = "text/plain; charset=utf-8"
_MAX_TEXT_BYTES: Final = 4 << 20


def file_response(root: Path, path: str, *, show: bool) -> FileResponse:
    """A file of a run.

    Args:
        root: The run directory.
        path: Relative to it.
        show: For the page itself, instead of as an attachment, where that is safe.

    Raises:
        UsageError: There is no such file in the run.
    """
    file = safe_file(root, path)
    kind = _SHOWN.get(file.suffix.lower())
    if show and kind is None and file.stat().st_size <= _MAX_TEXT_BYTES:
        kind = _TEXT
    is_shown = show and kind is not None
    return FileResponse(
        file,
        media_type=kind if is_shown else "application/octet-stream",
        filename=file.name,
        content_disposition_type="inline" if is_shown else "attachment",
        headers={"Content-Security-Policy": "default-src 'none'; sandbox; frame-ancestors 'none'"},
    )


def safe_file(root: Path, path: str) -> Path:
    """The plain file that a path means.

    Raises:
        UsageError: There is none, or it is not in the run directory.
    """
    parts = path.split("/")
    is_plain = bool(path) and "\0" not in path and "\\" not in path and not path.startswith("/")
    if is_plain and not {"", ".", ".."} & set(parts):
        inside = Path(os.path.realpath(root))
        file = Path(os.path.realpath(inside / path))
        if file.is_relative_to(inside) and file.is_file():
            return file
    raise UsageError(f"the run has no file {path[:200]!r}")
