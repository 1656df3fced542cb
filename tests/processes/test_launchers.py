"""Which run a process of a job shares, by what its launcher has put into the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

import tracelet
from tracelet import Experiment, RunStatus
from tracelet.core.ranks import Place, place_in_job
from tracelet.errors import UsageError
from tracelet.journal.load import list_runs

TORCHRUN = {
    "RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "none",
    "TORCHELASTIC_ERROR_FILE": "/tmp/torchelastic_ab/none_cd/attempt_0/1/error.json",
}  # fmt: skip
SLURM = {"SLURM_JOB_ID": "42", "SLURM_STEP_ID": "0", "SLURM_PROCID": "3", "SLURM_NTASKS": "8"}


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        pytest.param({}, Place(), id="none"),
        pytest.param(TORCHRUN, Place(1, 2, "/tmp/torchelastic_ab/none_cd", True), id="torchrun"),
        pytest.param(
            {**TORCHRUN, "TORCHELASTIC_ERROR_FILE": "/tmp/torchelastic_ab/none_cd/attempt_1/0/error.json"},
            Place(1, 2, "/tmp/torchelastic_ab/none_cd", True), id="torchrun, started again",
        ),
        pytest.param(
            {**TORCHRUN, "WORLD_SIZE": "4"}, Place(1, 4, "/tmp/torchelastic_ab/none_cd"), id="torchrun on two hosts"
        ),
        pytest.param({"RANK": "1", "WORLD_SIZE": "2"}, Place(1, 2), id="by hand"),
        pytest.param(SLURM, Place(3, 8, "/42/0", True), id="srun"),
        pytest.param({**SLURM, **TORCHRUN}, Place(1, 2, "/tmp/torchelastic_ab/none_cd", True), id="torchrun in srun"),
        pytest.param({**SLURM, "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, Place(), id="a shell in srun"),
        pytest.param({"SLURM_JOB_ID": "42", "SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, Place(0, 8), id="sbatch"),
        pytest.param(
            {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "PMIX_NAMESPACE": "prterun-host-7@1"},
            Place(1, 2, "prterun-host-7@1", True), id="mpirun",
        ),
        pytest.param({"PMI_RANK": "1", "PMI_SIZE": "2"}, Place(1, 2), id="another MPI"),
        pytest.param({"LOCAL_RANK": "1", "WORLD_SIZE": "2"}, Place(1, 2), id="Lightning"),
        pytest.param({"RANK": "one", "WORLD_SIZE": "2"}, Place(), id="nonsense"),
    ],
)  # fmt: skip
def test_the_environment_says_where_a_process_stands(environment: dict[str, str], place: Place):
    assert place == place_in_job(environment)


def shared(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], **options: object) -> Experiment:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return tracelet.shared_experiment("e", **options)


def test_outside_of_a_job_it_is_an_experiment_like_any_other():
    with tracelet.shared_experiment("e", config={"lr": 1}) as experiment:
        experiment.log_metric("loss", 0.5)
    run = tracelet.load_run("e")
    assert (RunStatus.FINISHED, {"lr": 1}, [0]) == (run.status, run.params, [state.rank for state in run.ranks])


def test_a_rank_that_can_not_know_its_run_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(UsageError, match=r"rank 1 of 4 processes.*init_process_group.*run_id="):
        shared(monkeypatch, {**TORCHRUN, "WORLD_SIZE": "4"})
    assert not Path("tracelet_runs").exists()


def test_a_rank_that_comes_before_the_first_one_shares_its_run(monkeypatch: pytest.MonkeyPatch):
    with shared(monkeypatch, {}, run_id="r", rank=1) as other:
        other.log_metric("loss", 1.0, 0)
    assert RunStatus.KILLED is tracelet.load_run("r").status  # Nobody leads it so far.
    with shared(monkeypatch, {}, run_id="r", rank=0) as first:
        first.log_metric("loss", 0.0, 0)
    run = tracelet.load_run("r")
    assert (RunStatus.FINISHED, 1) == (run.status, len(run.attempts))
    assert [[0.0], [1.0]] == [run.series("loss", rank).values.tolist() for rank in (0, 1)]


def test_each_run_that_a_job_shares_is_another_one(monkeypatch: pytest.MonkeyPatch):
    ids = []
    for _ in range(2):  # The folds of a cross-validation, say.
        with shared(monkeypatch, {**TORCHRUN, "RANK": "0", "TORCHELASTIC_ERROR_FILE": "/t/fold/attempt_0/0"}) as first:
            ids.append(first.run_id)
    assert 2 == len(set(ids)) == len(list_runs("tracelet_runs"))


def test_a_checkpoint_names_the_run_for_every_rank(monkeypatch: pytest.MonkeyPatch):
    with Experiment("e") as before:
        state = before.resume_state(step=3)
    with shared(monkeypatch, {}, resume=state, rank=1) as other:
        other.log_metric("loss", 1.0, 4)
        assert before.run_id == other.run_id


def test_a_disabled_experiment_is_disabled_on_every_rank(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TRACELET_DISABLED", "true")
    for rank in (0, 1):
        with shared(monkeypatch, {}, run_id="r", rank=rank) as experiment:
            experiment.log_metric("loss", 1.0)
    assert not Path("tracelet_runs").exists()
