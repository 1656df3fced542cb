"""The points of a series that still hold, in a run that went back to an earlier step.

A training that resumes from a checkpoint of step 500 after it had come to 700 computes the steps 501 to 700 again. The
journal keeps both; the adapter that resumes records the step in the series `REWIND_NAME`, before the first new point.
Called by readers, on their own thread. Pure but for reading the run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tracelet.journal.load import Series

if TYPE_CHECKING:
    from tracelet.journal.load import Run

REWIND_NAME: Final = "tracelet/rewind"
"""The SYSTEM series of the steps that a run has gone back to."""


def live_series(run: Run, name: str) -> Series:
    """A series without the points that a later attempt has superseded, in the order of its steps' last record.

    Args:
        run: The run.
        name: A series whose steps are those of the training.

    Raises:
        KeyError: The run has no such series.
    """
    series = run.series(name)
    if REWIND_NAME not in run.names():
        return series
    rewinds = run.series(REWIND_NAME)
    superseded = series.steps < series.steps  # All False.
    for step, time_s in zip(rewinds.steps, rewinds.times_s, strict=True):
        superseded |= (series.steps > step) & (series.times_s < time_s)
    holds = ~superseded
    return Series(name, series.steps[holds], series.values[holds], series.times_s[holds])
