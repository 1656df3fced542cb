"""A small backend, to use and to learn from: each record as a line of JSON, in one file.

Every call comes on the thread `tracelet-jsonl`, in the order that `tracelet.core.plugins` tells. Guarantee: a record is
in the kernel's hands when `handle_batch` returns. A kill or a full disk may cut the last line short; that piece stays,
and the line comes again as a whole.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

from tracelet.core.plugins import BackendPlugin, PluginMetadata, PluginType
from tracelet.core.records import MetricData
from tracelet.errors import SettingsError


@final
class JsonLinesBackend(BackendPlugin):
    """Appends each record to the file of the setting `path`; by default `records.jsonl` in the backend's `state_dir`.

    JSON has no numbers for NaN and the infinities: they become the texts `"nan"`, `"inf"` and `"-inf"`, which `float()`
    reads back. The whole file is ASCII.
    """

    _path: Path | None = None
    _run_id: str | None = None

    @classmethod
    def get_metadata(cls) -> PluginMetadata:
        """Needs no package."""
        return PluginMetadata(
            name="jsonl",
            version="1.0.0",
            type=PluginType.BACKEND,
            description="One line of JSON a record",
            author="Tracelet",
            capabilities={"metrics", "parameters", "artifacts", "logging", "timestamps"},
        )

    @classmethod
    def validate_config(cls, config: Mapping[str, Any]) -> None:
        """Only `path` can be set."""
        unknown = sorted(config.keys() - {"path"})
        if unknown:
            raise SettingsError(f"the backend 'jsonl' has no setting {', '.join(map(repr, unknown))}; it has 'path'")
        if not isinstance(config.get("path", ""), (str, os.PathLike)):
            raise SettingsError(f"the setting 'path' of the backend 'jsonl' is no path: {config['path']!r}")

    def initialize(self, config: dict[str, Any]) -> None:
        """Choose the file."""
        self._path = Path(config["path"] if config.get("path") else Path(config["state_dir"], "records.jsonl"))
        self._run_id = config.get("run_id")

    def start(self) -> None:
        """Make the file. An `OSError` counts as an outage: it is tried again."""
        assert self._path is not None
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.touch(mode=0o600)

    def stop(self) -> None:
        """Nothing is kept open."""

    def get_status(self) -> dict[str, Any]:
        """Where the file is."""
        return {"path": None if self._path is None else os.fspath(self._path)}

    def get_url(self) -> str | None:
        """The file."""
        return None if self._path is None else self._path.absolute().as_uri()

    def handle_metric(self, metric: MetricData) -> None:
        """Write one record."""
        self.handle_batch([metric])

    def handle_batch(self, metrics: Sequence[MetricData]) -> None:
        """Write some records at once: a file that is open for so short a time may be moved away by anybody."""
        assert self._path is not None
        lines = [json.dumps(self._fields(metric), allow_nan=False) for metric in metrics]
        with open(self._path, "a+b") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
            is_cut_short = file.read() not in (b"", b"\n")
            file.write("\n".join([*([""] if is_cut_short else []), *lines, ""]).encode("ascii"))

    def _fields(self, metric: MetricData) -> dict[str, Any]:
        return {
            "run_id": self._run_id,
            "name": metric.name,
            "type": metric.type.value,
            "value": _valid(metric.value),
            "step": metric.iteration,
            "time_s": metric.timestamp,
            "source": metric.source,
            "metadata": _valid(metric.metadata),
        }


def _valid(value: Any) -> Any:
    """The value without the numbers that JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {key: _valid(item) for key, item in value.items()}
    return [_valid(item) for item in value] if isinstance(value, (list, tuple)) else value
