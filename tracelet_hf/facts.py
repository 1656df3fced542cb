"""What is known of a training before it begins: arguments and the model's configurations, without credentials.

Called on the training thread as a run begins. Nothing here changes the arguments or the model: Hugging Face's own
`to_dict` hides `*_token` alone, and writes into nested arguments.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from transformers import TrainingArguments
from transformers.trainer_pt_utils import get_model_param_count

from tracelet.utils.redaction import redacted

_CONFIGS = {"config": "config", "generation_config": "generation", "peft_config": "peft"}
"""A model's attributes, and how they are called below `model/`. A quantization is a part of `config`."""


def parameters(args: TrainingArguments, model: Any) -> Iterator[tuple[str, Any]]:
    """Each training argument under its own name, and the model's facts below `model/`."""
    given = {field.name: getattr(args, field.name) for field in dataclasses.fields(args) if field.init}
    made = {"train_batch_size": args.train_batch_size, "world_size": args.world_size}
    yield from redacted(given | made)
    if model is not None:
        yield from redacted(_model_facts(model), "model")


def _model_facts(model: Any) -> dict[str, Any]:
    total, trainable = (
        get_model_param_count(model, trainable_only=only)  # type: ignore[no-untyped-call]  # It has no annotations.
        for only in (False, True)
    )
    counts = {"parameters": total, "trainable_parameters": trainable, "frozen_parameters": total - trainable}
    configs = {name: _fields(getattr(model, attribute, None)) for attribute, name in _CONFIGS.items()}
    return {"class": type(model).__name__, **counts, **{name: fields for name, fields in configs.items() if fields}}


def _fields(config: Any) -> Any:
    """A configuration as a mapping; one of PEFT is a mapping of adapters' names to theirs."""
    if isinstance(config, dict):
        return {key: _fields(value) for key, value in config.items()}
    to_dict = getattr(config, "to_dict", None)
    return config if to_dict is None else to_dict()
