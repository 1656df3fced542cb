"""What becomes of a record in ClearML. Called on the backend's thread for delivery, and on any for `plan`.

Guarantee: one function says both what is sent and what is changed, so that the two cannot disagree; it touches neither
a file nor the network.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, final

from tracelet.backends._clearml import plots
from tracelet.backends._clearml.artifacts import Artifact
from tracelet.backends._clearml.names import (
    NAMES,
    PROPERTIES,
    clean,
    curve,
    is_plain_curve,
    is_plain_parameter,
    parameter,
    time_ms,
    user_property,
)
from tracelet.core.changes import Change, ChangeKind
from tracelet.core.records import (
    DEFINE_PREFIX,
    DESCRIPTION_NAME,
    GIT_COMMIT_NAME,
    TAG_PREFIX,
    MetricData,
    MetricType,
)

_LARGEST: Final = 3.4028234663852886e38  # The server's index holds 32 bits, and refuses a batch with a larger value.


@final
@dataclass(frozen=True, slots=True)
class Sample:
    """A file that ClearML shows beside the curves (a debug sample).

    Attributes:
        name: As the record has it.
        event: Lacks the file's place alone.
        source: The file, or what is to be in it.
    """

    name: str
    event: dict[str, Any]
    source: Path | bytes
    suffix: str


@final
@dataclass(slots=True)
class Parcel:
    """What a batch of records becomes.

    Attributes:
        events: Points, plots and console lines, as `events.add_batch` takes them, without the task.
        params: Hyperparameters and user properties, as `tasks.edit_hyper_params` takes them.
        fields: Of the task itself, as `tasks.edit` takes them.
    """

    events: list[dict[str, Any]] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    params: list[dict[str, str]] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    fields: dict[str, Any] = field(default_factory=dict)
    artifacts: list[Artifact] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)

    def add(self, metric: MetricData) -> None:
        """Put a record in."""
        kind, value = metric.type, metric.value
        if kind in (MetricType.SCALAR, MetricType.SYSTEM):
            self._add_point(metric)
        elif kind is MetricType.PARAMETER:
            self._add_parameter(metric)
        elif kind is MetricType.CUSTOM:
            self._add_custom(metric)
        elif kind in (MetricType.HISTOGRAM, MetricType.TABLE):
            title, series = curve(metric.name)
            is_table = kind is MetricType.TABLE
            plot = plots.table(title, value) if is_table else plots.histogram(title, series, value)
            self.events.append(self._event("plot", metric, plot_str=plot))
        elif kind is MetricType.TEXT:
            self.samples.append(self._sample(metric, clean(value).encode(), ".txt"))
        elif kind in (MetricType.ARTIFACT, MetricType.TENSOR):
            self._add_artifact(metric)
        else:
            self.samples.append(self._sample(metric, Path(value), "".join(Path(value).suffixes[-2:])))

    def _add_point(self, metric: MetricData) -> None:
        value = metric.value
        if abs(value) <= _LARGEST:  # False for a NaN.
            self.events.append(self._event("training_stats_scalar", metric, value=value))
            return
        what = "NaN" if math.isnan(value) else "infinite" if math.isinf(value) else "too large"
        message = f"{metric.name} is {value} at step {metric.iteration or 0}"
        self.tags.append(what)
        self.events.append({"type": "log", "timestamp": time_ms(metric), "level": "WARNING", "msg": clean(message)})
        limit = "beyond the 32 bits of ClearML's index" if what == "too large" else "no number for ClearML"
        self._change(ChangeKind.DROPPED, f"{value} is {limit}", f"the console line '{message}', and the tag '{what}'")

    def _add_parameter(self, metric: MetricData) -> None:
        section, key = parameter(metric.name)
        if not is_plain_parameter(metric.name):
            self._keep_name(f"{section} | {key}", metric.name)
        value = metric.value
        text = json.dumps(value) if isinstance(value, (list, dict)) else "" if value is None else str(value)
        self._param(section, key, text, type(value).__name__)

    def _add_custom(self, metric: MetricData) -> None:
        name, value = metric.name, metric.value
        if name.startswith(TAG_PREFIX):
            key = name.removeprefix(TAG_PREFIX)
            if value:
                self._param(PROPERTIES, user_property(key), str(value), "str")
            else:
                self.tags.append(clean(key))
        elif name == DESCRIPTION_NAME:
            self.fields["comment"] = clean(str(value))
        elif name == GIT_COMMIT_NAME:
            self.fields["script"] = {"version_num": str(value)}
        elif name.startswith(DEFINE_PREFIX):
            self._change(ChangeKind.DROPPED, "the x-axis of a curve is the iteration or the time in ClearML")

    def _add_artifact(self, metric: MetricData) -> None:
        artifact = Artifact.of(metric)
        if artifact.key != metric.name:
            self._change(ChangeKind.RENAMED, "a ClearML artifact is known by its name alone", artifact.key)
        self.artifacts.append(artifact)

    def _sample(self, metric: MetricData, source: Path | bytes, suffix: str) -> Sample:
        if (metric.metadata or {}).get("caption"):
            self._change(ChangeKind.CUT, "a debug sample of ClearML has no caption")
        return Sample(metric.name, self._event("training_debug_image", metric), source, suffix)

    def _event(self, kind: str, metric: MetricData, **fields: Any) -> dict[str, Any]:
        title, series = curve(metric.name)
        if not is_plain_curve(metric.name):
            self._keep_name(f"{title} | {series}", metric.name)
        if metric.iteration is None:
            self._change(ChangeKind.CHANGED, "ClearML has nothing without an iteration", "the iteration 0")
        step = {"iter": metric.iteration or 0, "timestamp": time_ms(metric)}
        return {"type": kind, "metric": title, "variant": series, **step, **fields}

    def _param(self, section: str, name: str, value: str, kind: str) -> None:
        self.params.append({"section": section, "name": name, "value": clean(value), "type": kind})

    def _keep_name(self, becomes: str, name: str) -> None:
        """Beside the escaped name stands the true one."""
        self._change(ChangeKind.RENAMED, "ClearML can't have this name as it is", becomes)
        self._param(NAMES, becomes, name, "str")

    def _change(self, kind: ChangeKind, why: str, becomes: str | None = None) -> None:
        self.changes.append(Change(kind, why, becomes))
