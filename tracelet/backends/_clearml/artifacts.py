"""What a logged artifact becomes in ClearML: an artifact of the task, or a model of its own. For any thread.

Models and checkpoints are ClearML's output models: found, tagged, compared and served apart from the task. A model of
ClearML's has no version, so each version is a model, `net`, `net: v1`, …, and its tags are the aliases.

Guarantee: the same record gives the same names each time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self, final

from tracelet.backends._artifact import ArtifactFacts
from tracelet.backends._clearml.names import clean, long_enough, time_ms, user_property
from tracelet.core.records import MetricData, MetricType

_MODEL_TYPES: Final = {"model", "checkpoint"}
_FRAMEWORKS: Final = {  # As ClearML spells what `log_model` says.
    "torch": "PyTorch",
    "transformers": "PyTorch",
    "peft": "PyTorch",
    "keras": "Keras",
    "flax": "Flax",
    ".pt": "PyTorch",
    ".pth": "PyTorch",
    ".keras": "Keras",
    ".onnx": "ONNX",
}


@final
@dataclass(frozen=True, slots=True)
class Model:
    """What ClearML is told of a model.

    Attributes:
        family: The name that all its versions share.
    """

    family: str
    facts: ArtifactFacts

    @property
    def tags(self) -> list[str]:
        """The aliases."""
        return [clean(alias) for alias in self.facts.aliases]

    @property
    def framework(self) -> str | None:
        """As `log_model` says, or by the end of the file's name; None if unknown."""
        told = self.facts.metadata.get("framework")
        place = self.facts.path or Path(self.facts.reference or "")
        return _FRAMEWORKS.get(str(told), str(told)) if told else _FRAMEWORKS.get(place.suffix.lower())

    def described(self) -> tuple[str, list[dict[str, str]]]:
        """A comment with all that is known, a line each; and the same as metadata, the user's own one by one.

        An offline session has the comment alone. Reads the files that have no digest yet.
        """
        texts = {name: clean(text) for name, text in self.facts.hashed().texts().items()}
        pairs = {clean(str(key)): value for key, value in self.facts.metadata.items()}
        pairs |= {name: text for name, text in texts.items() if name != "metadata"}
        comment = "\n".join(f"{name}: {text}" for name, text in texts.items())
        return comment, [_pair(key, value) for key, value in pairs.items()]


@final
@dataclass(frozen=True, slots=True)
class Artifact:
    """A file or directory to keep.

    Attributes:
        key: Its name in the task.
        source: A URI where it lies elsewhere: ClearML is told of the place alone.
        kind: The type that the user gave it.
        details: What is shown beside it.
        model: None if it is none.
    """

    key: str
    source: Path | str
    kind: str
    time_s: int
    details: Mapping[str, str]
    model: Model | None

    @classmethod
    def of(cls, metric: MetricData) -> Self:
        """What a record of an artifact or a tensor becomes."""
        facts, name = ArtifactFacts.of(metric), user_property(metric.name)
        details = {fact: clean(text) for fact, text in facts.texts().items()}
        key = name
        if metric.type is MetricType.TENSOR and metric.iteration is not None:
            key = f"{name}: step {metric.iteration}"  # A later artifact replaces one of the same name.
        elif facts.version not in (None, "v0"):
            key = f"{name}: {facts.version}"
        model = None
        if facts.type in _MODEL_TYPES and facts.version is not None:  # Old runs have none, and what replaces another.
            key, model = long_enough(key), Model(name, facts)
        kind = facts.type or metric.type.value
        return cls(key, facts.reference or Path(metric.value), kind, time_ms(metric) // 1000, details, model)

    @property
    def is_directory(self) -> bool:
        """ClearML gets a zip then."""
        return isinstance(self.source, Path) and self.source.is_dir()


def _pair(key: str, value: object) -> dict[str, str]:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return {"key": key, "type": type(value).__name__, "value": clean(text)}
