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
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TRACELET_")}
    ours = {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "TRACELET_COLLECTORS": ""}
    command = [sys.executable, "-W", "ignore", *command]
    done = subprocess.run(command, check=False, env=clean | ours, capture_output=True, text=True, timeout=280)
    assert done.returncode != 0 if expected is None else done.returncode == expected, done.stdout + done.stderr
    return done.stdout + done.stderr


def train(*trainings: tuple[Path, str, str], launcher: Sequence[str] = (), expected: int | None = 0) -> dict[Path, int]:
    """How the trainings of `training.py` ended, by directory. Each is a directory, a run id, and plans."""
    for directory, _, _ in trainings:
        directory.mkdir(exist_ok=True)
    arguments = [",".join([str(directory), run_id, *plans.split()]) for directory, run_id, plans in trainings]
    lines = run([*launcher, HERE / "training.py", *arguments], expected).splitlines()
    told = dict(line.split(" ended: ") for line in lines if " ended: " in line)
    return {Path(directory): int(status) for directory, status in told.items()}
