from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from tests.unit.core.support import stand_in
from tracelet import Experiment, MetricData, MetricType, TraceletSettings
from tracelet.core.changes import Change, ChangeKind
from tracelet.core.planning import plan_run
from tracelet.errors import PluginNotFoundError, SettingsError
from tracelet.testing import MemoryBackend


class Narrow(MemoryBackend):
    """A tracker with limits."""

    asked = 0

    @classmethod
    def validate_config(cls, config):
        if config:
            raise SettingsError("there are no settings")

    def plan(self, metric: MetricData) -> Sequence[Change]:
        self.asked += 1
        changes = []
        if "/" in metric.name:
            changes.append(Change(ChangeKind.RENAMED, "no slashes", metric.name.replace("/", "_")))
        if metric.type is MetricType.SCALAR and math.isnan(metric.value):
            changes.append(Change(ChangeKind.DROPPED, "no NaN"))
        if metric.type is MetricType.SCALAR and math.isinf(metric.value):
            changes.append(Change(ChangeKind.CHANGED, "no infinity"))
        if metric.type is MetricType.PARAMETER and len(str(metric.value)) > 10:
            changes.append(Change(ChangeKind.CUT, "10 characters"))
        return changes


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Narrow:
    made = Narrow()
    stand_in(made, monkeypatch)
    return made


@pytest.fixture
def run(backend: Narrow) -> Experiment:
    with Experiment("e", config={"long": "x" * 20, "short": 1}) as experiment:
        for step in range(1000):
            experiment.log_metric("train/loss", math.nan if step % 10 == 0 else 1.0, step)
            experiment.log_metric("plain", math.inf if step == 7 else 1.0, step)
        experiment.log_text("a/note", "text")
    return experiment


def test_changes_are_counted_over_all_records_the_worst_first(backend: Narrow, run: Experiment):
    planned = plan_run(run.run_dir, "memory", TraceletSettings())
    assert [
        (ChangeKind.DROPPED, "no NaN", 100, {"train/loss": None}),
        (ChangeKind.CHANGED, "no infinity", 1, {"plain": None}),
        (ChangeKind.CUT, "10 characters", 1, {"long": None}),
    ] == [(change.kind, change.why, change.records, change.names) for change in planned[:3]]
    renamed = planned[3]
    assert (ChangeKind.RENAMED, "no slashes") == (renamed.kind, renamed.why)
    assert {"train/loss": "train_loss", "a/note": "a_note"}.items() <= renamed.names.items()
    assert renamed.records >= 1001


def test_points_are_asked_for_by_kind_of_value_and_not_one_by_one(backend: Narrow, run: Experiment):
    plan_run(run.run_dir, "memory", TraceletSettings())
    assert backend.asked < 20


def test_nothing_is_called_but_the_plan(backend: Narrow, run: Experiment):
    plan_run(run.run_dir, "memory", TraceletSettings())
    assert [] == backend.calls
    assert not (run.run_dir / "delivery").exists()


def test_wrong_settings_and_unknown_backends_are_said(backend: Narrow, run: Experiment, monkeypatch):
    with pytest.raises(PluginNotFoundError, match="nowhere"):
        plan_run(run.run_dir, "nowhere", TraceletSettings())
    settings = TraceletSettings(plugins={"memory": {"a": 1}})
    with pytest.raises(SettingsError, match="no settings"):
        plan_run(run.run_dir, "memory", settings)
