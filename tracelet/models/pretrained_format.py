"""transformers and PEFT: `save_pretrained`, which writes safetensors. On the user's thread."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, final

from tracelet.errors import UsageError
from tracelet.models.format import SavedModel, import_line

_PROCESSOR: Final = "processor"


@final
class TransformersFormat:
    """A `PreTrainedModel`, with its tokenizer or processor beside it."""

    framework: Final = "transformers"
    packages: Final = ("transformers", "torch", "safetensors")

    def save(self, model: Any, directory: Path, config: Mapping[str, Any], processor: Any) -> SavedModel:
        """As `ModelFormat.save`."""
        from transformers import PreTrainedModel

        if not isinstance(model, PreTrainedModel):
            raise UsageError(
                f"log_model() takes a PreTrainedModel, not {type(model).__qualname__}; "
                "a tokenizer or processor is given beside it: log_model(model, name, processor=…)"
            )
        model.save_pretrained(directory)
        cls = type(model)
        is_theirs = cls.__module__.startswith("transformers.")
        code = f"{f'from transformers import {cls.__name__}' if is_theirs else import_line(cls)}\n\n"
        code += f'model = {cls.__name__}.from_pretrained(".", use_safetensors=True)'
        saved = SavedModel(
            weights=_weights(directory), code=code, parameters=model.num_parameters(), details={"is_theirs": is_theirs}
        )
        return _with_processor(processor, directory, saved)

    def load(self, directory: Path, card: Mapping[str, Any], into: Any) -> Any:
        """As `ModelFormat.load`; `into` is the model's class where that is none of transformers' own."""
        import transformers

        _require_safetensors(directory, "model")
        name = card["class"].rpartition(":")[2]
        cls = (
            into
            if isinstance(into, type)
            else getattr(transformers, name, None)
            if card["details"]["is_theirs"]
            else None
        )
        if not (isinstance(cls, type) and issubclass(cls, transformers.PreTrainedModel)):
            raise UsageError(f"import the class {name:.200} and give it: load_model(…, into={name:.200})")
        return cls.from_pretrained(os.fspath(directory), use_safetensors=True, trust_remote_code=False)


@final
class PeftFormat:
    """The adapter of a `PeftModel`; the model that it adapts is not in there."""

    framework: Final = "peft"
    packages: Final = ("peft", "transformers", "torch", "safetensors")

    def save(self, model: Any, directory: Path, config: Mapping[str, Any], processor: Any) -> SavedModel:
        """As `ModelFormat.save`."""
        from peft import PeftModel

        if not isinstance(model, PeftModel):
            raise UsageError(f"log_model() takes a PeftModel, not {type(model).__qualname__}")
        model.save_pretrained(os.fspath(directory), safe_serialization=True)
        base = model.get_base_model()
        origin = getattr(base, "name_or_path", "")
        cls = type(base)
        code = "from peft import PeftModel\n"
        if cls.__module__.startswith("transformers."):
            code += f"from transformers import {cls.__name__}\n\nbase = {cls.__name__}.from_pretrained({origin!r})\n"
        else:
            code += f"{import_line(cls)}\n\nbase = {cls.__name__}()  # As it was before the adapter came.\n"
        code += 'model = PeftModel.from_pretrained(base, ".")'
        trained = sum(value.numel() for value in model.parameters() if value.requires_grad)
        saved = SavedModel(weights=_weights(directory), code=code, parameters=trained, details={"base": origin})
        return _with_processor(processor, directory, saved)

    def load(self, directory: Path, card: Mapping[str, Any], into: Any) -> Any:
        """As `ModelFormat.load`; `into` is the model that was adapted."""
        from peft import PeftModel

        _require_safetensors(directory, "adapter_model")
        if into is None:
            raise UsageError(
                f"this is an adapter: give the model that it adapts, into=… ({card['details']['base']!r:.200})"
            )
        return PeftModel.from_pretrained(into, os.fspath(directory))


def _with_processor(processor: Any, directory: Path, saved: SavedModel) -> SavedModel:
    if processor is None:
        return saved
    processor.save_pretrained(directory)
    cls = type(processor)
    is_theirs = cls.__module__.startswith("transformers.")
    line = f"from transformers import {cls.__name__}" if is_theirs else import_line(cls)
    code = f'{saved.code}\n\n{line}\n\n{_PROCESSOR} = {cls.__name__}.from_pretrained(".")'
    return SavedModel(saved.weights, code, saved.parameters, details=saved.details)


def _weights(directory: Path) -> str:
    """The file of the weights; of several the list of them.

    Raises:
        UsageError: They were not written as safetensors.
    """
    found = sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*.safetensors*"))
    if not found:
        raise UsageError("the model was not saved as safetensors")
    return next((name for name in found if name.endswith(".index.json")), found[0])


def _require_safetensors(directory: Path, stem: str) -> None:
    """Refuse a directory whose weights would be unpickled."""
    if not any(directory.glob(f"{stem}*.safetensors")):
        raise UsageError(f"{directory} has no weights as safetensors, and others are not loaded")
