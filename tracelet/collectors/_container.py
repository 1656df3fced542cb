"""Which container this process is in, told by its own files.

`/.dockerenv` proves nothing: it is copied with an image. Version 1 of cgroups has the id in `/proc/self/cgroup`; with
version 2 the engine mounts `/etc/hostname` and the like out of a folder that is named by the id.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

_IN_CGROUP: Final = re.compile(
    r"(?:docker[-/]|libpod-|cri-containerd-|crio-|/)([0-9a-f]{64})(?:\.scope)?(?:/|$)", re.MULTILINE
)
_IN_MOUNT: Final = re.compile(r"/(?:containers|overlay-containers|sandboxes|vfs-containers)/([0-9a-f]{64})/")
_MOUNTED: Final = ("/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/run/.containerenv")


def container_id(proc: Path = Path("/proc/self")) -> str | None:
    """The 64 hexadecimal digits of the container; None outside of one.

    Args:
        proc: The process' folder in `/proc`.
    """
    try:
        found = _IN_CGROUP.search((proc / "cgroup").read_text(encoding="utf-8", errors="replace"))
        if found is not None:
            return found[1]
        for line in (proc / "mountinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            fields = line.split()
            if len(fields) > 4 and fields[4] in _MOUNTED and (found := _IN_MOUNT.search(fields[3])):
                return found[1]
    except OSError:  # No Linux, or no /proc.
        return None
    return None
