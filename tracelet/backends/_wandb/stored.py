"""What Weights & Biases holds of a run: its service, or the SDK's files. In the SDK's process, on its main thread."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
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


def send_again(files: Sequence[str], run: Any, log: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Send what the service may lack of these files; gives what they say of the configuration.

    Rows reach the service in their order, and it has told what the next one is. The configuration and the files beside
    the rows take seconds, and nothing tells whether they have arrived: all of them go again.

    Args:
        files: `.wandb` files.
        run: The SDK's run, open.
        log: Takes a row.

    Raises:
        OSError, CorruptJournalError: As `history`.
    """
    config: dict[str, Any] = {}
    for file, record in records(files):
        match record.WhichOneof("record_type"):
            case "history":
                row = entries(record.history.item)
                if row.pop("_step") >= run.starting_step:
                    log({key: value for key, value in row.items() if key != "_runtime"})
            case "config":
                config.update(entries(record.config.update))
            case "files":
                folder = Path(file).parent / "files"
                for item in record.files.files:
                    run.save(folder / item.path, base_path=folder, policy="now", glob=False)
    return config


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
