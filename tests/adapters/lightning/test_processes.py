"""Several processes: ranks, copies that are pickled, the end of the program."""

from __future__ import annotations

import importlib
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import tracelet
from tests.adapters.lightning.helpers import Lightning
from tests.forking import ForkingProcess
from tracelet import RunStatus
from tracelet_lightning import TraceletLogger

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


def python(*arguments: str | Path, succeeds: bool = True) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "ignore", *arguments]
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
    assert (done.returncode == 0) is succeeds, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("namespace", "strategy", "plan"),
    [
        ("lightning.pytorch", "ddp", "after"),
        ("pytorch_lightning", "ddp_fork", ""),
        ("lightning.pytorch", "ddp_fork", "begun after"),
        ("lightning.pytorch", "ddp_spawn", "begun after"),
    ],
)
def test_rank_zero_records_one_run_and_the_others_nothing(namespace: str, strategy: str, plan: str):
    python(HERE / "training.py", namespace, strategy, *plan.split())
    run = tracelet.load_run("ddp")
    assert RunStatus.FINISHED is run.status
    expected = {"epoch": 9, "loss": 8, "rank": 8, "test/loss": 1} | dict.fromkeys(plan.split(), 1)
    expected |= dict.fromkeys(["lr-SGD", "throughput/samples_per_s", "throughput/step_time_s"], 8)
    assert expected == {name: len(run.series(name)) for name in run.names()}
    assert {0.0} == set(run.series("rank").values.tolist())
    assert plan == run.params["plan"]
    assert 1 == len(list(Path("tracelet_runs").glob("*/*/run.json")))
    # One log a process that recorded: the program, and with the other strategies the rank zero of each stage.
    assert (1 if strategy == "ddp" else 3 if plan else 2) == len(list(run.path.glob("*.log")))


@pytest.mark.parametrize(("strategy", "plan"), [("ddp", "ranks"), ("ddp_fork", "ranks alone")])
def test_all_ranks_record_into_one_run_where_that_is_wanted(strategy: str, plan: str):
    python(HERE / "training.py", "lightning.pytorch", strategy, *plan.split())
    run = tracelet.load_run("ddp")
    assert 1 == len(list(Path("tracelet_runs").glob("*/*/run.json")))
    for name in ("lr-SGD", "throughput/step_time_s", *(["loss"] if "alone" in plan else [])):
        assert [list(range(8))] * 2 == [run.series(name, rank).steps.tolist() for rank in (0, 1)]
    if "alone" in plan:
        assert run.series("loss", 0).values.tolist() != run.series("loss", 1).values.tolist()
        assert 1 == len(run.series("test/loss"))


def test_two_ranks_resume_the_run_of_the_checkpoint_and_save_on_in_its_place():
    python(HERE / "training.py", "lightning.pytorch", "ddp", "saves", "fails5", succeeds=False)
    python(HERE / "training.py", "lightning.pytorch", "ddp", "resumes")
    (path,) = Path("tracelet_runs").glob("*/*")
    run = tracelet.Run(path)
    assert (RunStatus.FINISHED, list(range(8))) == (run.status, run.live("loss").steps.tolist())
    assert [0, 1, 2, 3, 4, 4, 5, 6, 7] == run.series("loss").steps.tolist()
    assert ["epoch=0-step=8.ckpt", "last.ckpt"] == sorted(file.name for file in path.rglob("*.ckpt"))


def test_failure_in_a_rank_is_a_failure_of_the_run():
    python(HERE / "training.py", "lightning.pytorch", "ddp_fork", "fails", succeeds=False)
    run = tracelet.load_run("ddp")
    assert (RunStatus.FAILED, 3) == (run.status, len(run.series("loss")))
    assert "RuntimeError: no memory" in run.error


@pytest.fixture(scope="module")
def forking() -> Iterator[ForkingProcess]:
    process = ForkingProcess("tracelet_lightning", "lightning.pytorch")
    yield process
    process.close()


PROGRAM = """
from tracelet_lightning import TraceletLogger
TraceletLogger(run_id="r").log_metrics({"a": 1.0}, 0)
"""


@pytest.mark.parametrize(
    ("last_line", "status"),
    [("", RunStatus.FINISHED), ("1 / 0", RunStatus.FAILED), ("import os; os._exit(1)", RunStatus.KILLED)],
)
def test_end_of_the_program_is_the_end_of_the_run(forking: ForkingProcess, last_line: str, status: RunStatus):
    ended, printed = forking.run(PROGRAM + last_line)
    assert (1 if last_line else 0) == ended, printed
    run = tracelet.load_run("r")
    assert (status, [1.0]) == (run.status, run.series("a").values.tolist())


LOAD = """
import pickle, sys
logger = pickle.loads(open(sys.argv[1], "rb").read())
logger.log_metrics({"a": 2.0}, 1)
"""


@pytest.mark.parametrize("begun", [False, True])
def test_pickled_logger_goes_on_in_another_process(forking: ForkingProcess, begun: bool, tmp_path: Path):
    logger = TraceletLogger(config={"lr": 0.1}, dir="elsewhere")
    if begun:
        logger.log_metrics({"a": 1.0}, 0)
    (tmp_path / "logger").write_bytes(pickle.dumps(logger))
    ended, printed = forking.run(LOAD, tmp_path / "logger")
    assert 0 == ended, printed
    assert (RunStatus.RUNNING if begun else RunStatus.FINISHED) is tracelet.load_run(logger.log_dir).status
    logger.log_metrics({"a": 3.0}, 2)
    logger.stop()
    run = tracelet.load_run(logger.log_dir)
    assert RunStatus.FINISHED is run.status
    assert {3.0, 2.0, *([1.0] if begun else [])} == set(run.series("a").values.tolist())
    assert 0.1 == run.params["lr"]


# Pickling runs code of Lightning and torch, which warn of each other on our account.
@pytest.mark.filterwarnings("ignore:.isinstance.treespec:FutureWarning")
def test_trainer_pickles_after_a_training_and_its_logger_goes_on(pl: Lightning):
    boring = importlib.import_module(f"{pl.module.__name__}.demos.boring_classes")
    logger = pl.Logger()
    trainer = pl.trainer(logger, limit_train_batches=2)
    before = pickle.loads(pickle.dumps(trainer))
    trainer.fit(boring.BoringModel())
    logger.log_metrics({"a": 1.0}, 0)
    after = pickle.loads(pickle.dumps(trainer))
    for copy in (before, after):
        copy.logger.log_metrics({"a": 2.0}, 1)
        assert copy.logger.experiment is logger.experiment
    assert [1.0, 2.0, 2.0] == tracelet.load_run(logger.version).series("a").values.tolist()
