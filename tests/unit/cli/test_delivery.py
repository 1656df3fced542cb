"""`tracelet plan`, `status` and `verify`."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import pytest

from tests.unit.core.support import stand_in
from tracelet import Experiment, MetricData, MetricType
from tracelet.core.changes import Change, ChangeKind
from tracelet.testing import MemoryBackend


class NoNan(MemoryBackend):
    def plan(self, metric: MetricData) -> Sequence[Change]:
        if isinstance(metric.value, float) and math.isnan(metric.value):
            return [Change(ChangeKind.DROPPED, "there is no NaN in this tracker")]
        if metric.type is MetricType.SCALAR and "/" in metric.name:
            return [Change(ChangeKind.RENAMED, "no slashes", metric.name.replace("/", "_"))]
        return ()

    def handle_batch(self, metrics: Sequence[MetricData]) -> None:
        super().handle_batch([metric for metric in metrics if metric.value == metric.value])

    def get_url(self) -> str:
        return "https://tracker.example/run/1"


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> NoNan:
    made = NoNan()
    stand_in(made, monkeypatch)
    return made


@pytest.fixture
def run(backend: NoNan) -> Experiment:
    with Experiment("digits", config={"lr": 0.1}) as experiment:
        for step in range(10):
            experiment.log_metric("val/loss", math.nan if step == 3 else 1.0, step)
    return experiment


# -- plan --------------------------------------------------------------------------------------------------------------


def test_the_plan_names_what_becomes_of_the_records(run, tracelet):
    output = tracelet("plan", "latest", "--to", "memory").stdout
    assert "dropped  1 record: there is no NaN in this tracker" in output
    assert "renamed  9 records: no slashes" in output
    assert "val/loss  → val_loss" in output
    assert output.index("dropped") < output.index("renamed")


def test_the_plan_as_json(run, tracelet):
    planned = json.loads(tracelet("plan", "latest", "--to", "memory,jsonl", "--json").stdout)
    assert [] == planned["jsonl"]
    dropped = {"kind": "dropped", "why": "there is no NaN in this tracker", "records": 1, "names": {"val/loss": None}}
    assert dropped == planned["memory"][0]


def test_nothing_to_change_is_said(run, tracelet):
    assert "jsonl: takes everything as it was logged\n" == tracelet("plan", "latest", "--to", "jsonl").stdout


# -- status ------------------------------------------------------------------------------------------------------------


def test_a_run_that_was_sent_nowhere(run, tracelet):
    assert "Sent nowhere so far" in tracelet("status").stdout
    assert [] == json.loads(tracelet("status", "--json").stdout)


def test_a_complete_delivery_with_its_address(run, tracelet):
    tracelet("sync", "latest", "--to", "memory")
    head, row, address = tracelet("status", run.run_id).stdout.splitlines()
    assert ["RUN", "BACKEND", "STATE", "DELIVERED", "WAITING", "REJECTED"] == head.split()
    assert [run.run_id, "memory", "complete", "12", "0", "0"] == row.split()
    assert f"{run.run_id}, memory: https://tracker.example/run/1" == address


def test_what_waits_what_was_rejected_and_why(backend, run, tracelet):
    backend.reject(lambda metric: metric.iteration == 4)
    tracelet("sync", "latest", "--to", "memory")
    [memory] = json.loads(tracelet("status", "--json").stdout)
    assert ("complete", 11, 0, 1, "finished") == tuple(
        memory[name] for name in ("state", "delivered", "waiting", "rejected", "closed")
    )
    assert f"{run.run_id}, memory: RejectedError: there is a record among them" in tracelet("status").stdout


def test_a_backend_that_is_away(backend, run, tracelet):
    backend.fail(ConnectionError("no route"))
    tracelet("sync", "latest", "--to", "memory", "--timeout", "0.1", code=1)
    _, row, error, _ = tracelet("status").stdout.splitlines()
    assert ["memory", "stopped", "0", "12", "0"] == row.split()[1:]
    assert f"{run.run_id}, memory: ConnectionError: no route" == error


def test_a_run_that_is_being_delivered(backend, tracelet):
    with Experiment("live", backend=backend) as experiment:
        experiment.log_metric("loss", 1.0, 0)
        assert experiment.flush(60)
        [row] = json.loads(tracelet("status", "--json").stdout)
        assert ("delivering", True, 0, None) == (row["state"], row["is_active"], row["waiting"], row["closed"])


# -- verify ------------------------------------------------------------------------------------------------------------


def test_a_run_is_verified_and_repaired(backend, run, tracelet):
    assert "memory: 1 of 1 series complete, 9 points\n" == tracelet("verify", "latest", "--to", "memory").stdout
    backend.records[:] = [record for record in backend.records if record.iteration not in (1, 2)]
    head, row, total = tracelet("verify", "latest").stdout.splitlines()
    assert ["BACKEND", "SERIES", "RECORDED", "STORED", "MISSING", "REPAIRED", "UNEXPECTED"] == head.split()
    assert ["memory", "val/loss", "9", "7", "2", "2", "0"] == row.split()
    assert "memory: 1 of 1 series complete, 9 points" == total


def test_a_gap_gives_exit_code_1_where_it_is_not_repaired(backend, run, tracelet):
    tracelet("sync", "latest", "--to", "memory")
    backend.records[:] = [record for record in backend.records if record.iteration != 1]
    result = tracelet("verify", "latest", "--no-repair", "--json", code=1)
    [check] = json.loads(result.stdout)
    assert (1, False) == (check["missing"], check["complete"])


def test_a_tracker_that_cannot_be_asked_is_one_line(run, tracelet):
    assert "'jsonl' can't be asked what it holds" in tracelet("verify", "latest", "--to", "jsonl", code=1).stderr
