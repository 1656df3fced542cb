"""One HTML file that holds everything about some runs: to mail, to attach, to keep. It only reads the runs.

Guarantee: the file asks for nothing from anywhere, and runs no script but the two that are in it by their checksums, so
that names, parameters and texts of a run stay text whatever they hold.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, final

from tracelet import __version__
from tracelet.cli.runs import summary
from tracelet.cli.show import SeriesSummary
from tracelet.core.records import MetricType
from tracelet.errors import UsageError
from tracelet.journal.curves import curve_of
from tracelet.journal.figures import COLOURS, traces
from tracelet.journal.load import Run
from tracelet.utils.choosing import matching, natural
from tracelet.utils.imports import require

MAX_CHARTS: Final = 200
_MAX_PICTURES: Final = 60
_MAX_PICTURE_BYTES: Final = 1 << 20
_MAX_CONSOLE_CHARS: Final = 20_000
_PICTURES: Final = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".gif": "gif", ".webp": "webp", ".svg": "svg+xml"}
_ENVIRONMENT: Final = "env/"


@final
@dataclass(frozen=True, slots=True)
class Wish:
    """What a report is to show.

    Attributes:
        title: At its head.
        metrics: Series, or patterns such as `val/*`; empty: all.
        x: As for `Run.plot`.
        smooth: As for `Run.plot`.
    """

    title: str
    metrics: Sequence[str] = ()
    x: str | None = None
    smooth: float = 0.0


def report(runs: Sequence[Run], wish: Wish) -> str:
    """The file.

    Raises:
        MissingDependencyError: `tracelet[ui]` is not installed.
        UsageError: No run has such a series, there are more charts than a page can hold, or `smooth` is not in [0, 1).
    """
    jinja2 = require("jinja2", "tracelet report", extra="ui")
    offline = require("plotly.offline", "tracelet report", extra="ui")
    encoder = require("plotly.utils", "tracelet report", extra="ui").PlotlyJSONEncoder
    names = _names(runs, wish.metrics)
    charts = [_chart(runs, name, wish) for name in names]
    params = sorted({name for run in runs for name in run.params}, key=natural)
    here = files("tracelet.ui")
    scripts = [offline.get_plotlyjs(), here.joinpath("templates/report.js").read_text("utf-8")]
    template = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        here.joinpath("templates/report.html").read_text("utf-8")
    )
    page: str = template.render(
        title=wish.title,
        version=__version__,
        made=_time(time.time()),
        hashes=" ".join(f"'sha256-{_sha256(script)}'" for script in scripts),
        scripts=scripts,
        style=here.joinpath("static/style.css").read_text("utf-8")
        + here.joinpath("templates/report.css").read_text("utf-8"),
        runs=[_facts(run, colour) for run, colour in zip(runs, _colours(len(runs)), strict=True)],
        groups=_groups(charts),
        charts=json.dumps({chart["id"]: chart["figure"] for chart in charts}, cls=encoder).replace("<", "\\u003c"),
        metrics=_metrics(runs, names),
        params=_table(runs, [name for name in params if not name.startswith(_ENVIRONMENT)]),
        environment=_table(runs, [name for name in params if name.startswith(_ENVIRONMENT)]),
        pictures=list(_pictures(runs)),
    )
    return page


def _names(runs: Sequence[Run], patterns: Sequence[str]) -> list[str]:
    known = sorted({name for run in runs for name in run.names()}, key=natural)
    names = matching(known, patterns) if patterns else known
    if len(names) > MAX_CHARTS:
        raise UsageError(
            f"{len(names)} charts are more than a page can hold, which is {MAX_CHARTS}: choose some with --metric, "
            f"such as --metric '{names[0].partition('/')[0]}/*'"
        )
    return names


# -- charts ------------------------------------------------------------------------------------------------------------


def _chart(runs: Sequence[Run], name: str, wish: Wish) -> dict[str, Any]:
    """A chart of a series over all runs that have it."""
    curves = [
        (curve_of(run, name, wish.x), colour)
        for run, colour in zip(runs, _colours(len(runs)), strict=True)
        if name in run.names()
    ]
    labels = [name if len(runs) == 1 else curve.run for curve, _ in curves]
    data = [
        trace
        for (curve, colour), label in zip(curves, labels, strict=True)
        for trace in traces(curve, label, colour, wish.smooth)
    ]
    is_system = all(name not in run.names(MetricType.SCALAR) for run in runs)
    group = "System" if is_system else name.rpartition("/")[0].partition("/")[0]
    axis = ", ".join(dict.fromkeys(curve.x_label for curve, _ in curves))
    return {
        "id": f"chart-{hashlib.sha256(name.encode(errors='surrogatepass')).hexdigest()[:16]}",
        "name": name,
        "group": group,
        "figure": {"data": data, "x": axis},
        "points": sum(len(curve.y) for curve, _ in curves),
    }


def _groups(charts: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Mapping[str, Any]]]]:
    """By the first part of their names; what the machine did comes last, and what is alone first."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for chart in charts:
        groups.setdefault(chart["group"], []).append(chart)
    return sorted(groups.items(), key=lambda group: (group[0] == "System", group[0]))


def _colours(count: int) -> list[str]:
    return [COLOURS[index % len(COLOURS)] for index in range(count)]


# -- tables ------------------------------------------------------------------------------------------------------------


def _facts(run: Run, colour: str) -> dict[str, Any]:
    texts = run.records(MetricType.TEXT)
    console = "\n".join(str(r.value) for r in texts if r.name.startswith("console/"))
    return {
        **summary(run),
        "colour": colour,
        "began": _time(run.created_s),
        "lasted": f"{run.duration_s:,.1f} s",
        "description": run.description,
        "git_commit": run.git_commit,
        "lost": run.lost,
        "artifacts": run.artifacts(),
        "console": console if len(console) <= _MAX_CONSOLE_CHARS else f"…{console[-_MAX_CONSOLE_CHARS:]}",
    }


def _table(runs: Sequence[Run], names: Sequence[str]) -> list[dict[str, Any]]:
    rows = []
    for name in names:
        cells = [_text(run.params[name]) if name in run.params else None for run in runs]
        rows.append({"name": name, "cells": cells, "differs": len(set(cells)) > 1})
    return rows


def _metrics(runs: Sequence[Run], names: Sequence[str]) -> list[tuple[str, list[SeriesSummary | None]]]:
    has = {run: set(run.names(MetricType.SCALAR)) for run in runs}
    return [
        (name, [SeriesSummary.of(run.live(name)) if name in has[run] else None for run in runs])
        for name in names
        if any(name in has[run] for run in runs)
    ]


def _pictures(runs: Sequence[Run]) -> Iterator[dict[str, Any]]:
    """The last picture of each name, as a part of the page; an SVG runs no script in an `img`."""
    found = 0
    for run in runs:
        last = {record.name: record for record in run.records(MetricType.IMAGE, MetricType.FIGURE, live=True)}
        for name, record in sorted(last.items()):
            path = Path(str(record.value))
            kind = _PICTURES.get(path.suffix.lower())
            if kind is None or found == _MAX_PICTURES or not path.is_file() or path.stat().st_size > _MAX_PICTURE_BYTES:
                continue
            found += 1
            source = f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
            yield {"run": run.id, "name": name, "step": record.iteration, "source": source}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _time(time_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(time_s))


def _sha256(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
