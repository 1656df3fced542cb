"""What is in `.wandb` files, read without any of Tracelet's code."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLOCK_BYTES = 32_768


@dataclass
class Stored:
    """What some files of one run hold; later entries of config and summary replace earlier ones."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    artifacts: list[Any] = field(default_factory=list)
    runs: list[Any] = field(default_factory=list)
    definitions: dict[str, Any] = field(default_factory=dict)
    exits: list[Any] = field(default_factory=list)


def files_of(root: Path, run_id: str = "*") -> list[Path]:
    """The `.wandb` files under a directory, oldest first."""
    return sorted(root.glob(f"wandb/*run-*/run-{run_id}.wandb"), key=lambda file: file.stat().st_ctime_ns)


def read(files: Sequence[Path]) -> Stored:
    stored = Stored()
    for file in files:
        for record in messages(file):
            kind = record.WhichOneof("record_type")
            part = getattr(record, kind)
            if kind == "history":
                stored.rows.append(values(part.item))
            elif kind in ("config", "summary"):
                getattr(stored, kind).update(values(part.update))
            elif kind == "run":
                stored.runs.append(part)
                stored.config.update(values(part.config.update))
            elif kind == "metric":
                stored.definitions[part.name or part.glob_name] = part
            elif kind == "artifact":
                stored.artifacts.append(part)
            elif kind == "exit":
                stored.exits.append(part)
    return stored


def values(items: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for item in items:
        *outer, last = item.nested_key or [item.key]
        place = found
        for key in outer:
            place = place.setdefault(key, {})
        place[last] = json.loads(item.value_json)
    return found


def messages(file: Path) -> Iterator[Any]:
    from wandb.proto.wandb_internal_pb2 import Record

    data, position, body = file.read_bytes(), 7, b""
    while position + 7 <= len(data):
        left = BLOCK_BYTES - position % BLOCK_BYTES
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        if position + 7 + length > len(data):
            return
        body = (b"" if kind in (1, 2) else body) + data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):
            yield Record.FromString(body)


def points(stored: Stored, names: dict[str, str] | None = None) -> list[tuple[Any, ...]]:
    """`(name, step, value, time in s)` of every number, with the names as they were logged."""
    from tracelet.backends._wandb.mapping import series_name

    own = ("_", "tracelet/step", "tracelet/axis/")
    found = []
    for row in stored.rows:
        for key, value in row.items():
            if isinstance(value, (int, float)) and not key.startswith(own):
                name = stored.config.get(f"tracelet/original/{key}", series_name(key))
                found.append((name, row.get("tracelet/step"), float(value), row["_timestamp"]))
    return found
