"""Series as curves: what is on the x-axis, few enough points to draw, smoothed. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from tracelet.utils.choosing import matching

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tracelet.journal.load import Run, Series

STEP = "step"
TIME = "time"

_EMA_BLOCK: Final = 256


@final
@dataclass(frozen=True)
class Curve:
    """One series of one run.

    Attributes:
        run: The run's name and id, and the attempt where it is that of one alone.
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
    return _curve(run, run.live(name), x, f"{run.name} ({run.id})")


def curves_by_attempt(run: Run, name: str, x: str | None) -> list[Curve]:
    """The curve of each attempt, also where it is superseded. See `curve_of`."""
    parts = run.by_attempt(name).items()
    return [_curve(run, series, x, f"{run.name} ({run.id}) attempt {number}") for number, series in parts]


def _curve(run: Run, series: Series, x: str | None, label_of_run: str) -> Curve:
    axis = _defined_axis(run, series.name) if x is None else x
    if axis == STEP:
        label, places = STEP, series.steps.astype(float)
    elif axis == TIME:
        label, places = "time (s)", series.times_s - run.created_s
    else:
        label = matching(run.names(), [axis])[0]
        places = _at_steps(run, label, series.steps)
    return Curve(label_of_run, series.name, label, places, series.values)


def _defined_axis(run: Run, name: str) -> str:
    axis = run.step_metrics.get(name, STEP)
    return axis if axis in run.names() else STEP


def _at_steps(run: Run, axis: str, steps: NDArray[np.int64]) -> NDArray[np.float64]:
    """The value that the series `axis` had last at each step; NaN before its first one."""
    import numpy as np

    known = run.live(axis)
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


def smoothed(values: NDArray[np.float64], weight: float) -> NDArray[np.float64]:
    """The exponential moving average, free of the bias of its beginning, as TensorBoard draws it.

    Args:
        values: Shape (n,); what is not finite is passed over.
        weight: Of the average so far, in [0, 1).
    """
    import numpy as np

    result = np.full(len(values), np.nan)
    finite = np.isfinite(values)
    known = values[finite]
    size = min(_EMA_BLOCK, len(known)) or 1
    exponents = np.arange(size)
    # A block at a time: its averages are one product with the triangle of powers, plus what came before.
    triangle = np.tril((1 - weight) * weight ** np.maximum(exponents[:, None] - exponents, 0))
    decay = weight ** (exponents + 1.0)
    averages, state = np.empty(len(known)), 0.0
    for start in range(0, len(known), size):
        part = known[start : start + size]
        averages[start : start + size] = triangle[: len(part), : len(part)] @ part + decay[: len(part)] * state
        state = float(averages[start + len(part) - 1])
    result[finite] = averages / (1 - weight ** np.arange(1.0, len(known) + 1))
    return result
