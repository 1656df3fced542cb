"""Real ranks under torchrun record one run, whatever happens to one of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import tracelet
from tests.journal.support import wait_until
from tests.processes.launching import torchrun
from tracelet import Run, RunStatus
from tracelet.delivery.report import DeliveryStatus
from tracelet.journal.directory import RunDirectory
from tracelet.journal.load import list_runs
from tracelet.journal.watch import RunWatch

# The launcher ends the other rank by SIGTERM; where rank 0 saw that its peer is gone first, it has failed.
BROKEN = (RunStatus.KILLED, RunStatus.FAILED)
STEPS, UP_TO_THE_MIDDLE = list(range(6)), [0, 1, 2]


def delivered(run: Run) -> dict[str, list[float]]:
    """The scalars that the backend has got, by name."""
    found: dict[str, list[float]] = {}
    for line in (run.path / "delivery" / "jsonl" / "records.jsonl").read_text().splitlines():
        record = json.loads(line)
        if record["type"] == "scalar":
            found.setdefault(record["name"], []).append(float(record["value"]))
    return found


def check_series(run: Run) -> None:
    for rank in (0, 1):
        assert STEPS == run.series("loss", rank).steps.tolist()
        assert [rank + step for step in STEPS] == run.series("loss", rank).values.tolist()
    assert STEPS == run.series("loss").values.tolist()  # The main line is that of rank 0.
    spread = run.spread("loss")
    assert STEPS == spread.steps.tolist() == spread.min.tolist()
    assert [step + 0.5 for step in STEPS] == spread.mean.tolist()
    assert [step + 1 for step in STEPS] == spread.max.tolist()


def test_ranks_record_one_run_before_they_know_each_other_and_jobs_do_not_mix(tmp_path: Path):
    for _ in range(2):  # The second job has the same name, project and launcher's id.
        torchrun("digits.py", "before", tmp_path, "jsonl")
    runs = list_runs(tmp_path)
    assert 2 == len(runs)
    for run in runs:
        check_series(run)
        assert [RunStatus.FINISHED] * 2 == [state.status for state in run.ranks]
        assert [(0, 5, 0), (1, 5, 0)] == [(state.rank, state.last_step, state.behind) for state in run.ranks]
        assert {"lr": 0.1, "of": "0"} == run.params
        assert {"loss": STEPS, "sum": [2 * step + 1 for step in STEPS]} == delivered(run)
        assert [(None, "rank 1"), (None, "rank 0")] == run.texts("note")
        assert [1.0] == run.series("only/1").values.tolist()  # Of the first rank that has it.


def test_other_ranks_are_delivered_beside_the_main_line_where_that_is_wanted(tmp_path: Path):
    torchrun("digits.py", "after", tmp_path, "jsonl", more={"TRACELET_DELIVER_RANKS": "true"})
    (run,) = list_runs(tmp_path)
    check_series(run)
    tracelet_sync(run)
    found = delivered(run)
    assert STEPS == found["loss"]
    assert [1 + step for step in STEPS] == found["rank/1/loss"]
    assert {"loss", "sum", "rank/1/loss", "rank/1/sum", "rank/1/only/1"} == set(found)


def tracelet_sync(run: Run) -> None:
    """What rank 1 recorded after rank 0 had ended."""
    from tracelet.core.sync import sync_run

    sync_run(run.path, ["jsonl"], tracelet.TraceletSettings())


def test_a_job_that_its_launcher_starts_again_goes_on_with_its_run(tmp_path: Path):
    torchrun("digits.py", "restart", tmp_path, restarts=1)
    (run,) = list_runs(tmp_path)
    assert RunStatus.FINISHED is run.status
    for rank in (0, 1):  # Both attempts are kept, that of the middle and the whole one.
        assert UP_TO_THE_MIDDLE + STEPS == run.series("loss", rank).steps.tolist()
    assert [RunStatus.KILLED, RunStatus.FINISHED] == [attempt.status for attempt in run.attempts]


@pytest.mark.parametrize("killed", [0, 1])
def test_the_kill_of_a_rank_loses_nothing_and_what_rank_0_delivers_arrives(killed: int, tmp_path: Path):
    torchrun("digits.py", f"kill {killed}", tmp_path, "jsonl", succeeds=False)
    (run,) = list_runs(tmp_path)
    for rank in (0, 1):
        assert UP_TO_THE_MIDDLE == run.series("loss", rank).steps.tolist()[:3]
    assert run.status in BROKEN
    assert RunStatus.KILLED is run.ranks[killed].status
    directory = RunDirectory.open(run.path)
    wait_until(lambda: DeliveryStatus.of(directory, "jsonl", RunWatch(directory).look()).waiting == 0)
    assert UP_TO_THE_MIDDLE == delivered(run)["loss"][:3]


def test_accelerate_starts_ranks_that_share_a_run(tmp_path: Path):
    torchrun("digits.py", "accelerate", tmp_path)
    (run,) = list_runs(tmp_path)
    check_series(run)
