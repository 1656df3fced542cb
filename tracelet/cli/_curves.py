"""Series as curves: what is on the x-axis, and few enough points to draw. On the main thread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from tracelet.cli._choose import matching
from tracelet.journal.load import Run

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

STEP = "step"
TIME = "time"


@final
@dataclass(frozen=True)
class Curve:
    """One series of one run.

    Attributes:
        run: The run's name and id.
        name: The series.
        x_label: What `x` is: `step`, `time (s)`, or the name of a series.
        x: float64, shape (n,); NaN where the point has no place.
        y: float64, shape (n,), with NaN and infinities, in the order in which it was logged.
    """

    run: str
    name: str
    x_label: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]

    @property
    def not_drawn(self) -> int:
        """Points that no chart has a place for: NaN and infinities."""
        import numpy as np

        return int(np.count_nonzero(~(np.isfinite(self.x) & np.isfinite(self.y))))


def curve_of(run: Run, name: str, x: str | None) -> Curve:
    """The curve of a series.

    Args:
        run: Where it is.
        name: The series.
        x: `step`, `time` (seconds since the run's start) or a series; None: what `define_metric` said, else the step.

    Raises:
        UsageError: `x` is no series of the run.
    """
    series = run.live(name)
    axis = _defined_axis(run, name) if x is None else x
    if axis == STEP:
        label, places = STEP, series.steps.astype(float)
    elif axis == TIME:
        label, places = "time (s)", series.times_s - run.created_s
    else:
        label = matching(run.names(), [axis])[0]
        places = _at_steps(run, label, series.steps)
    return Curve(f"{run.name} ({run.id})", name, label, places, series.values)


def _defined_axis(run: Run, name: str) -> str:
    axis = run.step_metrics.get(name, STEP)
    return axis if axis in run.names() else STEP


def _at_steps(run: Run, axis: str, steps: NDArray[np.int64]) -> NDArray[np.float64]:
    """The value that the series `axis` had last at each step; NaN before its first one."""
    import numpy as np

    known = run.series(axis)
    if not len(known):
        return np.full(len(steps), np.nan)
    order = np.argsort(known.steps, kind="stable")
    last = np.searchsorted(known.steps[order], steps, side="right") - 1
    return np.where(last >= 0, known.values[order][last], np.nan)


def thinned(curve: Curve, bins: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The x and y of at most `2 * bins` points that look the same: of each bin the lowest and the highest one.

    What has no place becomes NaN, which breaks the line; inside of a bin with other points it is left out.
    """
    import numpy as np

    drawn = np.isfinite(curve.x) & np.isfinite(curve.y)
    x, y = np.where(drawn, curve.x, np.nan), np.where(drawn, curve.y, np.nan)
    if len(y) <= 2 * bins:
        return x, y
    kept = []
    for part in np.array_split(np.arange(len(y)), bins):
        finite = part[drawn[part]]
        kept += sorted({finite[y[finite].argmin()], finite[y[finite].argmax()]}) if len(finite) else [part[0]]
    return x[kept], y[kept]


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
