"""Runs programs that train."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


def run(command: Sequence[str | Path], expected: int | None = 0) -> str:
    """The output of a Python program, which ends with this status; None for any that is not 0."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-W", "ignore", *command]
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode != 0 if expected is None else done.returncode == expected, done.stdout + done.stderr
    return done.stdout + done.stderr


def python(run_id: str, plans: Sequence[str], expected: int | None = 0, launcher: Sequence[str] = ()) -> str:
    """`training.py`, with these plans."""
    return run([*launcher, HERE / "training.py", run_id, *plans], expected)
