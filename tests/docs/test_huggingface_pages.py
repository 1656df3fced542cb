"""The page on Hugging Face: each snippet runs as it stands, and so does the example."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import tracelet
from tests.docs.test_pages import ROOT, snippets
from tracelet import RunStatus

EXAMPLE = ROOT / "docs" / "examples" / "huggingface_reviews.py"
PAGE = "docs/adapters/huggingface.md"
# Hugging Face gives advice on the small trainings of the page, and its packages warn of each other.
pytestmark = pytest.mark.filterwarnings("ignore")


def test_the_snippets_of_the_page_run():
    namespace = runpy.run_path(str(EXAMPLE))
    for number, snippet in enumerate(snippets(PAGE), 1):
        exec(compile(snippet, f"{PAGE}, snippet {number}", "exec"), namespace)  # noqa: S102  Our own page.
    runs = [tracelet.Run(file.parent) for file in Path("tracelet_runs").glob("*/*/run.json")]
    assert {RunStatus.FINISHED} == {run.status for run in runs}
    assert {"huggingface", "two rates", "a loop"} == {run.name for run in runs}


def test_the_example_trains_and_says_where_its_run_is(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = subprocess.run([sys.executable, EXAMPLE], check=True, capture_output=True, text=True)
    run = tracelet.load_run("latest")
    assert ("reviews", RunStatus.FINISHED) == (run.project, run.status)
    assert run.series("test/accuracy").values[-1] > 0.85
    assert f"tracelet show {run.id}" in done.stdout


def test_each_argument_of_the_callback_is_in_the_table():
    from inspect import signature

    from tracelet_hf import TraceletCallback

    page = (ROOT / PAGE).read_text()
    table = page[page.index("## Arguments") : page.index("## Accelerate")]
    assert [] == [name for name in signature(TraceletCallback).parameters if f"`{name}`" not in table]
