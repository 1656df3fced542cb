"""The contract of a model format, and which one a model has. Called on the user's thread; imports no framework.

A framework that Tracelet does not know is added by an object with the methods of `ModelFormat`, given to each call:
`log_model(model, name, model_format=MyFormat())`. So nothing is loaded that nobody named.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from tracelet.errors import UsageError

_FORMATS: Final = {
    "flax": "tracelet.models.flax_format:FlaxFormat",
    "keras": "tracelet.models.keras_format:KerasFormat",
    "peft": "tracelet.models.pretrained_format:PeftFormat",
    "torch": "tracelet.models.torch_format:TorchFormat",
    "transformers": "tracelet.models.pretrained_format:TransformersFormat",
}
_PACKAGES: Final = {
    **{name: name for name in _FORMATS},
    **dict.fromkeys(["jax", "jaxlib", "numpy"], "flax"),  # Leaves of a tree of parameters.
    **dict.fromkeys(["lightning", "pytorch_lightning"], "torch"),
}
"""Which format the classes of a package have."""


@dataclass(frozen=True)
class SavedModel:
    """What a format has to say of a model that it has saved.

    Attributes:
        weights: The file with the weights, relative to the directory.
        code: Python that loads it as `model`, for a process whose working directory is the model's.
        parameters: How many numbers are trained or kept; None where nobody knows.
        config: What the model's class is called with.
        inputs: Shapes and types where the framework knows them, as `example.describe` gives them.
        outputs: The same.
        details: What else loading needs: JSON-like.
    """

    weights: str
    code: str
    parameters: int | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    inputs: Any = None
    outputs: Any = None
    details: Mapping[str, Any] = field(default_factory=dict)


class ModelFormat(Protocol):
    """How the models of one framework are written and read."""

    @property
    def framework(self) -> str:
        """What `model.json` calls the framework."""

    @property
    def packages(self) -> Sequence[str]:
        """The distributions whose versions are noted."""

    def save(self, model: Any, directory: Path, config: Mapping[str, Any], processor: Any) -> SavedModel:
        """Write a model into an empty directory. May raise anything; the user gets it as a `UsageError`.

        Args:
            model: The model.
            directory: Where to.
            config: What the user says that the model's class is called with.
            processor: A tokenizer or processor, if the user gave one.
        """

    def load(self, directory: Path, card: Mapping[str, Any], into: Any) -> Any:
        """Read a model.

        Args:
            directory: What `save` wrote; maybe a stranger's.
            card: Its `model.json`.
            into: What the user gave to take the weights; None: nothing.

        Raises:
            UsageError: `into` is needed, and is missing or another kind of model.
        """


def format_of(model: Any) -> ModelFormat:
    """The format of a model, found by the packages that its classes come from.

    Raises:
        UsageError: There is none.
    """
    for cls in type(_leaf(model)).__mro__:
        package = cls.__module__.partition(".")[0]
        if package in _PACKAGES:
            return format_named(_PACKAGES[package])
    cls = type(model)
    raise UsageError(
        f"log_model() knows no safe format for {cls.__module__}.{cls.__qualname__}; it knows models of "
        "torch, Lightning, transformers, PEFT, Keras and Flax, and trees of their arrays. Give it a format of your own "
        "(model_format=…, see tracelet.models.format.ModelFormat), or save the model yourself, without pickle, and "
        'call log_artifact(path, name, type="model")'
    )


def format_named(framework: str) -> ModelFormat:
    """The format of a framework.

    Raises:
        UsageError: Tracelet has none.
    """
    if framework not in _FORMATS:
        raise UsageError(
            f"this is a model of {framework!r:.100}, which Tracelet has no format for: give it by model_format=…"
        )
    module, _, name = _FORMATS[framework].partition(":")
    made: ModelFormat = getattr(importlib.import_module(module), name)()
    return made


def _leaf(model: Any) -> Any:
    """Of a tree of arrays its first array; anything else as it is."""
    while isinstance(model, dict | list | tuple) and model:
        model = next(iter(model.values())) if isinstance(model, dict) else model[0]
    return model


def is_json(value: Any) -> bool:
    """Whether JSON can hold a value as it is."""
    try:
        return bool(json.loads(json.dumps(value, allow_nan=False)) == value)
    except (TypeError, ValueError, RecursionError):
        return False


def import_line(cls: type) -> str:
    """The line that imports a class where the model is loaded."""
    module = cls.__module__
    if module == "__main__":
        import sys

        module = Path(getattr(sys.modules["__main__"], "__file__", None) or "your_program").stem
    name = cls.__qualname__.partition(".")[0]
    if "<locals>" in cls.__qualname__:
        return f"# The class {cls.__qualname__} was made in a function of {module}: bring it here."
    return f"from {module} import {name}"


def call(cls: type, config: Mapping[str, Any], *more: str) -> str:
    """The expression that makes an object of a class."""
    if all(name.isidentifier() for name in config):
        arguments = [f"{name}={value!r}" for name, value in config.items()]
    else:
        arguments = [f"**{dict(config)!r}"]
    return f"{cls.__qualname__.rpartition('<locals>.')[2]}({', '.join([*arguments, *more])})"
