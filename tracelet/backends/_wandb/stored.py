"""What Weights & Biases holds of a run: its service, or the SDK's files. In the SDK's process, on its main thread."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tracelet.backends._wandb import mapping
from tracelet.backends._wandb.log import TransactionLog
from tracelet.delivery.state import RemoteState
from tracelet.utils.imports import require


def read_back(
    facts: Mapping[str, Any], settings: Mapping[str, Any], series: str
) -> list[tuple[int | None, float, float]]:
    """Steps, values and times of a series; of the service once the run is there, else of the files.

    Opens nothing: a run that has ended stays as it is.

    Args:
        facts: As `WandbRun` takes them.
        settings: The same.
        series: Its name.
    """
    state = RemoteState(facts["state_dir"])
    key = mapping.series_key(series)
    rows = history(state["files"] or []) if state["path"] is None else _service_rows(state["path"], settings)
    return [(row.get(mapping.STEP_KEY), float(row[key]), float(row["_timestamp"])) for row in rows if key in row]


def history(files: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows of the history in some `.wandb` files, each with W&B's own `_step`.

    Raises:
        OSError, CorruptJournalError: As `TransactionLog.read`. A file that is gone is passed over: W&B's tools delete
            what they have synchronised.
    """
    for _, record in records(files):
        if record.WhichOneof("record_type") == "history":
            yield entries(record.history.item)


def records(files: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """All records (`Record` of W&B's protobuf messages), each with its file; raises as `history`."""
    for file in files:
        for record in TransactionLog(file).read() if os.path.exists(file) else ():
            yield file, record


def entries(items: Any) -> dict[str, Any]:
    """What the items of a row or of a part of the configuration say."""
    found: dict[str, Any] = {}
    for item in items:
        *outer, last = item.nested_key or [item.key]
        place = found
        for key in outer:  # What is no number is a mapping.
            place = place.setdefault(key, {})
        place[last] = json.loads(item.value_json)
    return found


def _service_rows(path: str, settings: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    wandb = require("wandb", "The W&B backend")
    address = {} if settings["base_url"] is None else {"base_url": settings["base_url"]}
    api = wandb.Api({**address, "entity": path.partition("/")[0]}, api_key=settings["api_key"])
    rows: Iterator[dict[str, Any]] = api.run(path).scan_history()
    return rows
