"""The installed packages, in the form that `pip install -r` takes."""

from __future__ import annotations

import functools
import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from typing import Any

from packaging.utils import canonicalize_name

from tracelet.utils.redaction import Redactor


def requirements(path: Sequence[str], redactor: Redactor) -> list[str]:
    """A line for each distribution on the path, sorted: `name==version`, or where it came from, without credentials."""
    return [redactor.clean(line) for line in _distributions(tuple(path))]


@functools.cache
def _distributions(path: tuple[str, ...]) -> tuple[str, ...]:
    """The lines as they are: a URL may have a password.

    Reads each distribution's metadata, half a millisecond for each: once in a process, for they don't change under it.
    """
    found: dict[str, str] = {}
    for distribution in importlib.metadata.distributions(path=list(path)):
        try:
            name, version = distribution.metadata["Name"], distribution.version
            if name:
                # The first one on the path is the one that is imported.
                found.setdefault(
                    canonicalize_name(name), _line(name, version, distribution.read_text("direct_url.json"))
                )
        except Exception as error:  # noqa: BLE001 - whatever damaged metadata raises; the line says so
            found.setdefault(f"~{len(found)}", f"# a damaged distribution: {error!r:.200}")
    return tuple(found[name] for name in sorted(found))


def _line(name: str, version: str, origin_text: str | None) -> str:
    """See PEP 610."""
    plain = f"{name}=={version}"
    try:
        origin: Mapping[str, Any] = json.loads(origin_text) if origin_text else {}
        url, vcs = origin.get("url", ""), origin.get("vcs_info") or {}
        if vcs:
            return f"{name} @ {vcs['vcs']}+{url}@{vcs['commit_id']}"
        if (origin.get("dir_info") or {}).get("editable"):
            return f"# editable, {plain}: -e {url}"
        return f"{name} @ {url}" if url else plain
    except (ValueError, KeyError, AttributeError):  # No JSON, or not of this form.
        return plain
