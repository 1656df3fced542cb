"""What flows through Tracelet: one record type, for every framework and every backend.

A source (a framework adapter, a collector, a plain loop) makes a `MetricData`; the journal keeps it; a delivery worker
reads it back and hands it to a sink (a backend). The shape of `value` depends on `type` alone:

| type           | `value` in a delivered record                                                             |
|----------------|-------------------------------------------------------------------------------------------|
| SCALAR, SYSTEM | `float`; NaN and infinities as they are                                                   |
| PARAMETER      | `str`, `int`, `float`, `bool`, `None`, or a list or dict of these                         |
| TEXT           | `str`                                                                                     |
| HISTOGRAM      | `{"edges": [n + 1 floats], "counts": [n floats], "nan": int, "inf": int}`                 |
| TABLE          | `{"columns": [str], "rows": [[…]]}`                                                       |
| CUSTOM         | as PARAMETER; names under `tracelet/` are Tracelet's own (`TAG_PREFIX`, `STATUS_NAME`, …) |
| ARTIFACT       | as all others; or, if `is_reference`, the URI of something that lies elsewhere            |
| all others     | `str`: the absolute path of a file or directory inside the run directory                  |
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, final

TAG_PREFIX = "tracelet/tag/"
"""A tag travels to the backends as a CUSTOM record of this prefix and its key; the value is a `str`."""

STATUS_NAME = "tracelet/status"
"""The run's end travels to the backends as a CUSTOM record of this name: `finished`, `failed` or `killed`.

It is the last record that a backend gets before `stop()`, whenever the run has ended, and comes at no other time.
`metadata["error"]` has the traceback of a failed run, and `timestamp` the time of the end.
"""

DESCRIPTION_NAME = "tracelet/description"
"""What the run is about travels to the backends as a CUSTOM record of this name; the value is a `str`."""

GIT_COMMIT_NAME = "tracelet/git_commit"
"""The commit that is checked out travels to the backends as a CUSTOM record of this name: 40 hex digits."""

USED_NAME = "tracelet/used_artifact"
"""What a run reads travels to the backends as a CUSTOM record of this name: `{"name": …, "version": …, …}`."""

DEFINE_PREFIX = "tracelet/define/"
"""`define_metric` travels as a CUSTOM record of this prefix and the series' name; the value is `{"step": name}`."""

REWIND_NAME = "tracelet/rewind"
"""The SYSTEM series of the steps that a run has gone back to: what it recorded above them before is superseded."""

SEGMENT_NAME = "tracelet/segment"
"""The SYSTEM series that counts the trainings of one run, from the second on: each begins at step 0 again."""

PLUGIN_ERRORS_NAME = "tracelet/plugin_errors"
"""The SYSTEM series in which each error of a plug-in counts 1.0; `metadata["plugin"]` names the plug-in."""


@final
class MetricType(enum.Enum):
    """What a record holds. See the module's table for the shape of the value."""

    SCALAR = "scalar"
    PARAMETER = "parameter"
    ARTIFACT = "artifact"
    SYSTEM = "system"
    TENSOR = "tensor"
    CUSTOM = "custom"
    HISTOGRAM = "histogram"
    IMAGE = "image"
    TEXT = "text"
    FIGURE = "figure"
    AUDIO = "audio"
    VIDEO = "video"
    TABLE = "table"


@final
@dataclass(frozen=True, slots=True)
class MetricData:
    """One record.

    Attributes:
        name: The series, parameter, tag or artifact. Levels are divided by `/`.
        value: See the module's table.
        type: What the record holds.
        iteration: The step, 0 included. None where a record has none (a parameter, say).
        timestamp: Unix time in seconds. None means now, at the time it is recorded.
        source: Who made the record (`lightning`, `docker_collector`, …).
        metadata: Anything else that belongs to this one record; JSON-like.
    """

    name: str
    value: Any
    type: MetricType
    iteration: int | None = None
    timestamp: float | None = None
    source: str | None = None
    metadata: Mapping[str, Any] | None = None


def is_status(metric: MetricData) -> bool:
    """Whether a record tells the end of a run, or of an attempt."""
    return metric.name == STATUS_NAME and metric.type is MetricType.CUSTOM


def is_reference(value: Any, metadata: Any) -> bool:
    """Whether an ARTIFACT record's value is the URI of what lies elsewhere: nothing of it is in the run directory.

    It has a scheme, so that no path passes for one: a run may come from a stranger.
    """
    given = metadata.get("reference") if isinstance(metadata, Mapping) else None
    return isinstance(value, str) and value == given and "://" in value


class MetricSource(ABC):
    """Something that makes records: a framework integration, a collector."""

    @abstractmethod
    def get_source_id(self) -> str:
        """The name that its records carry as `source`."""

    @abstractmethod
    def emit_metric(self, metric: MetricData) -> None:
        """Hand one record to the experiment. Never raises because of a backend or the disk."""


class MetricSink(Protocol):
    """Something that takes records: an experiment, the orchestrator, a test's list."""

    def emit_metric(self, metric: MetricData) -> None:
        """Take one record."""
