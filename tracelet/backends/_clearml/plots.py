"""Histograms and tables as the JSON of plotly, which ClearML's pages draw. Pure functions, for any thread."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any


def histogram(title: str, series: str, value: Mapping[str, Any]) -> str:
    """Bars as wide as the bins; what is in no bin is told above them."""
    bins = list(pairwise(value["edges"]))
    outside = [f"{value[key]} {word}" for key, word in [("nan", "NaN"), ("inf", "infinite")] if value.get(key)]
    bars = {
        "type": "bar",
        "name": series,
        "x": [(low + high) / 2 for low, high in bins],
        "y": value["counts"],
        "width": [high - low for low, high in bins],
    }
    layout = {
        "title": "<br>".join([title, *([f"<sup>not shown: {', '.join(outside)}</sup>"] if outside else [])]),
        "xaxis": {"title": "value"},
        "yaxis": {"title": "count"},
        "bargap": 0,
    }
    return _valid_json({"data": [bars], "layout": layout})


def table(title: str, value: Mapping[str, Any]) -> str:
    """Rows and columns; how many rows were left out is told above them."""
    rows = value["rows"]
    total = value.get("rows_total", len(rows))
    cells = {
        "type": "table",
        "header": {"values": value["columns"], "align": "left"},
        "cells": {"values": [[row[index] for row in rows] for index in range(len(value["columns"]))], "align": "left"},
    }
    shown = f"{title} ({len(rows)} of {total} rows)" if total > len(rows) else title
    return _valid_json({"data": [cells], "layout": {"title": shown}})


def _valid_json(plot: Mapping[str, Any]) -> str:
    """Without the numbers that JSON does not have, and that plotly draws as gaps: they become texts."""
    return json.dumps(_valid(plot), allow_nan=False)


def _valid(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {key: _valid(item) for key, item in value.items()}
    return [_valid(item) for item in value] if isinstance(value, (list, tuple)) else value
