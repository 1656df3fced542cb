"""The page on JAX: each snippet runs as it stands, and so do the examples."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import tracelet
from tests.docs.test_pages import ROOT, snippets
from tracelet import RunStatus

EXAMPLES = ROOT / "docs" / "examples"
NAMES = """
import jax, jax.numpy as jnp, numpy as np, optax
from flax import linen as nn
network = nn.Dense(2)
params = {"w": np.ones((3, 2), np.float32), "b": np.zeros(2, np.float32)}
tx = optax.inject_hyperparams(optax.sgd)(learning_rate=0.1)
loss_of = lambda params, batch: jnp.mean((batch @ params["w"] + params["b"]) ** 2)
batches = [jnp.full((4, 3), float(index)) for index in range(4)]
"""


def run(*arguments: str) -> str:
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "TRACELET_COLLECTORS": "[]"}
    done = subprocess.run([sys.executable, *arguments], check=False, capture_output=True, text=True, env=environment)
    assert 0 == done.returncode, done.stderr
    return done.stdout


def test_the_snippets_of_the_page_run():
    program = Path("page.py")
    program.write_text("\n".join([NAMES, *(text for text in snippets("docs/adapters/jax.md") if "--8<--" not in text)]))
    run(str(program))
    runs = [tracelet.Run(file.parent) for file in Path("tracelet_runs").glob("*/*/run.json")]
    assert 8 == len(runs)
    assert {RunStatus.FINISHED} == {recorded.status for recorded in runs}
    for recorded in runs:
        assert 3 <= max(len(recorded.series(name)) for name in recorded.names()) <= 4


@pytest.mark.parametrize("kind", ["flax", "nnx"])
def test_an_example_trains_and_says_where_it_is_recorded(kind):
    printed = run(str(EXAMPLES / f"{kind}_digits.py"), "--epochs", "2")
    recorded = tracelet.load_run("latest")
    assert f"Recorded as {recorded.id} in {recorded.path.absolute()}\n" == printed
    assert (kind, RunStatus.FINISHED) == (recorded.project, recorded.status)
    assert [*range(1, 2 * 22 + 1)] == recorded.series("train/loss").steps.tolist()
    assert [22, 44] == recorded.series("val/accuracy").steps.tolist()
    assert recorded.series("val/accuracy").values[-1] > 0.8
