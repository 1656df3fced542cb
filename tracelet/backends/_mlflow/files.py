"""What becomes of texts, tables, media and artifacts in MLflow: files. Pure functions, for any thread.

A file of its own for each record: its step and its time are in the name, so that none replaces another, and one that
comes again replaces itself.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from tracelet.backends._artifact import ArtifactFacts
from tracelet.backends._mlflow.mapped import Mapped, Show, Upload, not_storable, renamed, time_ms_of
from tracelet.backends._mlflow.names import (
    MAX_TAG_CHARS,
    cut,
    digest_of,
    grid_key_of,
    mark,
    path_of,
    storable,
    suffix_of,
)
from tracelet.core.changes import Change, ChangeKind
from tracelet.core.records import MetricData, MetricType

_FOLDERS: Final = {
    MetricType.AUDIO: "audio",
    MetricType.FIGURE: "figures",
    MetricType.HISTOGRAM: "histograms",
    MetricType.IMAGE: "image_files",
    MetricType.TABLE: "tables",
    MetricType.TENSOR: "tensors",
    MetricType.TEXT: "texts",
    MetricType.VIDEO: "video",
}


def text_file(record: MetricData) -> Mapped:
    """A text file."""
    return _file(record, storable(str(record.value)), ".txt")


def histogram(record: MetricData) -> Mapped:
    """JSON: `edges` and `counts`."""
    return _json(record, record.value)


def table(record: MetricData) -> Mapped:
    """JSON as of `MlflowClient.log_table`, whose pages then show it."""
    return _json(record, {"columns": record.value["columns"], "data": record.value["rows"]}, Show.AS_TABLE)


def media(record: MetricData) -> Mapped:
    """The file as it is."""
    source = Path(record.value)
    return _file(record, source, source.suffix, Show.AS_IMAGE if record.type is MetricType.IMAGE else Show.AS_FILE)


def artifact(record: MetricData) -> Mapped:
    """The file or directory: the first version under its own name, a later one under `versions/<name>/<version>`.

    A tag for each version describes it, and is all there is of a reference.
    """
    facts = ArtifactFacts.of(record)
    path = path_of(facts.name)
    marks, changes = renamed(facts.name, path)
    if facts.type:
        marks[mark("tracelet.artifact_type.", facts.name)] = cut(storable(facts.type), MAX_TAG_CHARS)
    if facts.version not in (None, "v0"):
        path = path_of(f"versions/{facts.name}/{facts.version}")
        if facts.path is not None and facts.path.name != facts.version:  # A file, which keeps its name.
            path += f"/{path_of(facts.path.name)}"
    described = facts.described() | ({} if facts.path is None else {"path": path})
    text = storable(json.dumps(_valid(described), default=str))
    if len(text) > MAX_TAG_CHARS:
        text = json.dumps({name: value for name, value in described.items() if name != "metadata"})
    label = facts.name if facts.version is None else f"{facts.name}:{facts.version}"
    tags = {mark("tracelet.artifact.", label): cut(text, MAX_TAG_CHARS)}
    uploads = () if facts.path is None else (Upload(path, facts.path, is_final=facts.version is not None),)
    return Mapped(tags=tags, marks=marks, uploads=uploads, changes=tuple(changes))


def _file(record: MetricData, source: Path | str, suffix: str, show: Show = Show.AS_FILE) -> Mapped:
    time_ms, step = time_ms_of(record), record.iteration
    stem = str(time_ms) if step is None else f"{step:08d}_{time_ms}"
    path = path_of(record.name)
    marks, changes = renamed(record.name, path)
    path = f"{_FOLDERS[record.type]}/{path}/{stem}"
    grid_path = ""
    if show is Show.AS_IMAGE:
        # Where MLflow has a random id: a record that comes twice is one image.
        identity = digest_of(f"{record.name}\n{step}\n{time_ms}")
        marks["mlflow.loggedImages"] = "True"
        grid_path = f"images/{grid_key_of(record.name)}+step+{step or 0}+timestamp+{time_ms}+{identity}"
    if record.type is MetricType.TEXT and source != record.value:
        changes.append(not_storable())
    uploads = [Upload(path + suffix_of(suffix), source, show, grid_path)]
    if caption := (record.metadata or {}).get("caption"):
        uploads.append(Upload(f"{path}.caption.txt", storable(str(caption))))
    return Mapped(marks=marks, uploads=tuple(uploads), changes=tuple(changes))


def _json(record: MetricData, value: Any, show: Show = Show.AS_FILE) -> Mapped:
    valid = _valid(value)
    found = _file(record, json.dumps(valid, allow_nan=False), ".json", show)
    if valid == value:
        return found
    change = Change(ChangeKind.CHANGED, "JSON has no NaN and no infinities", "their texts")
    return replace(found, changes=(*found.changes, change))


def _valid(value: Any) -> Any:
    """The value without the numbers that JSON does not have: they become their texts, as in the backend `jsonl`."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {key: _valid(item) for key, item in value.items()}
    return [_valid(item) for item in value] if isinstance(value, (list, tuple)) else value
