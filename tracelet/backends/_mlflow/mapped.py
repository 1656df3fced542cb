"""What a record becomes in MLflow: plain values, which `_mlflow.records` makes. For any thread."""

from __future__ import annotations

import enum
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from tracelet.backends._mlflow.api import Point
from tracelet.backends._mlflow.names import MAX_TAG_CHARS, cut, mark, storable
from tracelet.core.changes import Change, ChangeKind
from tracelet.core.records import MetricData


@final
class Show(enum.Enum):
    """How MLflow's pages show a file."""

    AS_FILE = "as file"  # Among the artifacts.
    AS_IMAGE = "as image"  # Also in the grid of images, where it can be read as one.
    AS_TABLE = "as table"  # Also where runs are compared, through the tag `mlflow.loggedArtifacts`.


@final
@dataclass(frozen=True, slots=True)
class Upload:
    """A file on its way.

    Attributes:
        path: Where among the run's artifacts.
        source: The file or directory, or the text that it shall hold.
        grid_path: For `AS_IMAGE`: the path there, without suffix.
        is_final: Whether nothing else ever comes to this path, so that a file of its size there is this one.
    """

    path: str
    source: Path | str
    show: Show = Show.AS_FILE
    grid_path: str = ""
    is_final: bool = False


@final
@dataclass(frozen=True, slots=True)
class Mapped:
    """What becomes of a record.

    Attributes:
        param: Name, key and value.
        marks: Tags about names and values that MLflow can't hold. They depend on the record's name alone.
        status: MLflow's word for the run's end, and Unix time in ms.
        changes: For `plan`.
    """

    metric: Point | None = None
    param: tuple[str, str, str] | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    marks: Mapping[str, str] = field(default_factory=dict)
    uploads: tuple[Upload, ...] = ()
    status: tuple[str, int] | None = None
    changes: tuple[Change, ...] = ()


def renamed(name: str, becomes: str) -> tuple[dict[str, str], list[Change]]:
    """The mark and the change for a name, where it had to be escaped or cut."""
    if name == becomes:
        return {}, []
    marks = {mark("tracelet.name.", name): cut(storable(name), MAX_TAG_CHARS)}
    return marks, [Change(ChangeKind.RENAMED, "MLflow's rules for names", becomes)]


def not_storable() -> Change:
    """The change for `storable`."""
    return Change(ChangeKind.CHANGED, "no database takes NUL and lone surrogates", r"an escape as \x00")


def time_ms_of(record: MetricData) -> int:
    """The record's time, as Unix time in ms; now where it has none."""
    return round(1000 * (time.time() if record.timestamp is None else record.timestamp))
