"""What W&B, ClearML and Neptune hold of a run that went back to an earlier step, as docs/resume.md tells it.

MLflow is in `tests/adapters/resume`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from tests.backends import neptune_files, wandb_files
from tests.backends.clearml_service import session_events
from tests.backends.neptune_files import StoredRun
from tests.backends.wandb_files import Stored
from tracelet import Experiment, TraceletSettings
from tracelet.core.records import REWIND_NAME

LIVE = [(1, 11.0), (2, 12.0), (3, 13.0), (4, 24.0), (5, 25.0)]
SUPERSEDED = [(4, 14.0), (5, 15.0), (6, 16.0)]


class Point(NamedTuple):
    step: int
    value: float
    time_s: float


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where an attempt has made the steps 1 to 6, and another one 4 and 5 from a checkpoint of step 3; all offline."""
    home = tmp_path_factory.mktemp("rewound")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("WANDB_", "CLEARML_", "NEPTUNE_"))]:
            patch.delenv(name)
        patch.setenv("HOME", str(home / "home"))
        patch.setenv("CLEARML_CONFIG_FILE", str(home / "clearml.conf"))
        patch.chdir(home)
        state: Any = None
        settings = TraceletSettings(dir=home / "runs", delivery="thread")
        for attempt, last in ((1, 6), (2, 5)):
            with Experiment("digits", ["wandb", "clearml", "neptune"], resume=state, settings=settings) as experiment:
                for step in range(4 if state else 1, last + 1):
                    experiment.log_metric("loss", 10.0 * attempt + step, step)
                    experiment.log_text("note", f"attempt {attempt}", step)
                    experiment.log_histogram("weights", [float(attempt)] * step, step)
                    experiment.log_image("sample", np.full((1, 1), attempt, np.uint8), step)
                state = experiment.resume_state(3)
        yield home


@pytest.fixture
def wandb(home: Path) -> Stored:
    return wandb_files.read(wandb_files.files_of(home))


@pytest.fixture
def clearml(home: Path) -> list[dict[str, Any]]:
    (folder,) = home.glob("runs/*/*/delivery/clearml/offline-*")
    return session_events(folder)


@pytest.fixture
def neptune(home: Path) -> StoredRun:
    return neptune_files.stored_run(home / ".neptune")


def live(points: list[Point], marks: list[Point]) -> list[tuple[int, float]]:
    """By the rule of docs/resume.md."""
    holds = [p for p in points if not any(p.time_s < mark.time_s and p.step > mark.value for mark in marks)]
    return sorted((point.step, point.value) for point in holds)


def all_of(points: list[Point]) -> list[tuple[int, float]]:
    return sorted((point.step, point.value) for point in points)


def test_wandb_has_both_rows_of_a_step_and_by_the_rule_the_live_line(wandb: Stored):
    def points(key: str) -> list[Point]:
        rows = [row for row in wandb.rows if key in row]
        return [Point(row["tracelet/step"], float(row[key]), row["_timestamp"]) for row in rows]

    assert sorted(LIVE + SUPERSEDED) == all_of(points("loss"))
    assert LIVE == live(points("loss"), points(REWIND_NAME))
    assert (25.0, 1) == (wandb.summary["loss"], len({run.run_id for run in wandb.runs}))
    for key in ("note", "weights", "sample"):
        assert [1, 2, 3, 4, 5, 6, 4, 5] == [row["tracelet/step"] for row in wandb.rows if key in row]


def test_clearml_has_the_later_point_of_a_step_and_by_the_rule_the_live_line(clearml: list[dict[str, Any]]):
    def points(metric: str) -> list[Point]:
        kind = "training_stats_scalar"
        events = [event for event in clearml if event["type"] == kind and event["metric"] == metric]
        return [Point(event["iter"], event["value"], event["timestamp"] / 1000) for event in events]

    assert [*LIVE, SUPERSEDED[-1]] == all_of(points("loss"))  # Nothing has replaced the step that did not come again.
    assert LIVE == live(points("loss"), points("rewind"))
    plots = [json.loads(event["plot_str"])["data"][0] for event in clearml if event["metric"] == "weights"]
    assert 6 == len(plots)
    shown: dict[int, list[str]] = {}
    notes = [event for event in clearml if event["metric"] == "note"]
    for event in sorted(notes, key=lambda event: event["url"], reverse=True):  # As the server orders them.
        shown.setdefault(event["iter"], []).append(Path(event["url"]).read_text())
    once, again = ["attempt 1"], ["attempt 2", "attempt 1"]
    assert {1: once, 2: once, 3: once, 4: again, 5: again, 6: once} == shown
    assert 8 == sum(event["metric"] == "sample" for event in clearml)


def test_neptune_has_the_later_point_of_a_step_beside_the_series_and_by_the_rule_the_live_line(neptune: StoredRun):
    def points(wanted: str) -> list[Point]:
        return [Point(step, value, time_s) for name, step, value, time_s in neptune.scalars() if name == wanted]

    assert [] == neptune.refused
    assert sorted(LIVE + SUPERSEDED) == all_of(points("loss"))
    assert LIVE == live(points("loss"), points(REWIND_NAME))
    assert [*LIVE[:3], *SUPERSEDED] == [point[:2] for point in neptune.series["loss"]]
    assert ["attempt 2"] * 2 == [value for _, value, _ in neptune.series["note_late"]]
    assert 2 == len(neptune.series["sample_late"])
    histograms = {step: json.loads(neptune.values[f"artifacts/weights/{step}"]) for step in range(1, 7)}
    assert [1, 1, 1, 2, 2, 1] == [histograms[step]["edges"][0] + 0.5 for step in range(1, 7)]
