"""What becomes of a record in MLflow: one pure function, for delivery and for `plan` alike. For any thread.

MLflow has metrics, parameters, tags and files. A name that it forbids is escaped, and a value that it can't hold is
stored as near as possible; the tags that begin with `tracelet.` then say so (`Mapped.marks`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from tracelet.backends._mlflow.api import MAX_FLOAT, Point
from tracelet.backends._mlflow.files import artifact, histogram, media, table, text_file
from tracelet.backends._mlflow.mapped import Mapped, Upload, not_storable, renamed, time_ms_of
from tracelet.backends._mlflow.names import (
    KEYS,
    MAX_PARAM_CHARS,
    MAX_TAG_CHARS,
    cut,
    digest_of,
    mark,
    path_of,
    storable,
)
from tracelet.core.changes import Change, ChangeKind
from tracelet.core.records import (
    DEFINE_PREFIX,
    DESCRIPTION_NAME,
    GIT_COMMIT_NAME,
    REWIND_NAME,
    STATUS_NAME,
    TAG_PREFIX,
    USED_NAME,
    MetricData,
    MetricType,
)

_FACTS: Final = {DESCRIPTION_NAME: "mlflow.note.content", GIT_COMMIT_NAME: "mlflow.source.git.commit"}
_RESERVED: Final = "tracelet."
_STATUSES: Final = {"finished": "FINISHED", "failed": "FAILED", "killed": "KILLED"}


def mapped(record: MetricData) -> Point | Mapped:
    """What becomes of a record. A number that MLflow holds as it is gives its point alone, which costs less."""
    return _MAKERS.get(record.type, media)(record)


def _number(record: MetricData) -> Point | Mapped:
    name, value, step = record.name, record.value, record.iteration
    key = KEYS.escape(name)
    point = Point(key, value, time_ms_of(record), step or 0)
    if key == name and step is not None and not math.isinf(value) and name != REWIND_NAME:
        return point
    marks, changes = renamed(name, key)
    tags = {"tracelet.rewound_to": f"{value:.0f}"} if name == REWIND_NAME else {}
    if math.isinf(value):
        marks[mark("tracelet.infinite.", name)] = f"{MAX_FLOAT!r} and its negative stand for the infinities"
        point = point._replace(value=math.copysign(MAX_FLOAT, value))
        changes.append(Change(ChangeKind.CHANGED, "MLflow has no infinity", repr(point.value)))
    if step is None:
        changes.append(Change(ChangeKind.CHANGED, "a point of MLflow has a step", "step 0"))
    return Mapped(point, tags=tags, marks=marks, changes=tuple(changes))


def _param(record: MetricData) -> Mapped:
    name, key = record.name, KEYS.escape(record.name)
    marks, changes = renamed(name, key)
    text = storable(str(record.value))
    if record.value is None or not isinstance(record.value, (str, int, float)):
        changes.append(Change(ChangeKind.CHANGED, "a parameter of MLflow is a text", f"{text:.200}"))
    elif text != str(record.value):
        changes.append(not_storable())
    value = cut(text, MAX_PARAM_CHARS)
    if value == text:
        return Mapped(param=(name, key, value), marks=marks, changes=tuple(changes))
    path = f"params/{path_of(name)}.{digest_of(text)}.txt"
    why = f"a parameter of MLflow has {MAX_PARAM_CHARS} characters at most"
    changes.append(Change(ChangeKind.CUT, why, f"its beginning; all of it in the artifact {path}"))
    return Mapped(param=(name, key, value), marks=marks, uploads=(Upload(path, text),), changes=tuple(changes))


def _custom(record: MetricData) -> Mapped:
    name, value = record.name, record.value
    if name.startswith(TAG_PREFIX):
        name = name.removeprefix(TAG_PREFIX)
        key = KEYS.escape(name)
        if key.startswith(_RESERVED):
            key = f"_x0074_{key[1:]}"  # `unescape` knows it.
        marks, changes = renamed(name, key)
        tag = _tag(key, str(value))
        return replace(tag, marks=marks, changes=(*changes, *tag.changes))
    if name.startswith(DEFINE_PREFIX) and isinstance(value, Mapping):
        return _tag(mark("tracelet.step.", name.removeprefix(DEFINE_PREFIX)), str(value.get("step")))
    if name == USED_NAME and isinstance(value, Mapping):
        used = {key: item for key, item in value.items() if item is not None}
        return _tag(mark("tracelet.used_artifact.", f"{used.get('name')}:{used.get('version')}"), json.dumps(used))
    if name in _FACTS:
        return _tag(_FACTS[name], str(value))
    if name == STATUS_NAME and value in _STATUSES:
        error = (record.metadata or {}).get("error")
        tags = {"tracelet.error": cut(storable(str(error)), MAX_TAG_CHARS)} if error else {}
        return Mapped(tags=tags, status=(_STATUSES[value], time_ms_of(record)))
    return Mapped(changes=(Change(ChangeKind.DROPPED, "MLflow has no place for it"),))


def _tag(key: str, value: str) -> Mapped:
    text = storable(value)
    changes = [] if text == value else [not_storable()]
    if len(text) > MAX_TAG_CHARS:
        why = f"a tag of MLflow has {MAX_TAG_CHARS} characters at most"
        changes.append(Change(ChangeKind.CUT, why, "its beginning"))
    return Mapped(tags={key: cut(text, MAX_TAG_CHARS)}, changes=tuple(changes))


_MAKERS: Final[Mapping[MetricType, Callable[[MetricData], Point | Mapped]]] = {
    MetricType.SCALAR: _number,
    MetricType.SYSTEM: _number,
    MetricType.PARAMETER: _param,
    MetricType.CUSTOM: _custom,
    MetricType.ARTIFACT: artifact,
    MetricType.TEXT: text_file,
    MetricType.HISTOGRAM: histogram,
    MetricType.TABLE: table,
}
"""All others are files."""
