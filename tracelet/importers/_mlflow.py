"""MLflow's old file store, `mlruns/<experiment>/<run>/`, read as the files that it is: MLflow itself refuses it by now.

Called on the thread that imports. A metric's file has a line `time in ms | value | step` for each point; a parameter's
and a tag's file hold its value. The names of the files are those of the metrics; no link is followed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, final

from tracelet.core.importer import Item, Omitted, SourceRun
from tracelet.core.records import DESCRIPTION_NAME, STATUS_NAME, TAG_PREFIX, MetricData, MetricType
from tracelet.importers.files import files_below
from tracelet.importers.rows import Rows
from tracelet.importers.yamls import load

_META: Final = "meta.yaml"
_NOTE: Final = "mlflow.note.content"
_OWN_TAGS: Final = ("mlflow.runName", "mlflow.log-model.history")
_STATUSES: Final = {"FINISHED": "finished", "FAILED": "failed", "KILLED": "killed"}
_NUMBERS: Final = {1: "RUNNING", 2: "SCHEDULED", 3: "FINISHED", 4: "FAILED", 5: "KILLED"}
_LARGEST_BYTES: Final = 1 << 20


def is_file_store(root: Path) -> bool:
    """Whether a directory is one, or an experiment or a run of one."""
    return root.is_dir() and (os.path.isfile(root / _META) or any(root.glob(f"*/{_META}")))


def stored_runs(root: Path, experiment: str | None) -> Iterator[SourceRun]:
    """The runs of a file store, or of one experiment of it, or the one run."""
    for meta in sorted(path for path in files_below(root) if path.name == _META and "artifacts" not in path.parts):
        facts = load(meta)
        if not isinstance(facts, dict) or not (run_id := facts.get("run_id") or facts.get("run_uuid")):
            continue
        told = load(meta.parent.parent / _META)
        project = told.get("name") if isinstance(told, dict) else None
        if experiment not in (None, project, meta.parent.parent.name):
            continue
        run = _StoredRun(meta.parent, facts)
        yield SourceRun(str(run_id), str(facts.get("run_name") or run.name or run_id), run.items, project,
                        seconds(facts.get("start_time")))  # fmt: skip


@final
class _StoredRun:
    """One run."""

    def __init__(self, folder: Path, facts: Mapping[str, Any]) -> None:
        self._folder = folder
        self._facts = facts
        name = folder / "tags" / "mlflow.runName"
        self.name = _text(name) if name.is_file() and not name.is_symlink() else None

    def items(self) -> Iterator[Item]:
        """All that the run holds."""
        for name, path in self._files("params"):
            yield MetricData(name, _text(path), MetricType.PARAMETER)
        yield from facts_of({name: _text(path) for name, path in self._files("tags")})
        for name, path in self._files("metrics"):
            yield from _points(name, path)
        for name, path in self._files("artifacts"):
            yield MetricData(name, os.fspath(path), MetricType.ARTIFACT)
        for folder in ("inputs", "outputs"):
            if any(True for _ in self._files(folder)):
                yield Omitted(f"the {folder} of the run", "Tracelet does not read MLflow's datasets and logged models")
        status = self._facts.get("status")
        name = _NUMBERS.get(status, "") if isinstance(status, int) else str(status)
        yield from end_of(name, self._facts.get("end_time"))

    def _files(self, folder: str) -> Iterator[tuple[str, Path]]:
        root = self._folder / folder
        if root.is_dir() and not root.is_symlink():
            for path in files_below(root):
                yield path.relative_to(root).as_posix(), path


def _points(name: str, path: Path) -> Iterator[Item]:
    rows = Rows()
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                time_ms, value, *step = line.split()
                rows.add(name, int(step[0]) if step else 0, float(value), int(time_ms) / 1e3)
            except ValueError:
                yield Omitted(f"a line of the metric {name!r}", "it is not whole")
            if rows.is_full:
                yield rows.take()
    yield rows.take()


def facts_of(tags: Mapping[str, str]) -> Iterator[Item]:
    """The tags of a run, of which one is its description."""
    for name, value in tags.items():
        if name == _NOTE:
            yield MetricData(DESCRIPTION_NAME, value, MetricType.CUSTOM)
        elif name not in _OWN_TAGS:
            yield MetricData(TAG_PREFIX + name, value, MetricType.CUSTOM)


def end_of(status: str, end_ms: object) -> Iterator[Item]:
    """The status of a run, if it has ended. One that MLflow takes for running may have been killed long ago."""
    if status in _STATUSES:
        yield MetricData(STATUS_NAME, _STATUSES[status], MetricType.CUSTOM, None, seconds(end_ms))
    else:
        yield MetricData(STATUS_NAME, "killed", MetricType.CUSTOM, metadata={"assumed": True})
        yield Omitted(f"the status {status!r}", "an imported run is not running; it is shown as killed")


def seconds(time_ms: object) -> float | None:
    """Milliseconds as seconds; None where there are none."""
    return time_ms / 1e3 if isinstance(time_ms, (int, float)) and time_ms > 0 else None


def _text(path: Path) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read(_LARGEST_BYTES)
