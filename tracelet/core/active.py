"""One-liners for scripts that have no place to keep an experiment. Called on any thread."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tracelet.core.arguments import Backends, Resume
from tracelet.core.experiment import Experiment
from tracelet.journal.status import RunStatus


def start_logging(
    name: str | None = None,
    backend: Backends | None = None,
    config: Any = None,
    tags: Mapping[str, str] | Sequence[str] | None = None,
    project: str | None = None,
    run_id: str | None = None,
    resume: Resume | bool | None = None,
) -> Experiment:
    """Start an experiment; `get_active_experiment()` gives it back.

    The arguments are those of `Experiment`; without a `name` the script's own is taken.
    """
    if name is None:
        script = Path(sys.argv[0]).stem if sys.argv else ""
        name = script if script.strip("-c") else "experiment"  # `python -c` and a console have none.
    return Experiment(name, backend, config, tags, project, run_id, resume).start()


def get_active_experiment() -> Experiment | None:
    """The experiment that was started last in this process and is still running."""
    return Experiment.active()


def stop_logging(status: str | RunStatus = "finished") -> None:
    """Stop the active experiment; nothing happens where there is none."""
    experiment = Experiment.active()
    if experiment is not None:
        experiment.stop(status)
