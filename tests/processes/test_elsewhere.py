"""Ranks that no torchrun starts: `jax.distributed`, containers, Ray Train, a sweep of processes."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.processes.launching import HERE, environment, together
from tracelet import Experiment, Run, RunStatus
from tracelet.journal.load import list_runs


def only_run(directory: Path) -> Run:
    (run,) = list_runs(directory)
    assert RunStatus.FINISHED is run.status
    for rank in (0, 1):
        assert [rank, rank + 1, rank + 2] == run.series("loss", rank).values.tolist()
    return run


def test_jax_processes_share_a_run(tmp_path: Path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    together("jax_ranks.py", str(port), os.fspath(tmp_path))
    assert "jäx" == only_run(tmp_path).name


@pytest.mark.skipif(
    shutil.which("unshare") is None
    or subprocess.run(["unshare", "--pid", "--fork", "--uts", "true"], check=False, capture_output=True).returncode
    != 0,
    reason="namespaces need rights that this user does not have",
)
def test_two_containers_with_the_same_pid_share_a_run(tmp_path: Path):
    command = ["unshare", "--pid", "--fork", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"']
    started = [
        subprocess.Popen([*command, f"host{rank}", sys.executable, HERE / "containers.py", str(rank), tmp_path],
                         env=environment())
        for rank in (0, 1)
    ]  # fmt: skip
    assert [0, 0] == [process.wait() for process in started]
    states = only_run(tmp_path).ranks
    assert [("host0", 1), ("host1", 1)] == [(state.host, state.pid) for state in states]


def one_of_a_sweep(directory: Path, number: int, barrier: Any) -> None:
    barrier.wait()
    with Experiment("sweep", config={"number": number}, dir=directory) as experiment:
        barrier.wait()  # All of them run at the same time.
        for step in range(10):
            experiment.log_metric("loss", float(number), step)


def test_64_processes_that_start_runs_at_once_do_not_meet(tmp_path: Path):
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(64)
    processes = [context.Process(target=one_of_a_sweep, args=(tmp_path, number, barrier)) for number in range(64)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [0] * 64 == [process.exitcode for process in processes]
    runs = list_runs(tmp_path)
    assert 64 == len({run.id for run in runs}) == len({run.uuid for run in runs})
    assert set(range(64)) == {run.params["number"] for run in runs}
    for run in runs:
        assert RunStatus.FINISHED is run.status
        assert [run.params["number"]] * 10 == run.series("loss").values.tolist()


@pytest.mark.filterwarnings("ignore")  # Ray's own.
def test_the_workers_of_ray_train_share_a_run(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, HERE / "ray_workers.py", tmp_path / "runs", tmp_path / "ray"],
        env=environment(RAY_USAGE_STATS_ENABLED="0"), check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert 0 == done.returncode, done.stdout + done.stderr
    only_run(tmp_path / "runs")
