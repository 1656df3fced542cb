"""Pictures, sounds, films, texts and tables as the SDK of Weights & Biases wants them.

In the SDK's process, on its main thread. The guarantee: what the SDK can't take raises `RejectedError`, nothing else.
"""

from __future__ import annotations

import html
import os
from pathlib import Path
from typing import Any

from tracelet.backends._wandb import mapping
from tracelet.core.records import MetricData, MetricType
from tracelet.errors import RejectedError
from tracelet.utils.imports import require


def media(wandb: Any, record: MetricData) -> Any:
    """A value for a row of the history.

    Raises:
        RejectedError: The file is gone, or the SDK can't read it.
    """
    try:
        return _media(wandb, record)
    except RejectedError:
        raise
    except Exception as error:
        what = f"{record.type.value} {record.name!r}"
        raise RejectedError(f"W&B's SDK can't take the {what}: {type(error).__name__}: {error}") from error


def _media(wandb: Any, record: MetricData) -> Any:
    value = record.value
    match record.type:
        case MetricType.TEXT:
            return wandb.Html(f"<pre>{html.escape(value)}</pre>", inject=False)
        case MetricType.HISTOGRAM:
            return wandb.Histogram(np_histogram=mapping.bins(value))
        case MetricType.TABLE:
            return wandb.Table(columns=value["columns"], data=value["rows"], allow_mixed_types=True)
        case _:
            return _media_file(wandb, record, existing(value))


def _media_file(wandb: Any, record: MetricData, path: str) -> Any:
    caption = (record.metadata or {}).get("caption")
    match record.type:
        case MetricType.AUDIO:
            return wandb.Audio(path, caption=caption)
        case MetricType.VIDEO:
            return wandb.Video(path, caption=caption)
        case MetricType.FIGURE if path.endswith(".json"):
            return wandb.Plotly(require("plotly.io", "A figure").from_json(Path(path).read_text("utf-8")))
        case _:
            return wandb.Image(path, caption=caption)


def existing(path: str) -> str:
    """The path, where there is something.

    Raises:
        RejectedError: There is nothing.
    """
    if not os.path.exists(path):
        raise RejectedError(f"the file {path} is not in the run directory any more")
    return path
