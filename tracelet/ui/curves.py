"""A series as a curve on a screen: its x-axis, the part that is shown, few enough points, smoothed. Pure functions.

Guarantee: a thinned curve keeps the first and last point, the lowest and highest one, and tells where values are that
can't be drawn (NaN and infinities).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, final

import numpy as np

from tracelet.journal.curves import smoothed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tracelet.journal.load import Series

    Floats = NDArray[np.float64]

STEP: Final = "step"
RELATIVE: Final = "relative"
WALL: Final = "wall"
_MAX_MARKS: Final = 200


@final
@dataclass(frozen=True, slots=True)
class Drawing:
    """A curve that is ready to be drawn.

    Attributes:
        x: Ascending, shape (n,).
        y: Finite values, shape (n,).
        smooth: The same points of the smoothed curve, shape (n,); None where none was asked for.
        marks: Values that can't be drawn: (x, `NaN`, `inf` or `-inf`), 200 at most.
        not_finite: How many such values there are.
        total: Points in the part that is shown.
    """

    x: Floats
    y: Floats
    smooth: Floats | None
    marks: Sequence[tuple[float, str]]
    not_finite: int
    total: int

    def facts(self) -> dict[str, Any]:
        """For JSON."""
        smooth = None if self.smooth is None else self.smooth.tolist()
        return {
            "x": self.x.tolist(),
            "y": self.y.tolist(),
            "smooth": smooth,
            "marks": self.marks,
            "not_finite": self.not_finite,
            "total": self.total,
        }


def places(series: Series, axis: str, other: Series | None, begin_s: float) -> Floats:
    """Where the points of a series are on the x-axis; NaN where they have no place.

    Args:
        series: The series.
        axis: `step`, `relative` (seconds since `begin_s`), `wall` (Unix time), or the name of the series `other`.
        other: The series on the x-axis.
        begin_s: When the run began.
    """
    if axis == RELATIVE:
        return series.times_s - begin_s
    if axis == WALL:
        return series.times_s
    if other is None:
        return series.steps.astype(float)
    if not len(other):
        return np.full(len(series), np.nan)
    order = np.argsort(other.steps, kind="stable")
    last = np.searchsorted(other.steps[order], series.steps, side="right") - 1
    return np.where(last >= 0, other.values[order][last], np.nan)


def drawn(x: Floats, y: Floats, low: float | None, high: float | None, points: int, weight: float) -> Drawing:
    """What to draw of a curve.

    Args:
        x: Shape (n,).
        y: Shape (n,).
        low: Where the shown part begins; a point further is kept on either side, so that lines lead out.
        high: Where it ends.
        points: How many points at most, about.
        weight: Of the moving average, in [0, 1); 0 for none.
    """
    x, y = _ascending(x, y)
    first = 0 if low is None else max(0, int(np.searchsorted(x, low)) - 1)
    last = len(x) if high is None else int(np.searchsorted(x, high, side="right")) + 1
    average = smoothed(y, weight)[first:last] if weight > 0 else None
    x, y = x[first:last], y[first:last]
    total = len(x)
    finite = np.isfinite(y)
    not_finite = total - int(np.count_nonzero(finite))
    marks: list[tuple[float, str]] = []
    if not_finite:
        at = np.flatnonzero(~finite)
        shown = at[np.linspace(0, len(at) - 1, min(len(at), _MAX_MARKS)).astype(int)]
        marks = [(float(x[i]), "NaN" if np.isnan(y[i]) else "inf" if y[i] > 0 else "-inf") for i in shown]
        x, y = x[finite], y[finite]
        average = None if average is None else average[finite]
    rows = kept_rows(y, points)
    return Drawing(x[rows], y[rows], None if average is None else average[rows], marks, not_finite, total)


def kept_rows(y: Floats, points: int) -> NDArray[np.intp] | slice:
    """The rows of a curve that look like all of them.

    Args:
        y: Finite, in the order of x, shape (n,).
        points: How many at most, about.
    """
    if len(y) <= max(points, 4):
        return slice(None)
    from tsdownsample import MinMaxLTTBDownsampler

    # By the row, not by x: where many points share an x (epochs), those of a bin would be left out.
    thin = MinMaxLTTBDownsampler()  # type: ignore[no-untyped-call]  # it has no types for this
    chosen = thin.downsample(np.ascontiguousarray(y), n_out=max(points, 4)).astype(np.intp)
    return np.unique(np.concatenate([chosen, [0, y.argmin(), y.argmax(), len(y) - 1]]))


def band(curves: Sequence[tuple[Floats, Floats]], low: float | None, high: float | None, bins: int) -> dict[str, Any]:
    """Mean, least and greatest value over several curves.

    Args:
        curves: x and y of each.
        low: Where the shown part begins.
        high: Where it ends.
        bins: Into how many pieces the x-axis is divided at most; a curve counts in a piece with its mean there.

    Returns:
        `x`, `mean`, `low`, `high` and `count` (curves that have points there), each of the same length.
    """
    clean = []
    for x, y in curves:
        keep = np.isfinite(x) & np.isfinite(y)
        keep &= (x >= (-np.inf if low is None else low)) & (x <= (np.inf if high is None else high))
        clean.append((x[keep], y[keep]))
    everything = np.concatenate([x for x, _ in clean]) if clean else np.empty(0)
    if not len(everything):
        return {"x": [], "mean": [], "low": [], "high": [], "count": []}
    places_of_all = np.unique(everything)
    if len(places_of_all) <= bins:
        edges, centres = places_of_all, places_of_all
    else:
        ends = np.linspace(places_of_all[0], places_of_all[-1], bins + 1)
        edges, centres = ends[:-1], (ends[:-1] + ends[1:]) / 2
    means = np.full((len(clean), len(edges)), np.nan)
    for row, (x, y) in enumerate(clean):
        at = np.searchsorted(edges, x, side="right") - 1
        counts = np.bincount(at, minlength=len(edges))
        sums = np.bincount(at, weights=y, minlength=len(edges))
        np.divide(sums, counts, out=means[row], where=counts > 0)
    shown = ~np.isnan(means).all(axis=0)
    means, centres = means[:, shown], centres[shown]
    return {
        "x": centres.tolist(),
        "mean": np.nanmean(means, axis=0).tolist(),
        "low": np.nanmin(means, axis=0).tolist(),
        "high": np.nanmax(means, axis=0).tolist(),
        "count": (~np.isnan(means)).sum(axis=0).tolist(),
    }


def _ascending(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    placed = np.isfinite(x)
    if not placed.all():
        x, y = x[placed], y[placed]
    if len(x) > 1 and np.any(x[1:] < x[:-1]):
        order = np.argsort(x, kind="stable")
        x, y = x[order], y[order]
    return x, y
