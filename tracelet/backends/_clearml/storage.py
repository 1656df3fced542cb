"""Files where the setting `output_uri` says, by ClearML's own `StorageManager`. For any thread.

Guarantee: a file is there when `upload` returns.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from tracelet.errors import RetryableError
from tracelet.utils.imports import require


def upload(destination: str, key: str, source: Path | bytes, scratch: Path) -> str:
    """Store a file, or the bytes of one.

    Args:
        destination: `s3://bucket`, say.
        key: The path in it.
        source: What to store.
        scratch: A directory for what is only there meanwhile.

    Returns:
        Its URL.

    Raises:
        RetryableError: The storage does not take it.
    """
    manager = require("clearml", "The ClearML backend").StorageManager
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        if isinstance(source, bytes):
            written = Path(folder, "content")
            written.write_bytes(source)
            source = written
        try:
            url = manager.upload_file(str(source), f"{destination}/{key}", wait_for_upload=True)
        except Exception as error:  # Whatever the library of the storage raises.
            raise RetryableError(f"{destination} does not take the file {source}: {error}") from error
    if not url:  # It says why in ClearML's log.
        raise RetryableError(f"{destination} does not take the file {source}")
    return str(url)
