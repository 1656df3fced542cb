"""A Neptune backend as its worker has it, in this process or in one that is killed."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tracelet.backends.neptune_backend import NeptuneBackend
from tracelet.core.records import MetricData, MetricType

TIME_S = 1_750_000_000.125
ROOT = Path(__file__).parents[2]


def facts_in(folder: Path, **settings: Any) -> dict[str, Any]:
    state = folder / "run1" / "delivery" / "neptune"
    state.mkdir(parents=True, exist_ok=True)
    names = {"run_name": "digits", "run_id": "run1", "run_project": "vision"}
    uuid_of_run = uuid.uuid5(uuid.NAMESPACE_URL, str(folder)).hex
    places = {"run_dir": folder / "run1", "state_dir": state}
    return {**names, "run_uuid": uuid_of_run, "run_created_s": TIME_S, **places, **settings}


def scalar(name: str, value: float, step: int | None, time_s: float = TIME_S) -> MetricData:
    return MetricData(name, value, MetricType.SCALAR, step, time_s)


def record(kind: MetricType, name: str, value: Any, step: int | None = None, **metadata: Any) -> MetricData:
    return MetricData(name, value, kind, step, TIME_S, None, metadata or None)


def custom(name: str, value: Any, **metadata: Any) -> MetricData:
    return record(MetricType.CUSTOM, name, value, **metadata)


def deliver(folder: Path, *batches: Sequence[MetricData], **settings: Any) -> NeptuneBackend:
    """One opening of the run, from the start to the stop."""
    backend = NeptuneBackend()
    try:
        backend.initialize(facts_in(folder, **settings))
        backend.start()
        for batch in batches:
            backend.handle_batch(batch)
    finally:
        backend.stop()
    return backend


def run_python(code: str, *arguments: str, options: Sequence[str] = (), **environment: str) -> Any:
    """Run code in a process of its own, in the same directory."""
    return subprocess.run(
        [sys.executable, *options, "-c", code, *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "TRACELET_COLLECTORS": "", **environment},
    )
