"""What the backend needs of a task, be it on a server or in an offline session; and the parts that both share.

Every call comes on the backend's thread, `open` before the others; artifacts and models come to the task that `beside`
gives, on the thread of the backend's artifacts. Guarantee: whatever is given twice is there once, but for console
lines.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tracelet.backends._base import RunFacts
from tracelet.backends._clearml.artifacts import Artifact, Model
from tracelet.backends._clearml.names import PROPERTIES, long_enough
from tracelet.backends._clearml.records import Sample
from tracelet.backends._clearml.settings import ClearMLSettings
from tracelet.core.changes import StoredPoint
from tracelet.errors import RejectedError

RUN_PROPERTY: Final = "tracelet:run"
"""The user property that has the run's uuid. No tag of a user can have this name: its colon would be escaped."""

STATUS_PROPERTY: Final = "tracelet:status"
_PREVIEW_CHARS: Final = 60_000  # ClearML's own limit is 65,536 bytes.


class ClearMLTask(ABC):
    """One task of ClearML, which holds one run of Tracelet."""

    def __init__(self, facts: RunFacts, settings: ClearMLSettings) -> None:
        """Nothing is made or sent yet."""
        self.facts = facts
        self.settings = settings
        self.project = long_enough(settings.project or facts.run_project)
        self.name = long_enough(facts.run_name)
        self.id = ""

    @property
    @abstractmethod
    def url(self) -> str | None:
        """Where to look at it; None before `open`."""

    @abstractmethod
    def open(self) -> None:
        """Find the task of the run, or make it."""

    @abstractmethod
    def set_running(self) -> None:
        """Show that records come."""

    @abstractmethod
    def set_status(self, status: str, error: str) -> None:
        """Show how the run ended: `finished`, `failed`, `killed`. With the traceback of a failure, else empty."""

    @abstractmethod
    def add_events(self, events: Sequence[dict[str, Any]]) -> None:
        """Points, plots, samples and console lines."""

    @abstractmethod
    def edit_params(self, params: Sequence[Mapping[str, str]]) -> None:
        """Set hyperparameters and user properties."""

    @abstractmethod
    def edit(self, fields: Mapping[str, Any]) -> None:
        """Set fields of the task."""

    @abstractmethod
    def add_tags(self, words: Sequence[str]) -> None:
        """Add words to the tags."""

    @abstractmethod
    def add_artifact(self, artifact: Mapping[str, Any]) -> None:
        """Add an artifact, in the place of one with the same key."""

    @abstractmethod
    def add_model(self, artifact: Artifact, model: Model) -> None:
        """Make it an output model of the task, unless it is one; its aliases leave those that had them."""

    @abstractmethod
    def store(self, key: str, source: Path | bytes) -> str:
        """Keep a file, and tell its URL."""

    @abstractmethod
    def points(self, title: str, series: str) -> list[StoredPoint] | None:
        """The points of a curve; None where they can't be had."""

    @abstractmethod
    def close(self) -> None:
        """Let go of everything; the task stays as it is."""

    def beside(self) -> ClearMLTask:
        """The same task for another thread, which adds artifacts and models while this one does all else."""
        return self

    def properties(self) -> dict[str, dict[str, str]]:
        """The user properties of a new task."""
        run = {"section": PROPERTIES, "name": RUN_PROPERTY, "value": self.facts.run_uuid, "type": "str"}
        return {RUN_PROPERTY: run}

    def store_sample(self, sample: Sample) -> dict[str, Any]:
        """Keep the file of a debug sample, and complete its event. A figure of plotly's is a plot, without a file."""
        event, source = sample.event, sample.source
        if isinstance(source, Path):
            _require(source.is_file(), source)
            if source.name.endswith(".plotly.json"):
                return {**event, "type": "plot", "plot_str": source.read_text("utf-8")}
        # Of samples of one iteration the server shows that with the last URL first: so it is the one that came last.
        place = f"{event['iter']}_{event['timestamp']}.{_digest(sample.name, source)}{_slug(sample.suffix)}"
        key = f"{self._folder}/metrics/{_slug(sample.name)}/{place}"
        return {**event, "key": key, "url": self.store(key, source)}

    def store_artifact(self, artifact: Artifact) -> dict[str, Any]:
        """Keep a file, or a directory as a zip, as ClearML does; and describe it. Of a reference only the place."""
        shown = {"display_data": [list(pair) for pair in artifact.details.items()]}
        if isinstance(artifact.source, str):
            place = {"key": artifact.key, "type": artifact.kind, "mode": "output", "uri": artifact.source}
            return {**place, "timestamp": artifact.time_s, **shown}
        _require(artifact.source.exists(), artifact.source)
        with _as_file(artifact.source, self.facts.state_dir) as (file, preview):
            with open(file, "rb") as content:
                sha256 = hashlib.file_digest(content, "sha256").hexdigest()
            key = f"{self._folder}/artifacts/{_slug(artifact.key)}.{_digest(artifact.key)}/{_slug(file.name)}"
            return {
                "key": artifact.key,
                "type": "archive" if artifact.source.is_dir() else artifact.kind,
                "mode": "output",
                "uri": self.store(key, file),
                "content_size": file.stat().st_size,
                "hash": sha256,
                "timestamp": artifact.time_s,
                "type_data": {"preview": preview[:_PREVIEW_CHARS]},
                **shown,
            }

    def store_weights(self, artifact: Artifact) -> str:
        """Keep the file of a model, or a directory as a zip, and tell its URL."""
        if isinstance(artifact.source, str):
            return artifact.source
        _require(artifact.source.exists(), artifact.source)
        with _as_file(artifact.source, self.facts.state_dir) as (file, _):
            return self.store(f"{self._folder}/models/{weights_name(artifact, file.suffix)}", file)

    @property
    def _folder(self) -> str:
        """`import_offline_session` looks for the task's id after a dot."""
        return f"{_slug(self.project)}/{_slug(self.name)}.{self.id}"


def weights_name(artifact: Artifact, suffix: str) -> str:
    """Of a model's file: no two models of a task have the same."""
    return f"{_slug(artifact.key)}-{_digest(artifact.key)}{_slug(suffix)}"


def _slug(text: str) -> str:
    """What needs no quoting in a URL."""
    return re.sub(r"[^\w.-]+", "_", text, flags=re.ASCII)[-80:]


def _digest(name: str, source: Path | bytes = b"") -> str:
    """Tells files of the same step and time, or of the same slug, apart."""
    inner = source if isinstance(source, bytes) else source.name.encode("utf-8", "surrogatepass")
    return hashlib.sha256(name.encode("utf-8", "surrogatepass") + b"\0" + inner).hexdigest()[:16]


def _require(is_there: bool, source: Path) -> None:
    """Beforehand, since the error of a missing file is an `OSError`, and so an outage."""
    if not is_there:
        raise RejectedError(f"the file {source} is gone")


@contextmanager
def _as_file(source: Path, scratch: Path) -> Iterator[tuple[Path, str]]:
    """The file itself, or a zip of the directory, and what ClearML shows of it."""
    if not source.is_dir():
        yield source, f"{source.name} - {source.stat().st_size} bytes"
        return
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        packed, lines = Path(folder, f"{source.name}.zip"), [f"Archive content {source.name}:"]
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as archive:
            for file in sorted(path for path in source.rglob("*") if path.is_file()):
                inner = file.relative_to(source).as_posix()
                archive.write(file, inner)
                lines.append(f"{inner} - {file.stat().st_size} bytes")
        yield packed, "\n".join(lines)
