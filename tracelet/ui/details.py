"""What the page says of one run, and of several beside one another. On the server's threads; nothing is kept."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from tracelet.cli._delivery import delivery_facts
from tracelet.cli.runs import summary
from tracelet.cli.show import SeriesSummary
from tracelet.core.alerts import ALERT_NAME
from tracelet.core.records import MetricData, MetricType
from tracelet.delivery.report import DeliveryStatus, known_backends
from tracelet.journal.artifacts import Artifact
from tracelet.journal.directory import RunDirectory
from tracelet.journal.lineage import users_of
from tracelet.journal.load import Run
from tracelet.journal.reader import FILE_TYPES
from tracelet.journal.watch import RunWatch
from tracelet.ui.follow import FollowedRun
from tracelet.utils.choosing import natural

CONSOLE: Final = "console/"
_SHOWN_TYPES: Final = (*FILE_TYPES, MetricType.TEXT, MetricType.TABLE, MetricType.HISTOGRAM)
_MAX_LISTED: Final = 500
_MAX_TEXT_CHARS: Final = 20_000
_MAX_ROWS: Final = 500
_MAX_COLUMNS: Final = 100
_PAGE: Final = 60
_CONSOLE_LINES: Final = 1000


def run_facts(run: Run) -> dict[str, Any]:
    """Everything but points, console and the contents of records."""
    recorded, live = _counts(run.records(*_SHOWN_TYPES)), _counts(run.records(*_SHOWN_TYPES, live=True))
    alerts = [{"step": r.iteration, "value": r.value} for r in run.records(MetricType.CUSTOM) if r.name == ALERT_NAME]
    return {
        **summary(run),
        "lost": run.lost,
        "damage": asdict(run.damage),
        "description": run.description,
        "git_commit": run.git_commit,
        "last_step": run.last_step,
        "latest": {name: value for name, (_, value) in run.latest().items()},
        "records": [
            {"type": kind.value, "name": name, "count": live[kind, name], "superseded": count - live[kind, name]}
            for (kind, name), count in recorded.items()
        ],
        "consoles": sorted({r.name for r in run.records(MetricType.TEXT) if r.name.startswith(CONSOLE)}),
        "alerts": alerts[:_PAGE],
        "attempts": _attempts(run),
        "delivery": _deliveries(run),
        "artifacts": _artifacts(run),
    }


def _counts(records: Sequence[MetricData]) -> Counter[tuple[MetricType, str]]:
    return Counter((record.type, record.name) for record in records if not record.name.startswith(CONSOLE))


def _attempts(run: Run) -> list[dict[str, Any]]:
    return [{**asdict(attempt), "status": attempt.status.value} for attempt in run.attempts]


def _deliveries(run: Run) -> list[dict[str, Any]]:
    directory = RunDirectory.open(run.path)
    end = RunWatch(directory).look()
    return [delivery_facts(DeliveryStatus.of(directory, backend, end)) for backend in known_backends(run.path)]


def _artifacts(run: Run) -> dict[str, Any]:
    """What the run keeps, with where each file lies in it, who has used it, and what the run has used itself."""
    artifacts = run.artifacts()
    users = users_of(run) if artifacts else {}
    made = [
        {
            "name": one.name,
            "version": one.version,
            "type": one.type,
            "aliases": one.aliases,
            "step": one.step,
            "digest": one.digest,
            "reference": one.reference,
            "bytes": one.size_bytes,
            "time_s": one.time_s,
            "changed": one.changed,
            "used_by": users.get((one.name, one.version), []),
            "files": _files(run, one),
        }
        for one in artifacts[:_MAX_LISTED]
    ]
    return {"made": made, "used": run.used_artifacts()[:_MAX_LISTED]}


def _files(run: Run, artifact: Artifact) -> list[dict[str, Any]]:
    place = artifact.path
    if place is None or not place.exists():
        return []
    below = sorted(path for path in place.rglob("*") if path.is_file()) if place.is_dir() else [place]
    return [
        {"name": place.name if path == place else str(path.relative_to(place)), "path": relative(run, path)}
        | {"bytes": path.stat().st_size}
        for path in below[:_MAX_LISTED]
    ]


def relative(run: Run, path: str | Path) -> str:
    """Where a file lies in the run directory."""
    return os.path.relpath(path, os.path.abspath(run.path))


def records_page(run: Run, kind: MetricType, name: str, offset: int, *, superseded: bool) -> dict[str, Any]:
    """The records of one type and name, the last ones first, a page at a time."""
    records = [record for record in run.records(kind, live=not superseded) if record.name == name][::-1]
    shown = [
        {"step": r.iteration, "time_s": r.timestamp, "value": _shown(run, r)} for r in records[offset : offset + _PAGE]
    ]
    return {"records": shown, "total": len(records)}


def _shown(run: Run, record: MetricData) -> Any:
    if record.type in FILE_TYPES:
        return relative(run, str(record.value))
    if record.type is MetricType.TEXT:
        return str(record.value)[:_MAX_TEXT_CHARS]
    if record.type is MetricType.TABLE and isinstance(record.value, Mapping):
        rows = list(record.value.get("rows", ()))
        cells = [[str(cell)[:1000] for cell in list(row)[:_MAX_COLUMNS]] for row in rows[:_MAX_ROWS]]
        return {"columns": list(record.value.get("columns", ()))[:_MAX_COLUMNS], "rows": cells, "total": len(rows)}
    return record.value


def console_page(run: Run, name: str, before: int | None) -> dict[str, Any]:
    """The last lines that were printed, or the last ones before a line."""
    texts = (str(record.value) for record in run.records(MetricType.TEXT) if record.name == name)
    lines = "\n".join(text.removesuffix("\n") for text in texts).split("\n")
    end = len(lines) if before is None else max(0, min(before, len(lines)))
    first = max(0, end - _CONSOLE_LINES)
    return {"lines": lines[first:end], "first": first, "total": len(lines)}


def comparison(runs: Sequence[Run], followed: Sequence[FollowedRun]) -> dict[str, Any]:
    """Parameters and metrics, a value for each run."""
    params = sorted({name for run in runs for name in run.params}, key=natural)
    known = [each.names() for each in followed]
    metrics = {name for names in known for name, (kind, _) in names.items() if kind is MetricType.SCALAR}
    return {
        "runs": [summary(run) for run in runs],
        "params": {
            name: [{"value": run.params[name]} if name in run.params else None for run in runs] for name in params
        },
        "metrics": {
            name: [
                asdict(SeriesSummary.of(each.series(name))) if name in names else None
                for each, names in zip(followed, known, strict=True)
            ]
            for name in sorted(metrics, key=natural)
        },
    }
