"""Reads back what a test has recorded."""

from __future__ import annotations

import os
from pathlib import Path

import tracelet


def only_run() -> tracelet.Run:
    """The one run that there is in the test's directory."""
    runs = all_runs()
    assert 1 == len(runs)
    return runs[0]


def all_runs() -> list[tracelet.Run]:
    return [tracelet.Run(file.parent) for file in Path("tracelet_runs").glob("*/*/run.json")]


def points(run: tracelet.Run, name: str) -> list[tuple[int, float]]:
    """Steps and values, in the order of the steps: batches come in any order."""
    series = run.series(name)
    return sorted(zip(series.steps.tolist(), series.values.tolist(), strict=True))


def steps(run: tracelet.Run, name: str) -> list[int]:
    return [step for step, _ in points(run, name)]


def nothing_recorded() -> bool:
    return not os.path.exists("tracelet_runs")
