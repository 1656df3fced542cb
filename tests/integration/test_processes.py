"""Several processes record one run: each record is kept once, whichever way the process came to its experiment."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import tracelet
from tracelet import Experiment, Run, TraceletSettings, get_active_experiment
from tracelet.journal.reader import first_line

COUNT = 50


@pytest.fixture
def experiment(tmp_path: Path) -> Iterator[Experiment]:
    experiment = Experiment("e", run_id="r", config={"lr": 1}, dir=tmp_path / "runs", backend="jsonl").start()
    experiment.log_metric("parent", 1.0)
    yield experiment
    experiment.stop()


def logs_of(run_dir: Path) -> list[dict[str, Any]]:
    return [line for path in run_dir.glob("*.log") if (line := first_line(path))]


def read(experiment: Experiment, workers: int) -> Run:
    """The run, with what each worker has logged."""
    run = tracelet.load_run(experiment.run_dir)
    assert {"parent", *(f"worker {number}/{name}" for number in range(workers) for name in "ab")} == set(run.names())
    for number in range(workers):
        for name in "ab":
            series = run.series(f"worker {number}/{name}")
            assert list(range(COUNT)) == series.steps.tolist() == series.values.tolist()
        assert [(step, str(step)) for step in range(COUNT)] == run.texts(f"worker {number}/text")
    assert (0, 0, 0) == (run.lost, run.damage.records, run.damage.lines)
    assert {"lr": 1} == run.params
    return run


def log(experiment: Experiment, number: int) -> None:
    for step in range(COUNT):
        experiment.log_metric(f"worker {number}/a", float(step), step)
        experiment.log_metrics({f"worker {number}/b": step}, step)
        experiment.log_text(f"worker {number}/text", str(step), step)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_log_through_the_experiment_that_they_were_given(method: str, experiment: Experiment):
    context = multiprocessing.get_context(method)
    processes = [context.Process(target=log, args=(experiment, number)) for number in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [0, 0] == [process.exitcode for process in processes]
    assert "running" == read(experiment, 2).status.value
    experiment.stop()
    assert "finished" == read(experiment, 2).status.value
    roles = sorted(line["role"] for line in logs_of(experiment.run_dir))
    assert (["child"] * 2 + ["main"] if method == "fork" else ["attached"] * 2 + ["main"]) == roles
    assert 0 == experiment.status()["backends"]["jsonl"].waiting  # The parent delivers for all of them.


def log_task(experiment: Experiment, number: int) -> tuple[int, bool]:
    log(experiment, number)
    return os.getpid(), get_active_experiment() is experiment


def log_and_stop(experiment: Experiment, number: int) -> tuple[int, bool]:
    try:
        return log_task(experiment, number)
    finally:
        experiment.stop()


@pytest.mark.parametrize("task", [log_task, log_and_stop])
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_pool_hands_the_experiment_to_each_task(method: str, task: Any, experiment: Experiment):
    with ProcessPoolExecutor(1, multiprocessing.get_context(method)) as pool:
        pids, are_active = zip(*pool.map(task, [experiment] * 4, range(4)), strict=True)
    assert 1 == len(set(pids))
    assert all(are_active)
    read(experiment, 4)
    assert (2 if task is log_task else 5) == len(logs_of(experiment.run_dir))


@pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes")
@pytest.mark.parametrize("persistent", [False, True])
def test_data_loader_workers_log(persistent: bool, experiment: Experiment):
    import torch.utils.data

    class Data(torch.utils.data.Dataset[int]):
        def __len__(self) -> int:
            return 3 * COUNT

        def __getitem__(self, index: int) -> int:
            number, step = divmod(index, COUNT)
            experiment.log_metric(f"worker {number}/a", float(step), step)
            experiment.log_metrics({f"worker {number}/b": float(step)}, step)
            experiment.log_text(f"worker {number}/text", str(step), step)
            return index

    loader = torch.utils.data.DataLoader(
        Data(), batch_size=COUNT, num_workers=3, persistent_workers=persistent, multiprocessing_context="fork"
    )
    assert 3 == len(list(loader))
    del loader
    read(experiment, 3)
    assert 4 == len(logs_of(experiment.run_dir))


def attach_and_log(run_dir: Path, number: int) -> None:
    with Experiment.attach(run_dir, rank=number) as experiment:
        log(experiment, number)
        assert experiment.flush()


def test_another_process_attaches_to_the_run(experiment: Experiment):
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=attach_and_log, args=(experiment.run_dir, 0))
    process.start()
    process.join()
    assert 0 == process.exitcode
    assert "running" == read(experiment, 1).status.value
    assert {None, 0} == {line["rank"] for line in logs_of(experiment.run_dir)}


def resume_and_log(directory: Path, number: int, barrier: Any) -> None:
    experiment = Experiment("e", run_id="r", dir=directory)
    barrier.wait()
    with experiment:
        barrier.wait()
        log(experiment, number)
        barrier.wait()


@pytest.mark.parametrize("is_there", [True, False])
def test_processes_that_start_one_run_id_at_once_are_both_kept(is_there: bool, tmp_path: Path):
    if is_there:
        Experiment("e", run_id="r", dir=tmp_path).start().stop()
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)
    processes = [context.Process(target=resume_and_log, args=(tmp_path, number, barrier)) for number in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [0, 0] == [process.exitcode for process in processes]
    run = tracelet.load_run("r", dir=tmp_path)
    for number in range(2):
        assert list(range(COUNT)) == run.series(f"worker {number}/a").steps.tolist()
        assert COUNT == len(run.texts(f"worker {number}/text"))
    assert "finished" == run.status.value
    logs = logs_of(run.path)
    assert (3 if is_there else 2) == len(logs)
    assert {run.uuid} == {line["run"] for line in logs}
    assert (run.damage.records, run.damage.lines, run.damage.files) == (0, 0, [])


def start_unpickled(pickled: bytes) -> None:
    with pickle.loads(pickled) as experiment:
        log(experiment, 0)


def test_an_experiment_that_was_not_running_can_be_started_in_another_process(tmp_path: Path):
    experiment = Experiment("e", run_id="r", config={"lr": 1}, tags=["t"], dir=tmp_path, backend="jsonl")
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=start_unpickled, args=(pickle.dumps(experiment),))
    process.start()
    process.join()
    assert 0 == process.exitcode
    run = tracelet.load_run("r", dir=tmp_path)
    assert ({"lr": 1}, {"t": ""}, "finished") == (run.params, run.tags, run.status.value)
    assert (run.path / "delivery" / "jsonl").exists()


def test_a_disabled_experiment_is_disabled_in_other_processes_too(tmp_path: Path):
    settings = TraceletSettings(disabled=True)
    pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
    with Experiment("e", dir=tmp_path / "runs", settings=settings) as experiment, pool:
        pool.submit(log, experiment, 0).result()
    assert [] == os.listdir(tmp_path)
