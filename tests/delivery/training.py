"""Trainings that a test starts in a process of their own, to kill it."""

from __future__ import annotations

import multiprocessing.synchronize
import time
from pathlib import Path

from tracelet import Experiment
from tracelet.backends.jsonl_backend import JsonLinesBackend


def log_for_ever(run_dir: Path, attempt: int, under_way: multiprocessing.synchronize.Event) -> None:
    """Log values that no other attempt has, until somebody kills this process."""
    project, root = run_dir.parent.name, run_dir.parent.parent
    experiment = Experiment(
        "killed", backend=JsonLinesBackend(), project=project, run_id=run_dir.name, dir=root
    ).start()
    for step in range(10**6):  # A minute or two: nothing is left behind by a test that was killed itself.
        experiment.log_metric("loss", attempt * 1e9 + step, step)
        if step % 20 == 0:
            time.sleep(0.001)  # Else the backlog grows from attempt to attempt.
        if step % 100 == 0:
            experiment.log_text("note", f"{attempt}/{step}", step)
        if step == 1000:
            experiment.flush()
            under_way.set()
