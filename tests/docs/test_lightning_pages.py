"""The pages on Lightning: each snippet runs as it stands, and so do the examples and the quick start."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import tracelet
from tests.docs.test_pages import ROOT, snippets
from tracelet import RunStatus

EXAMPLES = ROOT / "docs" / "examples"
# Lightning gives advice on the small trainings of the pages, and other packages warn of each other.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("page", ["docs/quickstart.md", "docs/adapters/lightning.md"])
def test_the_snippets_of_a_page_run(page: str):
    namespace = runpy.run_path(str(EXAMPLES / "lightning_digits.py"))
    for number, snippet in enumerate(snippets(page), 1):
        if "--8<--" not in snippet:
            exec(compile(snippet, f"{page}, snippet {number}", "exec"), namespace)  # noqa: S102  Our own page.
    runs = [tracelet.Run(file.parent) for file in Path("tracelet_runs").glob("*/*/run.json")]
    assert {RunStatus.FINISHED} == {run.status for run in runs}


def test_the_quick_start_trains_shows_and_plots(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    command = [sys.executable, EXAMPLES / "quickstart.py"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    run = tracelet.load_run("latest")
    assert ("quickstart", RunStatus.FINISHED) == (run.project, run.status)
    assert run.series("val/accuracy").values[-1] > 0.85
    assert f"show {run.id}" in done.stdout
    assert f"plot {run.id} train/loss val/loss" in done.stdout
    assert f"compare {run.id} latest" in done.stdout
    assert "" == done.stderr
