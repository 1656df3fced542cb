"""Runs as figures of plotly, and as a few lines of HTML: what a notebook shows. Pure functions; nothing here writes."""

from __future__ import annotations

import html
import time
from abc import ABC
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from tracelet.core.records import MetricType
from tracelet.errors import UsageError
from tracelet.journal.curves import Curve, curve_of, smoothed, thinned
from tracelet.utils.choosing import main_metrics, matching
from tracelet.utils.imports import require

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from tracelet.journal.load import Run

COLOURS: Final = ("#3b6fd4", "#d9662b", "#2e9a68", "#b5479b", "#8a6d1f", "#3aa0b8", "#c43d4b", "#6b5fc7")
"""One for each curve; they can be told apart on white and on black, and by most who see few colours."""

_BINS: Final = 1000  # Twice as many points: more than a screen has columns.
_MAIN_METRICS: Final = 2
_SHOWN_PARAMS: Final = 12
_SHOWN_METRICS: Final = 12


class Shown(ABC):  # noqa: B024 - only a run is one, and it would be too long with this
    """What a notebook can do with a run."""

    def plot(
        self,
        *names: str,
        others: Sequence[Run] = (),
        x: str | None = None,
        smooth: float = 0.0,
        log_y: bool = False,
    ) -> go.Figure:
        """Curves as a figure of plotly, which a notebook shows.

        Args:
            names: Series, or patterns such as `val/*`. None: the two that people look at first.
            others: Runs to draw too.
            x: `step`, `time` (seconds since the run began) or a series; None: as `define_metric` said, else the step.
            smooth: The weight of the exponential moving average that is drawn over the values, in [0, 1).
            log_y: Whether the y-axis is logarithmic.

        Raises:
            MissingDependencyError: plotly is not installed: `pip install 'tracelet[ui]'`.
            UsageError: No run has such a series, or `smooth` is out of its range.
        """
        return figure([cast("Run", self), *others], names, x=x, smooth=smooth, log_y=log_y)

    def _repr_html_(self) -> str:
        """What a notebook shows of a run."""
        return card(cast("Run", self))


def figure(
    runs: Sequence[Run], names: Sequence[str] = (), *, x: str | None = None, smooth: float = 0.0, log_y: bool = False
) -> go.Figure:
    """Curves of one or several runs in one figure.

    Args:
        runs: The runs.
        names: Series, or patterns such as `val/*`. None: the two that people look at first.
        x: As for `Run.plot`.
        smooth: As for `Run.plot`.
        log_y: As for `Run.plot`.

    Raises:
        MissingDependencyError: plotly is not installed.
        UsageError: No run has such a series, or `smooth` is not in [0, 1).
    """
    if not 0 <= smooth < 1:
        raise UsageError(f"smooth is the weight of the moving average, from 0 to less than 1, and not {smooth!r}")
    objects = require("plotly.graph_objects", "Run.plot()", extra="ui")
    known = {run: run.names() for run in runs}
    everything = sorted({name for of_run in known.values() for name in of_run})
    scalars = [run.names(MetricType.SCALAR) for run in runs]
    chosen = matching(everything, names) if names else main_metrics(scalars, _MAIN_METRICS)
    curves = [curve_of(run, name, x) for run in runs for name in chosen if name in known[run]]
    drawing = objects.Figure()
    for curve, colour in zip(curves, _colours(), strict=False):
        label = _label(curve, len(runs), len(chosen))
        drawing.add_traces([objects.Scatter(**trace) for trace in traces(curve, label, colour, smooth)])
    drawing.update_layout(
        template="plotly_white",
        hovermode="x unified",
        margin={"l": 60, "r": 20, "t": 40 if len(chosen) == 1 else 20, "b": 45},
        title=_escaped(chosen[0]) if len(chosen) == 1 else None,
        xaxis_title=_escaped(", ".join(dict.fromkeys(curve.x_label for curve in curves))),
        yaxis_type="log" if log_y else "linear",
    )
    return drawing


def traces(curve: Curve, label: str, colour: str, smooth: float = 0.0) -> list[dict[str, Any]]:
    """A curve as plotly draws it: few enough points, and crosses where values are that have no place.

    Args:
        curve: The curve, of any length.
        label: What stands in the legend; shown as it is.
        colour: Of the line.
        smooth: The weight of the moving average that is drawn over the values; 0 for none.
    """
    import numpy as np

    x, y = thinned(curve, _BINS)
    line = {"color": colour, "width": 1.5}
    plain = {"x": x, "y": y, "name": _escaped(label), "mode": "lines" if len(x) > 1 else "markers", "line": line}
    found = [plain]
    if smooth > 0:
        average = Curve(curve.run, curve.name, curve.x_label, curve.x, smoothed(curve.y, smooth))
        x, y = thinned(average, _BINS)
        plain |= {"opacity": 0.3, "showlegend": False, "hoverinfo": "skip"}
        found.append({"x": x, "y": y, "name": _escaped(label), "mode": "lines", "line": {**line, "width": 2}})
    odd = np.flatnonzero(np.isfinite(curve.x) & ~np.isfinite(curve.y))[:_BINS]
    if len(odd):
        finite = curve.y[np.isfinite(curve.y)]
        floor = float(finite.min()) if len(finite) else 0.0
        cross = {"symbol": "x", "size": 8, "color": colour}
        texts = [f"{value:g}" for value in curve.y[odd].tolist()]
        place = np.full(len(odd), floor)
        found.append(
            {"x": curve.x[odd], "y": place, "text": texts, "mode": "markers", "marker": cross, "showlegend": False}
            | {"name": _escaped(label), "hovertemplate": "%{text}"}
        )
    return found


def card(run: Run) -> str:
    """A run in a few lines of HTML, for a notebook. Names and values are escaped."""
    latest = {name: f"{value:.6g} (step {step})" for name, (step, value) in run.latest().items()}
    metrics = {name: latest[name] for name in main_metrics([latest], _SHOWN_METRICS)}
    params = {name: value for name, value in run.params.items() if not name.startswith("env/")}
    began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(run.created_s))
    head = f"<b>{_escaped(run.name)}</b> <code>{_escaped(run.id)}</code> in {_escaped(run.project)}: "
    return (
        f"<div>{head}{_escaped(run.status.value)}, {_escaped(began)}, {run.duration_s:.1f} s"
        f"<div style='display:flex;flex-wrap:wrap;gap:2em;align-items:start'>"
        f"{_table('Metrics', metrics, len(latest))}{_table('Parameters', params, len(params))}</div></div>"
    )


def _table(title: str, values: Mapping[str, Any], total: int) -> str:
    if not values:
        return ""
    shown = list(values.items())[:_SHOWN_PARAMS]
    rows = "".join(f"<tr><td>{_escaped(name)}</td><td>{_escaped(str(value)[:200])}</td></tr>" for name, value in shown)
    more = f" ({len(shown)} of {total})" if total > len(shown) else ""
    return f"<table><thead><tr><th colspan='2'>{title}{more}</th></tr></thead><tbody>{rows}</tbody></table>"


def _label(curve: Curve, runs: int, names: int) -> str:
    """What tells the curves of a figure apart."""
    return curve.name if runs == 1 else curve.run if names == 1 else f"{curve.name} {curve.run}"


def _colours() -> Iterable[str]:
    while True:
        yield from COLOURS


def _escaped(text: str) -> str:
    """For HTML, and for plotly, which reads some of it in names and titles."""
    return html.escape(text)
