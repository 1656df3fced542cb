"""The backends that come with Tracelet: a module each, named by an entry point of the group `tracelet.backends`."""

from __future__ import annotations

from tracelet.core.plugins import BackendPlugin


def get_backend(name: str) -> type[BackendPlugin] | None:
    """The class of a backend that comes with Tracelet; None where there is none of that name."""
    from tracelet.backends.jsonl_backend import JsonLinesBackend

    return {"jsonl": JsonLinesBackend}.get(name)
