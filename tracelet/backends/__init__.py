"""The backends that come with Tracelet. Each has its own module; an entry point of the group `tracelet.backends` names it."""

from __future__ import annotations

from tracelet.core.plugins import BackendPlugin


def get_backend(name: str) -> type[BackendPlugin] | None:
    """The class of a backend that comes with Tracelet; None where there is none of that name."""
    from tracelet.backends.jsonl_backend import JsonLinesBackend

    return {"jsonl": JsonLinesBackend}.get(name)
