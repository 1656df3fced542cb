"""What becomes of a record in Weights & Biases: keys, forms, and what is lost. Pure functions, for any thread.

`WandbBackend.plan` asks on the user's side, `_wandb.run` delivers in the SDK's process: both with what is here, so that
they can't disagree.
"""

from __future__ import annotations

import enum
import functools
import importlib.util
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, Final, final

from tracelet.core.changes import Change, ChangeKind
from tracelet.core.records import (
    DEFINE_PREFIX,
    DESCRIPTION_NAME,
    GIT_COMMIT_NAME,
    STATUS_NAME,
    TAG_PREFIX,
    USED_NAME,
    MetricData,
    MetricType,
)
from tracelet.utils.escaping import NameEscaping

STEP_KEY: Final = "tracelet/step"
"""The x-axis of every series. W&B's own `_step` only counts rows: it drops what comes with one below the last."""

AXIS_PREFIX: Final = "tracelet/axis/"
"""The last value of a series that is another one's x-axis: W&B looks for it in the row of the value."""

ORIGINAL_PREFIX: Final = "tracelet/original/"
"""In the configuration: the true name behind a key that had to be changed."""

TAG_CONFIG_PREFIX: Final = "tracelet/tag/"
"""In the configuration: a tag with a value. W&B's own tags are words."""

MAX_BINS: Final = 512  # `wandb.Histogram` refuses more.
MAX_TAG_CHARS: Final = 64  # The service's limit.
_MAX_PART_BYTES: Final = 150  # A picture's key is part of a file name, which Linux limits to 255 bytes.
_NAME_PREFIX: Final = "tracelet/name/"
# W&B takes keys with a leading underscore for its own and hides them; the others are ours.
_RESERVED: Final = re.compile(r"_|tracelet/(name|original|axis|tag|step|status|error|git_commit|used_artifact)(/|$)")
_KEYS: Final = NameEscaping(r"\w./ :@%=+,()\[\]-", 128, paths=True)
_ASCII_KEYS: Final = NameEscaping(r"A-Za-z0-9_./ -", 128, paths=True)
_ARTIFACTS: Final = NameEscaping(r"A-Za-z0-9_.-", 128)
_PROJECTS: Final = NameEscaping(r"\w. -", 128)
_IDS: Final = NameEscaping("A-Za-z0-9_-", 64)
_SHOWN: Final = {
    MetricType.IMAGE: {".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp"},
    MetricType.FIGURE: {".png", ".jpg", ".jpeg", ".gif", ".webp", ".json"},
    MetricType.AUDIO: {".wav", ".mp3", ".ogg", ".flac"},
    MetricType.VIDEO: {".mp4", ".webm", ".ogg", ".gif"},
}


@final
class Form(enum.Enum):
    """What W&B stores a record as."""

    NUMBER = "number"  # A value in a row of the history.
    MEDIA = "media"  # A picture, sound, film, text, histogram or table in a row of the history.
    CONFIG = "config"  # An entry of the run's configuration.
    ARTIFACT = "artifact"  # A version of an artifact.
    FACT = "fact"  # A tag, the status, the description, …
    NOTHING = "nothing"  # Nobody's record of the type CUSTOM.


def form(metric: MetricData) -> Form:
    """What a record becomes."""
    match metric.type:
        case MetricType.SCALAR | MetricType.SYSTEM:
            return Form.NUMBER
        case MetricType.PARAMETER:
            return Form.CONFIG
        case MetricType.TEXT | MetricType.HISTOGRAM | MetricType.TABLE:
            return Form.MEDIA
        case MetricType.ARTIFACT | MetricType.TENSOR:
            return Form.ARTIFACT
        case MetricType.CUSTOM:
            known = metric.name in (STATUS_NAME, DESCRIPTION_NAME, GIT_COMMIT_NAME, USED_NAME)
            return Form.FACT if known or metric.name.startswith((TAG_PREFIX, DEFINE_PREFIX)) else Form.NOTHING
        case _:
            suffix = PurePath(str(metric.value)).suffix.lower()
            return Form.MEDIA if suffix in _SHOWN[metric.type] and _can_open(metric.type, suffix) else Form.ARTIFACT


def key_of(metric: MetricData) -> str:
    """The key, or the name of the artifact, under which W&B stores a record."""
    return artifact_name(metric.name) if form(metric) is Form.ARTIFACT else series_key(metric.name)


def artifact_name(name: str) -> str:
    """The name of an artifact as W&B takes it."""
    return _ARTIFACTS.escape(name)


@functools.lru_cache(maxsize=10_000)  # It is asked for with each record.
def series_key(name: str) -> str:
    """The key of a series, a parameter, or what is shown beside them."""
    key = _KEYS.escape(name)
    if max(len(part.encode()) for part in key.split("/")) > _MAX_PART_BYTES:
        key = _ASCII_KEYS.escape(name)
    return _NAME_PREFIX + key if _RESERVED.match(key) else key


def series_name(key: str) -> str | None:
    """The name that has this key; None for one that was cut: see `ORIGINAL_PREFIX`."""
    return _KEYS.unescape(key.removeprefix(_NAME_PREFIX))


def project_name(name: str) -> str:
    """The name of a project as W&B takes it."""
    return _PROJECTS.escape(name)


def remote_id(run_uuid: str) -> str:
    """The id of the run of W&B that belongs to ours: so it is found again, whatever else was lost."""
    return _IDS.escape(run_uuid)


def artifact_type(metric: MetricData) -> str:
    """The type of an artifact; W&B keeps those under `wandb-` and `job` for itself."""
    given = (metric.metadata or {}).get("type")
    kind = _ARTIFACTS.escape(given) if isinstance(given, str) and given else metric.type.value
    return f"tracelet-{kind}" if kind == "job" or kind.startswith("wandb-") else kind


def is_word(tag: str, value: str) -> bool:
    """Whether a tag can be one of W&B's, which are words."""
    return not value and 0 < len(tag) <= MAX_TAG_CHARS


def bins(histogram: Mapping[str, Any]) -> tuple[list[float], list[float]]:
    """The counts and edges of a histogram, with neighbours merged where W&B takes no more bins."""
    counts, edges = list(histogram["counts"]), list(histogram["edges"])
    merged = math.ceil(len(counts) / MAX_BINS) or 1
    sums = [math.fsum(counts[start : start + merged]) for start in range(0, len(counts), merged)]
    return sums, [*edges[:-1:merged], edges[-1]]


def config_value(value: Any) -> Any:
    """A parameter without the numbers that W&B's configuration lacks: they are texts, which `float()` reads."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {key: config_value(item) for key, item in value.items()}
    return [config_value(item) for item in value] if isinstance(value, (list, tuple)) else value


def changes(metric: MetricData) -> Sequence[Change]:
    """What W&B would not hold of a record as it was logged."""
    made_as = form(metric)
    if made_as is Form.NOTHING:
        return [Change(ChangeKind.DROPPED, "the record is neither W&B's nor Tracelet's")]
    if made_as is Form.FACT:
        return _changes_of_fact(metric)
    found = []
    key = key_of(metric)
    if key != metric.name:
        found.append(Change(ChangeKind.RENAMED, "W&B takes other names for its own, or can't hold this one", key))
    if made_as is Form.CONFIG and (stored := config_value(metric.value)) != metric.value:
        found.append(Change(ChangeKind.CHANGED, "W&B's configuration has no NaN or infinity", str(stored)))
    if made_as is Form.ARTIFACT and metric.type not in (MetricType.ARTIFACT, MetricType.TENSOR):
        what = f"W&B can't show such a file as {metric.type.value}, or the package for it is not installed"
        found.append(Change(ChangeKind.CHANGED, what, f"an artifact of the type {artifact_type(metric)!r}"))
    if metric.type is MetricType.HISTOGRAM and isinstance(metric.value, Mapping):
        count = len(metric.value.get("counts", ()))
        if count > MAX_BINS:
            becomes = f"{len(bins(metric.value)[0])} bins"
            found.append(Change(ChangeKind.CHANGED, f"W&B's histograms have {MAX_BINS} bins at most", becomes))
        if metric.value.get("nan") or metric.value.get("inf"):
            found.append(Change(ChangeKind.CUT, "W&B's histograms do not count NaN and infinities"))
    return found


def _changes_of_fact(metric: MetricData) -> Sequence[Change]:
    tag = metric.name.removeprefix(TAG_PREFIX)
    if tag == metric.name or is_word(tag, str(metric.value)):
        return []
    return [
        Change(
            ChangeKind.CHANGED,
            f"W&B's tags are words of {MAX_TAG_CHARS} characters at most",
            f"{TAG_CONFIG_PREFIX}{series_key(tag)} in the configuration",
        )
    ]


def _can_open(kind: MetricType, suffix: str) -> bool:
    """Whether the SDK finds the package that it needs for such a file."""
    if kind in (MetricType.AUDIO, MetricType.VIDEO):
        return True
    return importlib.util.find_spec("plotly" if suffix == ".json" else "PIL") is not None
