"""A model to a directory, and back. Called on the user's thread."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from tracelet.errors import TraceletError, UsageError
from tracelet.models.card import read_card, versions, write_card
from tracelet.models.example import describe, save_example
from tracelet.models.format import ModelFormat, format_named, format_of, is_json
from tracelet.utils.redaction import Redactor

_MAX_SOURCE_BYTES: Final = 1 << 20


class _Kept(Protocol):
    @property
    def path(self) -> Path | None: ...


def save_model(
    model: Any,
    directory: Path,
    *,
    input_example: Any = None,
    output_example: Any = None,
    config: Mapping[str, Any] | None = None,
    processor: Any = None,
    model_format: ModelFormat | None = None,
    redactor: Redactor | None = None,
) -> dict[str, Any]:
    """Write a model, its card and the source of its class into an empty directory; returns what the card says.

    Raises:
        UsageError: The model can't be saved; the text says why.
        MissingDependencyError: A package that its format needs is not installed.
        OSError: The disk does not take it.
    """
    if config is not None and not is_json(config):
        raise UsageError("the config of log_model() is what the model's class is called with, as JSON can hold it")
    chosen = model_format or format_of(model)
    try:
        saved = chosen.save(model, directory, dict(config or {}), processor)
    except (TraceletError, OSError):
        raise
    except Exception as error:  # A framework may raise anything.
        raise UsageError(f"the {chosen.framework} model can't be saved: {type(error).__name__}: {error}") from error
    card = {
        "framework": chosen.framework,
        "class": f"{type(model).__module__}:{type(model).__qualname__}",
        "versions": versions(chosen.packages),
        "parameters": saved.parameters,
        "weights": saved.weights,
        "config": dict(saved.config),
        "signature": {
            "inputs": saved.inputs if input_example is None else describe(input_example),
            "outputs": saved.outputs if output_example is None else describe(output_example),
        },
        "input_example": None if input_example is None else save_example(input_example, directory),
        "source": _copy_source(type(model), directory, redactor or Redactor()),
        "details": dict(saved.details),
        "code": saved.code,
    }
    write_card(directory, card)
    return card


def load_model(
    source: str | os.PathLike[str] | _Kept, into: Any = None, *, model_format: ModelFormat | None = None
) -> Any:
    """Read a model that `log_model` kept. No pickle is read, and nothing is imported that a file names.

    Args:
        source: The artifact, or the path of its directory.
        into: What takes the weights. torch: the module; without one you get the state dict. PEFT: the model that was
            adapted. Flax: a state or NNX module; without one you get the tree of arrays. transformers and Keras: the
            model's class, where it is your own.
        model_format: The format that it was logged with, where it was one of your own.

    Raises:
        UsageError: There is no model, or `into` is missing or does not fit.
    """
    place = Path(source) if isinstance(source, str | os.PathLike) else source.path
    if place is None:
        raise UsageError("the artifact is a reference: its files are not in the run")
    card = read_card(place)
    chosen = model_format or format_named(card["framework"])
    try:
        return chosen.load(place, card, into)
    except TraceletError:
        raise
    except Exception as error:  # A framework may raise anything, and the files may be a stranger's.
        raise UsageError(f"the model in {place} can't be loaded: {type(error).__name__}: {error}") from error


def _copy_source(cls: type, directory: Path, redactor: Redactor) -> str | None:
    """Keep the file that defines a class of the user's own, as a text without credentials; nobody runs it."""
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    libraries = {sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")}
    if file is None or not file.endswith(".py") or any(Path(file).is_relative_to(place) for place in libraries):
        return None
    try:
        data = Path(file).read_bytes()
        if len(data) > _MAX_SOURCE_BYTES:
            return None
        target = directory / "source" / Path(file).name
        target.parent.mkdir()
        target.write_text(redactor.clean(data.decode("utf-8", "replace")), encoding="utf-8")
    except FileNotFoundError:  # A module that was made from something else.
        return None
    return f"source/{target.name}"
