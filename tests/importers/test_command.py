from __future__ import annotations

import json

from typer.testing import CliRunner

from tracelet.cli import make_app
from tracelet.journal.load import list_runs


def tracelet(*arguments):
    return CliRunner().invoke(make_app(), ["import", *map(str, arguments)])


def test_import_prints_what_came_and_what_was_left_out(tensorboard_folder, tmp_path):
    done = tracelet("tensorboard", tensorboard_folder / "run", "--dir", tmp_path / "runs", "--project", "old")
    assert done.exit_code == 0, done.output
    (first, _) = sorted(list_runs(tmp_path / "runs"), key=lambda run: run.name)
    assert (first.name, first.project) == ("run", "old")
    assert f"{first.id}: data of the plug-in 'pr_curves' is left out: only TensorBoard's own view" in done.output
    again = tracelet(
        "tensorboard", tensorboard_folder / "run", "--dir", tmp_path / "runs", "--project", "old", "--json"
    )
    facts = json.loads(again.stdout)
    assert [(run["points"], run["records"]) for run in facts["runs"]] == [(0, 0), (0, 0)]
    assert facts["runs"][0]["omitted"][0]["count"] == 1


def test_dry_run_writes_nothing(tensorboard_folder, tmp_path):
    done = tracelet("tensorboard", tensorboard_folder, "--dir", tmp_path / "runs", "--dry-run")
    assert "Nothing was written: --dry-run." in done.output
    assert not (tmp_path / "runs").exists()


def test_import_passes_runs_straight_on(tmp_path):
    (tmp_path / "t.csv").write_text("step,x\n0,1\n1,2\n")
    done = tracelet("csv", "t.csv", "--dir", tmp_path / "runs", "--to", "jsonl", "--json")
    assert done.exit_code == 0, done.output
    (sent,) = json.loads(done.stdout)["deliveries"]
    assert (sent["backend"], sent["waiting"], sent["rejected"]) == ("jsonl", 0, 0)
    assert sent["delivered"] > 2


def test_mistakes_are_told_with_what_to_do(tmp_path):
    for arguments, told in {
        ("tensorbord", "x"): "did you mean 'tensorboard'?",
        ("csv", "missing.csv"): "there is no file or directory 'missing.csv'",
        ("csv", "t.csv", "-o", "stp=x"): "has no option 'stp'. It has: step, time, name, value, columns, separator",
        ("csv", "t.csv", "-o", "step"): "--option takes NAME=VALUE, not 'step'",
        ("mlflow", "nothing"): "is neither a folder of MLflow's file store",
        ("mlflow", "http://127.0.0.1:9"): "does not answer as it should",
    }.items():
        done = tracelet(*arguments)
        assert done.exit_code == 1
        assert told in " ".join(done.output.split())
