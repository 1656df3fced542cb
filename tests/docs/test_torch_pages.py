"""The page on PyTorch: each snippet runs as it stands, and so do the examples."""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

import pytest

import tracelet
from tests.docs.test_pages import ROOT, snippets
from tracelet import MetricType, RunStatus

PAGE = "docs/adapters/torch.md"
EXAMPLES = ROOT / "docs" / "examples"


def test_the_snippets_of_the_page_run():
    namespace = runpy.run_path(os.fspath(EXAMPLES / "torch_digits.py"))
    for number, snippet in enumerate(snippets(PAGE), 1):
        if "--8<--" not in snippet:
            exec(compile(snippet, f"{PAGE}, snippet {number}", "exec"), namespace)  # noqa: S102  Our own page.
    runs = {run.name: run for run in (tracelet.Run(file.parent) for file in Path("tracelet_runs").glob("*/*/run.json"))}
    assert {RunStatus.FINISHED} == {run.status for run in runs.values()}
    assert {"digits", "mixed precision", "two", "runs/digits"} == set(runs)
    assert "train/grad_norm" in runs["digits"].names()
    assert {0, 20} == {record.iteration for record in runs["mixed precision"].records(MetricType.HISTOGRAM)}
    assert ["critic/train/grad_norm", "critic/train/learning_rate", "critic/train/param_norm"] == runs["two"].names()
    assert 100 == len(runs["runs/digits"].series("loss"))


def test_the_example_trains_and_says_where_it_is_recorded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys, "argv", ["torch_digits.py", "--epochs", "5"])
    runpy.run_path(os.fspath(EXAMPLES / "torch_digits.py"), run_name="__main__")
    recorded = tracelet.load_run("latest")
    assert f"Recorded as {recorded.id} in {recorded.path.absolute()}\n" == capsys.readouterr().out
    assert ("torch", RunStatus.FINISHED) == (recorded.project, recorded.status)
    assert recorded.series("val/accuracy").values[-1] > 0.85
    steps = len(recorded.series("train/loss"))
    assert list(range(steps)) == recorded.series("train/grad_norm").steps.tolist()
