"""Several processes: ranks, copies that are pickled, the end of the program."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import tracelet
from tests.adapters.lightning.helpers import BATCHES, Lightning, digits
from tracelet import RunStatus

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


def python(*arguments: str | Path, succeeds: bool = True) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", *arguments]
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
    assert (done.returncode == 0) is succeeds, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("namespace", "strategy", "plan"),
    [
        ("lightning.pytorch", "ddp", ""),
        ("pytorch_lightning", "ddp", "begun"),
        ("lightning.pytorch", "ddp_fork", ""),
        ("pytorch_lightning", "ddp_fork", "begun"),
        ("lightning.pytorch", "ddp_spawn", "begun"),
        ("pytorch_lightning", "ddp_spawn", ""),
    ],
)
def test_rank_zero_records_one_run_and_the_others_nothing(namespace: str, strategy: str, plan: str):
    python(HERE / "training.py", namespace, strategy, *plan.split())
    run = tracelet.load_run("ddp")
    assert RunStatus.FINISHED is run.status
    expected = {"after": 1, "epoch": 9, "loss": 8, "rank": 8, "test/loss": 1} | ({"before": 1} if plan else {})
    assert expected == {name: len(run.series(name)) for name in run.names()}
    assert {0.0} == set(run.series("rank").values.tolist())
    assert plan == run.params["plan"]
    assert ["run.json"] == [path.name for path in Path("tracelet_runs").glob("*/*/*.json")]
    # One log a process of rank zero: the program's, and where there were others, that of each stage.
    assert (1 if strategy == "ddp" else 3) == len(list(run.path.glob("*.log")))


@pytest.mark.parametrize("strategy", ["ddp", "ddp_fork"])
def test_failure_in_a_rank_is_a_failure_of_the_run(strategy: str):
    python(HERE / "training.py", "lightning.pytorch", strategy, "fails", succeeds=False)
    run = tracelet.load_run("ddp")
    assert (RunStatus.FAILED, 3) == (run.status, len(run.series("loss")))
    assert "RuntimeError: no memory" in run.error


PROGRAM = """
from tracelet_lightning import TraceletLogger
TraceletLogger(run_id="r").log_metrics({"a": 1.0}, 0)
"""


@pytest.mark.parametrize(
    ("last_line", "status"),
    [("", RunStatus.FINISHED), ("1 / 0", RunStatus.FAILED), ("import os; os._exit(1)", RunStatus.KILLED)],
)
def test_end_of_the_program_is_the_end_of_the_run(last_line: str, status: RunStatus):
    python("-c", PROGRAM + last_line, succeeds=not last_line)
    run = tracelet.load_run("r")
    assert (status, [1.0]) == (run.status, run.series("a").values.tolist())


LOAD = """
import pickle, sys
logger = pickle.loads(open(sys.argv[1], "rb").read())
logger.log_metrics({"a": 2.0}, 1)
"""


@pytest.mark.parametrize("begun", [False, True])
def test_pickled_logger_goes_on_in_another_process(pl: Lightning, begun: bool, tmp_path: Path):
    logger = pl.Logger(config={"lr": 0.1}, dir="elsewhere")
    if begun:
        logger.log_metrics({"a": 1.0}, 0)
    (tmp_path / "logger").write_bytes(pickle.dumps(logger))
    python("-c", LOAD, tmp_path / "logger")
    if begun:
        assert RunStatus.RUNNING is tracelet.load_run(logger.log_dir).status
    logger.log_metrics({"a": 3.0}, 2)
    logger.stop()
    run = tracelet.load_run(logger.log_dir)
    assert RunStatus.FINISHED is run.status
    assert {3.0, 2.0, *([1.0] if begun else [])} == set(run.series("a").values.tolist())
    assert 0.1 == run.params["lr"]


def test_trainer_pickles_after_a_training_and_its_logger_goes_on(pl: Lightning):
    logger = pl.Logger()
    trainer = pl.module.Trainer(
        accelerator="cpu", logger=logger, max_epochs=1, log_every_n_steps=1,
        enable_checkpointing=False, enable_model_summary=False, enable_progress_bar=False,
    )  # fmt: skip
    before = pickle.loads(pickle.dumps(trainer))
    model = pl.model()
    trainer.fit(model, digits())
    trainer.strategy.model = trainer.strategy._lightning_module = None  # A class of a function does not pickle.
    trainer.fit_loop._combined_loader = trainer.fit_loop._data_source.instance = None
    after = pickle.loads(pickle.dumps(trainer))
    for copy in (before, after):
        copy.logger.log_metrics({"copy": 1.0}, 0)
        assert (logger.name, logger.version, logger.save_dir) == (
            copy.logger.name,
            copy.logger.version,
            copy.logger.save_dir,
        )
    run = tracelet.load_run(logger.version)
    assert (BATCHES, 2) == (len(run.series("train/accuracy")), len(run.series("copy")))
