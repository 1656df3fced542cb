"""Programs of their own: how they end, and several ranks."""

from __future__ import annotations

import pytest

import tracelet
from tests.adapters.hf.helpers import STEPS
from tests.adapters.hf.programs import python, run
from tracelet import RunStatus
from tracelet.journal.reader import first_line

TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.mark.parametrize(
    ("plan", "expected", "status", "error"),
    [
        ("", 0, RunStatus.FINISHED, None),
        ("fails", 1, RunStatus.FAILED, "RuntimeError: no memory"),
        ("handled", 0, RunStatus.FAILED, "The training ended before its end"),
        ("interrupted", -2, RunStatus.FAILED, "KeyboardInterrupt"),
        ("killed", -9, RunStatus.KILLED, None),
    ],
)
def test_the_end_of_the_program_is_the_end_of_the_run(plan: str, expected: int, status: RunStatus, error: str | None):
    python("r", plan.split(), expected)
    found = tracelet.load_run("r")
    steps = {"": STEPS, "killed": 5}.get(plan, 3)
    assert (status, list(range(1, steps + 1))) == (found.status, found.series("train/loss").steps.tolist())
    assert found.error is None if error is None else error in (found.error or "")


def test_of_two_ranks_the_first_records_one_run():
    python("ddp", ["evaluates"], launcher=TORCHRUN)
    found = tracelet.load_run("ddp")
    assert RunStatus.FINISHED is found.status
    assert list(range(1, STEPS // 2 + 1)) == found.series("train/loss").steps.tolist()
    assert ([0], [0.0]) == (found.series("eval/loss").steps.tolist(), found.series("after").values.tolist())
    assert 2 == found.params["world_size"]
    assert 1 == len(list(found.path.glob("*.log")))
    assert ["ddp"] == [path.name for path in found.path.parent.iterdir()]
    samples = found.series("throughput/samples_per_s").values * found.series("throughput/step_time_s").values
    assert [8.0] * (STEPS // 2) == pytest.approx(samples)


def test_all_ranks_record_into_one_run_where_that_is_wanted():
    python("ddp", ["ranks", "evaluates"], launcher=TORCHRUN)
    found = tracelet.load_run("ddp")
    assert RunStatus.FINISHED is found.status
    assert [0, 1] == sorted((first_line(log) or {})["rank"] for log in found.path.glob("*.log"))
    for name in ("train/loss", "rank/1/train/loss", "rank/1/throughput/step_time_s"):
        assert list(range(1, STEPS // 2 + 1)) == found.series(name).steps.tolist()
    assert [0.0, 1.0] == sorted(found.series("after").values.tolist())
    assert found.series("train/loss").values == pytest.approx(found.series("rank/1/train/loss").values)
    assert ["ddp"] == [path.name for path in found.path.parent.iterdir()]


def test_several_ranks_resume_the_run():
    python("ddp", ["fails", "ranks"], expected=None, launcher=TORCHRUN)
    python("ddp", ["resumes", "restores", "ranks"], launcher=TORCHRUN)
    found = tracelet.load_run("ddp")
    assert RunStatus.FINISHED is found.status
    for name in ("train/loss", "rank/1/train/loss"):
        assert list(range(1, STEPS // 2 + 1)) == found.live(name).steps.tolist()


def test_importing_the_package_makes_the_tracker_known_and_loads_no_transformers():
    known = "from accelerate.tracking import LOGGER_TYPE_TO_CLASS as known; assert 'tracelet' in known"
    unloaded = "assert 'transformers' not in sys.modules"
    assert "TraceletCallback" in run(["-c", f"import sys, tracelet_hf; {known}; {unloaded}; print(dir(tracelet_hf))"])
