"""The page on many processes: its snippets and examples run as they stand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import tracelet
from tests.docs.test_pages import ROOT, snippets
from tests.processes.launching import environment, torchrun
from tracelet import RunStatus
from tracelet.journal.load import list_runs

EXAMPLES = ROOT / "docs" / "examples"


def test_the_first_snippet_of_the_page_runs_on_two_ranks(tmp_path: Path):
    code = snippets("docs/distributed.md")[0]
    (tmp_path / "snippet.py").write_text(code)
    torchrun(tmp_path / "snippet.py")
    run = tracelet.load_run("digits")
    assert [100, 100] == [len(run.series("train/loss", rank)) for rank in (0, 1)]


def test_the_torchrun_example_trains_on_two_ranks():
    torchrun(EXAMPLES / "torchrun_digits.py", "--epochs", "30")
    run = tracelet.load_run("digits")
    assert (RunStatus.FINISHED, [0, 1]) == (run.status, [state.rank for state in run.ranks])
    assert run.spread("train/accuracy").min[-1] > 0.8


def search(trials: int) -> subprocess.Popen[str]:
    command = [sys.executable, os.fspath(EXAMPLES / "optuna_digits.py"), "--trials", str(trials)]
    return subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_each_trial_of_an_optuna_study_on_two_processes_is_a_run():
    import optuna

    for number in (1, 2):  # The first one makes the tables; then two at once.
        processes = [search(4) for _ in range(number)]
        printed = [process.communicate()[0] for process in processes]
        assert [0] * number == [process.returncode for process in processes], "\n".join(printed)
    trials = optuna.load_study(study_name="digits", storage="sqlite:///optuna.db").trials
    runs = {int(run.tags["trial"]): run for run in list_runs("tracelet_runs")}
    assert 12 == len(trials) == len(runs)
    for trial in trials:
        run = runs[trial.number]
        assert (RunStatus.FINISHED, trial.params["lr"]) == (run.status, pytest.approx(run.params["lr"]))
        assert trial.state.name.lower() == run.tags["state"]
        objective = [trial.value] if trial.state is optuna.trial.TrialState.COMPLETE else None
        assert objective == (run.series("objective").values.tolist() if "objective" in run.names() else None)
        assert list(trial.intermediate_values.values()) == run.series("val/accuracy").values.tolist()
