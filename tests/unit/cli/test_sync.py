from __future__ import annotations

import json
from pathlib import Path

import pytest

from tracelet import Experiment


@pytest.fixture
def run() -> Experiment:
    with Experiment("digits") as experiment:
        for step in range(10):
            experiment.log_metric("loss", 1.0, step)
    return experiment


def sent(run: Experiment, name: str = "jsonl") -> list[str]:
    return (run.run_dir / "delivery" / name / "records.jsonl").read_text().splitlines()


def test_a_run_is_sent_and_the_table_says_so(run, tracelet):
    output = tracelet("sync", "latest", "--to", "jsonl").stdout
    head, row, address = (line.split() for line in output.splitlines())
    assert ["RUN", "BACKEND", "STATE", "DELIVERED", "WAITING", "REJECTED"] == head
    assert [run.run_id, "jsonl", "complete", "11", "0", "0"] == row
    assert [f"{run.run_id},", "jsonl:"] == address[:2]
    assert Path(address[2].removeprefix("file://")).is_file()
    assert 11 == len(sent(run))


def test_without_a_name_it_goes_where_it_went_before_or_where_the_setting_says(run, tracelet, monkeypatch):
    error = tracelet("sync", "latest", code=1).stderr
    assert "say where with --to" in error
    monkeypatch.setenv("TRACELET_BACKEND", "jsonl")
    assert "jsonl" == json.loads(tracelet("sync", "latest", "--json").stdout)[0]["backend"]
    monkeypatch.delenv("TRACELET_BACKEND")
    assert "jsonl" == json.loads(tracelet("sync", "latest", "--json").stdout)[0]["backend"]
    assert 11 == len(sent(run))


def test_what_is_left_gives_exit_code_1(run, tracelet, monkeypatch):
    Path("directory").mkdir()
    monkeypatch.setenv("TRACELET_PLUGINS__JSONL__PATH", "directory")
    result = tracelet("sync", "latest", "--to", "jsonl", "--timeout", "0.1", "--json", code=1)
    [row] = json.loads(result.stdout)
    assert (0, 11) == (row["delivered"], row["waiting"])
    assert "directory" in row["error"]


def test_several_backends_and_runs(run, tracelet):
    rows = json.loads(tracelet("sync", run.run_id, "latest", "--to", "jsonl,memory", "--json").stdout)
    assert [(run.run_id, "jsonl"), (run.run_id, "memory")] * 2 == [(row["run"], row["backend"]) for row in rows]


def test_an_unknown_backend_is_one_line(run, tracelet):
    assert (
        "no plug-in 'jsonk' (did you mean 'jsonl'?) is installed"
        in tracelet("sync", "latest", "--to", "jsonk", code=1).stderr
    )
