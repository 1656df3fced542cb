"""What a run superseded by going back to an earlier step is told from what still holds."""

from __future__ import annotations

from pathlib import Path

import pytest

import tracelet
from tracelet import MetricData, MetricType
from tracelet.journal.live import REWIND_NAME, live_series


def record(*parts: tuple[int, int]) -> tracelet.Run:
    """A run of several parts, each with its first and last step; each goes back to before its first one."""
    for first, last in parts:
        with tracelet.Experiment("test", run_id="r") as experiment:
            if (first, last) != parts[0]:
                experiment.emit_metric(MetricData(REWIND_NAME, float(first - 1), MetricType.SYSTEM, first - 1))
            for step in range(first, last + 1):
                experiment.log_metric("loss", float(first), step)
    return tracelet.load_run("r")


def test_a_run_that_never_went_back_is_whole():
    run = record((1, 5))
    assert [1, 2, 3, 4, 5] == live_series(run, "loss").steps.tolist()


def test_each_step_has_the_value_of_the_last_attempt():
    run = record((1, 7), (5, 9), (4, 6))
    assert 7 + 5 + 3 == len(run.series("loss"))
    live = live_series(run, "loss")
    assert [1, 2, 3, 4, 5, 6] == live.steps.tolist()
    assert [1.0, 1.0, 1.0, 4.0, 4.0, 4.0] == live.values.tolist()
    assert len(live.steps) == len(live.times_s)


def test_a_series_that_is_not_there_raises(tmp_path: Path):
    with pytest.raises(KeyError, match="no series 'lose'"):
        live_series(record((1, 2)), "lose")
