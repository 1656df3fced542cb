"""The page on Keras: each snippet runs as it stands, and so does the example."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import tracelet
from tests.docs.test_pages import ROOT, snippets
from tracelet import RunStatus

PAGE = "docs/adapters/keras.md"
EXAMPLES = ROOT / "docs" / "examples"


def run(backend: str, *arguments: str) -> str:
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": os.pathsep.join([str(ROOT), str(EXAMPLES)])}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert 0 == done.returncode, done.stderr
    return done.stdout


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_the_snippets_of_the_page_run(backend: str, tmp_path: Path):
    names = "from keras_digits import digits, network\n(images, labels), held_out = digits()\n"
    program = tmp_path / "page.py"
    program.write_text("\n".join([names, *snippets(PAGE)]))
    run(backend, str(program))
    runs = [tracelet.Run(file.parent) for file in Path("tracelet_runs").glob("*/*/run.json")]
    assert {RunStatus.FINISHED} == {run.status for run in runs}
    assert 10 == len(runs)


def test_the_example_trains_and_says_where_it_is_recorded():
    printed = run("jax", str(EXAMPLES / "keras_digits.py"), "--epochs", "4")
    recorded = tracelet.load_run("latest")
    assert f"Recorded as {recorded.id} in {recorded.path.absolute()}\n" == printed
    assert ("keras", RunStatus.FINISHED) == (recorded.project, recorded.status)
    assert recorded.series("val/accuracy").values[-1] > 0.85
