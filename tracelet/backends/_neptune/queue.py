"""The files of the Neptune client: the queue of operations in its folder.

    .neptune/offline/run__<id>__<pid>__<key>/      or `async` for `offline`
    ├── data-<n>.log        an operation a line, as JSON; the first one has the version n
    ├── last_put_version    how many there are
    └── last_ack_version    how many the server has

Called on the backend's thread. `neptune sync` makes a run on the server of each id, which is a new one each time the
client opens a run offline. So a run that was resumed would become several. `append_queue` makes one folder of two.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path


def append_queue(source: Path, target: Path) -> None:
    """Move the operations of one folder to the end of another. Done again after a kill, it ends in the same.

    Raises:
        OSError: The disk does not let us.
    """
    before = version_in(target / "last_put_version")
    last = before
    for log in source.glob("data-*.log"):
        moved = target / f"data-{before + int(log.stem.removeprefix('data-'))}.log"
        with open(log, encoding="utf-8") as lines, open(moved.with_suffix(".tmp"), "w", encoding="utf-8") as file:
            for line in lines:
                if not line.endswith("\n"):  # Cut short by a kill; it is in the batch that comes again.
                    break
                operation = json.loads(line)
                operation["version"] += before
                last = max(last, operation["version"])
                file.write(json.dumps(operation) + "\n")
        os.replace(moved.with_suffix(".tmp"), moved)
    temporary = target / "last_put_version.tmp"
    temporary.write_text(str(last), encoding="utf-8")
    os.replace(temporary, target / "last_put_version")
    shutil.rmtree(source)


def version_in(file: Path) -> int:
    """A number of operations; 0 where the file is not there, or is being written."""
    try:
        return int(file.read_text(encoding="utf-8") or 0)
    except FileNotFoundError:
        return 0


def is_acknowledged(folder: Path) -> bool:
    """Whether the server has all operations. The client takes the folder away when it has ended and that is so."""
    return version_in(folder / "last_ack_version") >= version_in(folder / "last_put_version")
