"""The backends that come with Tracelet: a module each, named by an entry point of the group `tracelet.backends`."""

from __future__ import annotations

from tracelet.core.plugins import BackendPlugin


def get_backend(name: str) -> type[BackendPlugin] | None:
    """The class of a backend that comes with Tracelet; None where there is none of that name."""
    from tracelet.backends.clearml_backend import ClearMLBackend
    from tracelet.backends.jsonl_backend import JsonLinesBackend
    from tracelet.backends.mlflow_backend import MLflowBackend
    from tracelet.backends.neptune_backend import NeptuneBackend
    from tracelet.backends.wandb_backend import WandbBackend

    backends: tuple[type[BackendPlugin], ...] = (
        ClearMLBackend, JsonLinesBackend, MLflowBackend, NeptuneBackend, WandbBackend,
    )  # fmt: skip
    return {backend.get_metadata().name: backend for backend in backends}.get(name)
