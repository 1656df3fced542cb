"""What becomes of a record in Neptune.

Called on the backend's thread to deliver, and on any thread by `plan`. Pure functions, but for a look at the size and
the first bytes of an image. The guarantee: what is delivered and what `plan` says come from the same `fields_of`.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from tracelet.backends._artifact import ArtifactFacts
from tracelet.backends._neptune.fields import MAX_POINT_CHARS, MAX_TEXT_CHARS, Field, FieldKind, fixed
from tracelet.core.changes import Change, ChangeKind
from tracelet.core.records import (
    DEFINE_PREFIX,
    DESCRIPTION_NAME,
    GIT_COMMIT_NAME,
    STATUS_NAME,
    TAG_PREFIX,
    MetricData,
    MetricType,
)

_MAX_IMAGE_BYTES: Final = 32 * 2**20  # Beyond it the client stores an empty image.
_INT_LIMIT: Final = 2**31  # The client drops larger integers.
_IMAGES: Final = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"RIFF", b"BM")
_FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r")


class Mapped(NamedTuple):
    """What is delivered of a record, and what is different from what was logged."""

    fields: Sequence[Field] = ()
    changes: Sequence[Change] = ()


def fields_of(metric: MetricData) -> Mapped:
    """The fields of a record.

    Raises:
        OSError: Its file can't be looked at.
    """
    mapped = _MAPPINGS[metric.type](metric)
    names = [field for field in mapped.fields if field.owner and field.path != field.plain_path]
    if not names:
        return mapped
    why = "a path in Neptune has at most 1,024 bytes, no empty levels, and is not under `sys`"
    return Mapped(mapped.fields, (*mapped.changes, Change(ChangeKind.RENAMED, why, names[0].path)))


def _scalar(metric: MetricData) -> Mapped:
    if math.isfinite(metric.value):
        return Mapped([_named(metric, FieldKind.FLOAT_SERIES, metric.value)])
    field = _named(metric, FieldKind.STRING_SERIES, str(metric.value), tail="_nonfinite")
    return Mapped([field], [Change(ChangeKind.RENAMED, "Neptune has no NaN and no infinity", f"texts in {field.path}")])


def _parameter(metric: MetricData) -> Mapped:
    value, changes = metric.value, []
    if isinstance(value, (list, dict)):
        value = json.dumps(value, ensure_ascii=False)
        changes.append(Change(ChangeKind.CHANGED, "a field of Neptune holds no lists", "JSON"))
    elif value is None or (isinstance(value, float) and not math.isfinite(value)):
        value = str(value)
        changes.append(Change(ChangeKind.CHANGED, "Neptune has no None, NaN and infinity", f"the text {value!r}"))
    elif type(value) is int and not -_INT_LIMIT <= value < _INT_LIMIT:
        value = float(value) if abs(value) < 2**1023 and int(float(value)) == value else str(value)
        changes.append(Change(ChangeKind.CHANGED, "an integer in Neptune has 32 bits", f"a {type(value).__name__}"))
    if isinstance(value, str) and len(value) > MAX_TEXT_CHARS:
        value = value[:MAX_TEXT_CHARS]
        changes.append(Change(ChangeKind.CUT, "a text in Neptune has at most 16,384 characters"))
    kinds = {bool: FieldKind.BOOL, int: FieldKind.INT, float: FieldKind.FLOAT}
    return Mapped([_named(metric, kinds.get(type(value), FieldKind.STRING), value, root="parameters/")], changes)


def _text(metric: MetricData) -> Mapped:
    point = _named(metric, FieldKind.STRING_SERIES, metric.value[:MAX_POINT_CHARS])
    if len(metric.value) <= MAX_POINT_CHARS:
        return Mapped([point])
    whole = _file(metric, FieldKind.CONTENT, (metric.value, ".txt"))
    why = "a text in a series of Neptune has at most 1,000 characters"
    return Mapped([point, whole], [Change(ChangeKind.CUT, why, f"the whole text is in {whole.path}")])


def _image(metric: MetricData) -> Mapped:
    with open(metric.value, "rb") as file:
        is_image = file.read(12).startswith(_IMAGES)
    if is_image and os.path.getsize(metric.value) <= _MAX_IMAGE_BYTES:
        return Mapped([_named(metric, FieldKind.FILE_SERIES, metric.value)])
    field = _file(metric, FieldKind.FILE, metric.value)
    why = "a series of Neptune holds images of 32 MiB in PNG, JPEG, GIF, WebP or BMP"
    return Mapped([field], [Change(ChangeKind.CHANGED, why, f"a file in {field.path}")])


def _path(metric: MetricData) -> Mapped:
    kind = FieldKind.FILE_SET if os.path.isdir(metric.value) else FieldKind.FILE
    return Mapped([_file(metric, kind, metric.value)])


def _artifact(metric: MetricData) -> Mapped:
    """The file or directory, and what describes it as JSON; of a reference only that. Each version has a place."""
    facts = ArtifactFacts.of(metric)
    root, tail = "artifacts/", "" if metric.iteration is None else f"/{metric.iteration}"
    if facts.version not in (None, "v0"):  # Beside it, since no field of Neptune's has others below it.
        root, tail = "versions/", f"/{facts.version}"
    described = json.dumps(facts.described(), default=str)[:MAX_TEXT_CHARS]
    about = Field(FieldKind.STRING, metric.name, described, f"tracelet/{root}", tail, owner="artifact")
    if facts.path is None:
        return Mapped([about])
    kind = FieldKind.FILE_SET if facts.path.is_dir() else FieldKind.FILE
    return Mapped([_named(metric, kind, metric.value, root=root, tail=tail), about])


def _histogram(metric: MetricData) -> Mapped:
    field = _file(metric, FieldKind.CONTENT, (json.dumps(metric.value), ".json"))
    return Mapped([field], [Change(ChangeKind.CHANGED, "Neptune has no histograms", f"a JSON file in {field.path}")])


def _table(metric: MetricData) -> Mapped:
    text = io.StringIO()
    writer = csv.writer(text)
    for row in (metric.value["columns"], *metric.value["rows"]):
        writer.writerow([_guarded(cell) for cell in row])
    field = _file(metric, FieldKind.CONTENT, (text.getvalue(), ".csv"))
    return Mapped([field], [Change(ChangeKind.CHANGED, "Neptune has no tables", f"a CSV file in {field.path}")])


def _custom(metric: MetricData) -> Mapped:
    name, value = metric.name, metric.value
    if name.startswith(TAG_PREFIX):
        key = name.removeprefix(TAG_PREFIX)
        if not value:
            return Mapped([fixed("sys/tags", {key})])
        return Mapped([Field(FieldKind.STRING, key, str(value)[:MAX_TEXT_CHARS], root="tags/", owner="tag")])
    if name.startswith(DEFINE_PREFIX):
        series = name.removeprefix(DEFINE_PREFIX)
        return Mapped([Field(FieldKind.STRING, series, str(value["step"]), root="tracelet/x_axis/", owner="define")])
    if name == STATUS_NAME:
        return Mapped(status_fields(str(value), metric))
    facts = {DESCRIPTION_NAME: "sys/description", GIT_COMMIT_NAME: "source_code/git_commit"}
    if name in facts:
        return Mapped([fixed(facts[name], str(value)[:MAX_TEXT_CHARS])])
    return Mapped(changes=[Change(ChangeKind.DROPPED, "Neptune has no place for it")])


def status_fields(word: str, metric: MetricData | None = None) -> list[Field]:
    """How a run stands.

    Args:
        word: `running`, `finished`, `failed` or `killed`.
        metric: The record of its end.
    """
    fields = [fixed("tracelet/status", word), fixed("sys/failed", word in ("failed", "killed"))]
    if metric is not None and metric.timestamp is not None:
        fields.append(fixed("tracelet/ended", datetime.fromtimestamp(metric.timestamp, UTC)))
    error = str((metric and metric.metadata and metric.metadata.get("error")) or "")
    if error:
        fields.append(fixed("tracelet/error", error[-MAX_TEXT_CHARS:]))  # The end of a traceback says most.
    return fields


def _named(metric: MetricData, kind: FieldKind, value: Any, root: str = "", tail: str = "") -> Field:
    return Field(kind, metric.name, value, root, tail, owner=metric.type.value)


def _file(metric: MetricData, kind: FieldKind, value: Any) -> Field:
    """A file of each step: a field holds one."""
    tail = "" if metric.iteration is None else f"/{metric.iteration}"
    return _named(metric, kind, value, root="artifacts/", tail=tail)


def _guarded(cell: Any) -> Any:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA_STARTS) else cell


_MAPPINGS: Final[Mapping[MetricType, Callable[[MetricData], Mapped]]] = {
    MetricType.SCALAR: _scalar,
    MetricType.SYSTEM: _scalar,
    MetricType.PARAMETER: _parameter,
    MetricType.TEXT: _text,
    MetricType.HISTOGRAM: _histogram,
    MetricType.TABLE: _table,
    MetricType.CUSTOM: _custom,
    MetricType.IMAGE: _image,
    MetricType.FIGURE: _image,
    MetricType.ARTIFACT: _artifact,
    MetricType.TENSOR: _path,
    MetricType.AUDIO: _path,
    MetricType.VIDEO: _path,
}
