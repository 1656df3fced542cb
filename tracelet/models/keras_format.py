"""Keras: the `.keras` file. On the user's thread, with whatever backend Keras has."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, final

from tracelet.errors import UsageError
from tracelet.models.example import describe
from tracelet.models.format import SavedModel, import_line

_WEIGHTS: Final = "model.keras"


@final
class KerasFormat:
    """See the module docstring."""

    framework: Final = "keras"
    packages: Final = ("keras", "jax", "torch", "tensorflow")

    def save(self, model: Any, directory: Path, config: Mapping[str, Any], processor: Any) -> SavedModel:
        """As `ModelFormat.save`."""
        import keras  # type: ignore[import-untyped]  # Keras ships no types.

        if not isinstance(model, keras.Model):
            raise UsageError(f"log_model() takes a keras.Model, not {type(model).__qualname__}")
        if not model.built:
            raise UsageError("the Keras model has no weights yet: build it, or call it once, before log_model()")
        model.save(directory / _WEIGHTS)
        cls = type(model)
        if cls.__module__.partition(".")[0] == "keras":
            code = f'import keras\n\nmodel = keras.saving.load_model("{_WEIGHTS}")'
        else:
            own = f"{{{cls.__name__!r}: {cls.__name__}}}"
            code = f"import keras\n{import_line(cls)}\n\n"
            code += f'model = keras.saving.load_model("{_WEIGHTS}", custom_objects={own})'
        is_graph = isinstance(model, keras.Sequential) or type(model).__name__ == "Functional"
        return SavedModel(
            weights=_WEIGHTS,
            code=code,
            parameters=model.count_params(),
            inputs=describe(model.inputs) if is_graph else None,
            outputs=describe(model.outputs) if is_graph else None,
            details={"backend": keras.backend.backend()},
        )

    def load(self, directory: Path, card: Mapping[str, Any], into: Any) -> Any:
        """As `ModelFormat.load`; `into` is the model's class, or classes by name, where it has own ones."""
        import keras

        own = {into.__name__: into} if isinstance(into, type) else into
        return keras.saving.load_model(directory / _WEIGHTS, custom_objects=own, safe_mode=True)
