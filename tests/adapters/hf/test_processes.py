"""Programs of their own: how they end, and several ranks."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import tracelet
from tests.adapters.hf.helpers import STEPS, points
from tests.adapters.hf.programs import run, train
from tracelet import RunStatus
from tracelet.journal.reader import first_line

TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


ENDS = {
    "whole": ("", 0, RunStatus.FINISHED, None),
    "fails": ("fails", 1, RunStatus.FAILED, "RuntimeError: no memory"),
    "handled": ("handled", 0, RunStatus.FAILED, "The training ended before its end"),
    "interrupted": ("interrupted", -2, RunStatus.FAILED, "KeyboardInterrupt"),
    "killed": ("killed", -9, RunStatus.KILLED, None),
}


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, int]:
    """The directories of `ENDS`, and the exit statuses."""
    place = tmp_path_factory.mktemp("ends")
    return train(*((place / name, "r", plans) for name, (plans, *_) in ENDS.items()))


def test_the_end_of_the_program_is_the_end_of_the_run(ended: dict[Path, int]):
    assert list(ENDS) == [directory.name for directory in ended]
    for directory, exit_status in ended.items():
        _, expected, status, error = ENDS[directory.name]
        found = tracelet.load_run("r", dir=directory / "tracelet_runs")
        steps = {"whole": STEPS, "killed": 5}.get(directory.name, 3)
        assert (expected, status) == (exit_status, found.status), directory
        assert list(range(1, steps + 1)) == found.series("train/loss").steps.tolist(), directory
        assert found.error is None if error is None else error in (found.error or ""), directory


def test_after_a_kill_the_run_goes_on_and_superseded_steps_are_marked(ended: dict[Path, int]):
    first = next(directory for directory in ended if directory.name == "killed")
    second = shutil.copytree(first, first.with_name("copy"))
    # The second one finds the run where its checkpoint says: there it goes on once more.
    assert {first: 0, second: 0} == train((first, "r", "resumes"), (second, "r", "resumes restores"))

    run = tracelet.load_run("r", dir=first / "tracelet_runs")
    assert ["r"] == [path.name for path in run.path.parent.iterdir()]
    assert RunStatus.FINISHED is run.status
    steps = list(range(1, STEPS + 1))
    for name in ("train/loss", "train/grad_norm", "epoch"):
        assert [*steps[:5], *steps[4:], *steps[4:]] == run.series(name).steps.tolist()  # All attempts are kept.
        assert steps == run.live(name).steps.tolist()
    assert [(4, 4.0), (4, 4.0)] == points(run, "tracelet/rewind")
    assert [(STEPS, 0.0), (STEPS, 0.0)] == points(run, "after")


def test_of_two_ranks_the_first_records_one_run():
    train((Path(), "ddp", "evaluates"), launcher=TORCHRUN)
    found = tracelet.load_run("ddp")
    assert RunStatus.FINISHED is found.status
    assert list(range(1, STEPS // 2 + 1)) == found.series("train/loss").steps.tolist()
    assert ([0], [0.0]) == (found.series("eval/loss").steps.tolist(), found.series("after").values.tolist())
    assert 2 == found.params["world_size"]
    assert 1 == len(list(found.path.glob("*.log")))
    assert ["ddp"] == [path.name for path in found.path.parent.iterdir()]
    samples = found.series("throughput/samples_per_s").values * found.series("throughput/step_time_s").values
    assert [8.0] * (STEPS // 2) == pytest.approx(samples)


def test_all_ranks_record_into_one_run_where_that_is_wanted_and_resume_it():
    train((Path(), "ddp", "fails ranks evaluates"), expected=None, launcher=TORCHRUN)
    train((Path(), "ddp", "resumes restores ranks"), launcher=TORCHRUN)
    found = tracelet.load_run("ddp")
    assert RunStatus.FINISHED is found.status
    assert [0, 0, 1, 1] == sorted((first_line(log) or {})["rank"] for log in found.path.glob("*.log"))
    for name in ("train/loss", "rank/1/train/loss", "rank/1/throughput/step_time_s"):
        assert list(range(1, STEPS // 2 + 1)) == found.live(name).steps.tolist()
    assert [[0.0], [1.0]] == [found.series("after", rank).values.tolist() for rank in (0, 1)]
    assert found.live("train/loss").values == pytest.approx(found.live("rank/1/train/loss").values)
    assert ["ddp"] == [path.name for path in found.path.parent.iterdir()]


def test_importing_the_package_makes_the_tracker_known_and_loads_no_transformers():
    known = "from accelerate.tracking import LOGGER_TYPE_TO_CLASS as known; assert 'tracelet' in known"
    unloaded = "assert 'transformers' not in sys.modules"
    assert "TraceletCallback" in run(["-c", f"import sys, tracelet_hf; {known}; {unloaded}; print(dir(tracelet_hf))"])
