"""`tracelet plot`: curves in the terminal, or in a file. On the main thread: plotext has one figure a process."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console
from rich.text import Text

from tracelet.cli._files import replaced
from tracelet.cli._options import AllAttemptsOption, DirOption, JsonOption, ProjectOption, RunArgument, open_run
from tracelet.cli._render import clean, clip, number, plural, print_json, stdout
from tracelet.core.records import MetricType
from tracelet.errors import UsageError
from tracelet.journal.curves import Curve, curve_of, curves_by_attempt, thinned
from tracelet.journal.load import Run
from tracelet.utils.choosing import main_metrics, matching

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Points = tuple[NDArray[np.float64], NDArray[np.float64]]

_MAIN_METRICS: Final = 2
_MAX_WIDTH: Final = 120
_HEIGHT: Final = 16
_FILE_BINS: Final = 5000
_MAX_CHARTS: Final = 50  # Matplotlib makes no picture of more than 65,536 pixels.
_SUFFIXES: Final = (".png", ".svg", ".pdf")
_COLOURS: Final = ("cyan", "magenta", "yellow", "green", "blue", "red")
_MARKS: Final = "*o+x#@"  # In place of colours.


def plot(
    run: RunArgument = "latest",
    metrics: Annotated[
        list[str] | None,
        typer.Argument(metavar="METRIC...", help="Names or patterns such as 'val/*'.  [default: the main ones]"),
    ] = None,
    others: Annotated[
        list[str] | None, typer.Option("--with", metavar="RUN", help="Draw this run, too. Repeat it for more.")
    ] = None,
    x: Annotated[
        str | None,
        typer.Option("--x", metavar="step|time|METRIC", help="The x-axis.  [default: as define_metric said, or step]"),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write a .png, .svg or .pdf file.")
    ] = None,
    all_attempts: AllAttemptsOption = False,
    dir: DirOption = None,
    project: ProjectOption = None,
    json: JsonOption = False,
) -> None:
    """Plot metrics of a run, in the terminal or in a file.

    Metrics with the same last part, such as train/loss and val/loss, share a chart.
    """
    if output is not None and output.suffix.lower() not in _SUFFIXES:
        raise typer.BadParameter(f"{output.name!r} should end in {', '.join(_SUFFIXES)}", param_hint="--output")
    found = [open_run(reference, dir, project) for reference in (run, *(others or ()))]
    curves = [curve for each in found for curve in _curves(each, metrics, x, all_attempts=all_attempts)]
    if output is not None:
        _save(_charts(curves), output)
    if json:
        print_json({"file": None if output is None else str(output), "curves": [_facts(curve) for curve in curves]})
    elif output is not None:
        stdout().print(f"{plural(len(curves), 'curve')} in {clean(output)}", soft_wrap=True)
    elif not curves:
        stdout().print(f"The run {clean(found[0].id)} has no metrics.")
    else:
        console = stdout()
        for index, (title, chart) in enumerate(_charts(curves).items()):
            if index:
                console.print()
            _draw(console, title, chart)


def _curves(run: Run, patterns: Sequence[str] | None, x: str | None, *, all_attempts: bool) -> list[Curve]:
    names = matching(run.names(), patterns) if patterns else main_metrics([run.names(MetricType.SCALAR)], _MAIN_METRICS)
    if all_attempts and len(run.attempts) > 1:
        return [curve for name in names for curve in curves_by_attempt(run, name, x)]
    return [curve_of(run, name, x) for name in names]


def _facts(curve: Curve) -> dict[str, Any]:
    x, y = curve.x.tolist(), curve.y.tolist()
    return {"run": curve.run, "name": curve.name, "x_label": curve.x_label, "x": x, "y": y}


def _charts(curves: Sequence[Curve]) -> Mapping[str, list[Curve]]:
    """The curves by the last part of their name: those of one kind are of one size."""
    charts: dict[str, list[Curve]] = {}
    for curve in curves:
        charts.setdefault(curve.name.rstrip("/").rpartition("/")[2], []).append(curve)
    alone = {part: len({curve.name for curve in chart}) == 1 for part, chart in charts.items()}
    return {chart[0].name if alone[part] else part: chart for part, chart in charts.items()}


def _labels(chart: Sequence[Curve]) -> list[str]:
    """What tells the curves of a chart apart."""
    several_runs = len({curve.run for curve in chart}) > 1
    several_names = len({curve.name for curve in chart}) > 1
    if not several_runs:
        labels = [curve.name for curve in chart]
    else:
        labels = [f"{curve.name} {curve.run}" if several_names else curve.run for curve in chart]
    return [clip(label, 60).plain for label in labels]


# -- in the terminal ---------------------------------------------------------------------------------------------------


def _draw(console: Console, title: str, chart: Sequence[Curve]) -> None:
    import numpy as np

    width = min(console.width, _MAX_WIDTH)
    points = [thinned(curve, width) for curve in chart]
    console.print(clip(title, width), style="bold")
    if all(np.isnan(x).all() for x, _ in points):
        console.print("  (no finite value)", style="dim")
    else:
        console.print(_drawing(points, width, coloured=console.color_system is not None))
    notes = [f"  ({plural(curve.not_drawn, 'point')} not drawn)" if curve.not_drawn else "" for curve in chart]
    axis = Text(f"  x: {clean(', '.join(dict.fromkeys(curve.x_label for curve in chart)))}", "dim")
    if len(chart) > 1:
        for index, (label, note) in enumerate(zip(_labels(chart), notes, strict=True)):
            mark = Text("━━", _colour(index)) if console.color_system else Text(_mark(index))
            _print_line(console, Text.assemble("  ", mark, " ", label, (note, "yellow")), width)
        _print_line(console, axis, width)
    else:
        _print_line(console, axis + Text(notes[0], "not dim yellow"), width)


def _print_line(console: Console, line: Text, width: int) -> None:
    line.truncate(width, overflow="ellipsis")
    console.print(line)


def _colour(index: int) -> str:
    return _COLOURS[index % len(_COLOURS)]


def _mark(index: int) -> str:
    return _MARKS[index % len(_MARKS)]


def _drawing(points: Sequence[Points], width: int, *, coloured: bool) -> Text:
    """The chart as lines of text. Scaled to 0 … 1 here, since plotext fails on very large and very small numbers."""
    import numpy as np
    import plotext

    x_low, x_high = _limits([x for x, _ in points])
    y_low, y_high = _limits([y for _, y in points])
    plotext.clear_figure()
    plotext.limit_size(False, False)
    plotext.plot_size(width, _HEIGHT)
    plotext.theme("clear")
    plotext.xlim(0, 1)
    plotext.ylim(0, 1)
    for index, (x, y) in enumerate(points):
        look: dict[str, Any] = {"marker": "braille", "color": _colour(index)}
        if not coloured:
            look = {"marker": "braille" if len(points) == 1 else _mark(index)}
        places, heights = _scaled(x, x_low, x_high), _scaled(y, y_low, y_high)
        gaps = np.isnan(heights)
        for part in np.split(np.arange(len(heights)), np.flatnonzero(gaps)):  # A gap is the first of its part.
            finite = part[~gaps[part]]
            if len(finite):
                plotext.plot(places[finite].tolist(), heights[finite].tolist(), **look)
    x_ticks, y_ticks = nice_ticks(x_low, x_high, 5), nice_ticks(y_low, y_high, 4)
    plotext.xticks(_scaled(np.array(x_ticks), x_low, x_high).tolist(), [number(tick) for tick in x_ticks])
    plotext.yticks(_scaled(np.array(y_ticks), y_low, y_high).tolist(), [number(tick) for tick in y_ticks])
    drawing = Text.from_ansi(plotext.build())
    if not coloured:
        drawing = Text(drawing.plain)
    drawing.rstrip()
    return drawing


def _limits(arrays: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    """The smallest and largest finite number."""
    import numpy as np

    known = np.concatenate(arrays)
    return float(np.nanmin(known)), float(np.nanmax(known))


def _scaled(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    import numpy as np

    if low == high:
        return np.where(np.isnan(values), values, 0.5)
    size = 1 if np.isfinite(high - low) else 2  # The span of two floats may be infinite.
    return (values / size - low / size) / (high / size - low / size)


# -- in a file ---------------------------------------------------------------------------------------------------------


def _save(charts: Mapping[str, Sequence[Curve]], path: Path) -> None:
    """Draw with matplotlib.

    Raises:
        MissingDependencyError: It is not installed.
        UsageError: The file can't be written, or there are too many charts.
    """
    from tracelet.utils.imports import require

    if len(charts) > _MAX_CHARTS:
        raise UsageError(f"{len(charts)} charts are too many for one file, {_MAX_CHARTS} fit: name fewer metrics")
    matplotlib = require("matplotlib", "`tracelet plot -o`", extra="media")
    figures = require("matplotlib.figure", "`tracelet plot -o`", extra="media")
    # A name may hold a `$`, which would begin a formula, or be in letters that the font lacks, which is but a warning.
    with matplotlib.rc_context({"text.parse_math": False}), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        figure = figures.Figure(figsize=(8, 4 * max(len(charts), 1)), layout="constrained")
        for index, (title, chart) in enumerate(charts.items()):
            axes = figure.add_subplot(len(charts), 1, index + 1)
            for curve, label in zip(chart, _labels(chart), strict=True):
                x, y = thinned(curve, _FILE_BINS)
                # Matplotlib leaves labels out that begin with `_`. A point alone makes no line.
                axes.plot(x, y, label=f" {label}" if label[:1] == "_" else label, marker="." if len(x) < 50 else None)
            axes.set_title(clip(title, 80).plain)
            axes.set_xlabel(clean(", ".join(dict.fromkeys(curve.x_label for curve in chart))))
            axes.grid(visible=True, alpha=0.3)
            axes.legend()
        with replaced(path) as temporary:
            figure.savefig(temporary, format=path.suffix[1:].lower(), dpi=150)


def nice_ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers from `low` to `high`, about `count` of them; the two ends where there are none."""
    import numpy as np

    span = high - low
    if not 1e-300 < span < np.inf:
        return [low, high] if low < high else [low]
    raw = span / count
    size = 10.0 ** np.floor(np.log10(raw))
    step = size * next((factor for factor in (1, 2, 5) if raw <= factor * size), 10)
    first, last = np.ceil(low / step - 1e-9), np.floor(high / step + 1e-9)
    ticks = [float(index * step) for index in np.arange(first, last + 1)] if last - first < 10 * count else []
    return ticks if len(ticks) > 1 else [low, high]
