"""Which points of a series still hold, in a run that went back to an earlier step.

A training that resumes from a checkpoint of step 500 after it had come to 700 computes the steps 501 to 700 again. The
journal keeps both; the adapter that resumes records the step in the series `REWIND_NAME`, before the first new point.
Called by `Run.live`, on the reader's own thread. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tracelet.journal.load import Series


def still_holds(series: Series, rewinds: Series, segments: Series | None) -> NDArray[np.bool_]:
    """Whether each point of a series holds, as a mask.

    Args:
        series: Its steps are those of the training.
        rewinds: `REWIND_NAME`: a point at time t with value s supersedes the steps above s that were recorded before t.
        segments: `SEGMENT_NAME`, if the run has it: steps of an earlier training are never superseded.
    """
    import numpy as np

    holds = np.ones(len(series), bool)
    begun_s = np.sort(segments.times_s) if segments is not None else np.empty(0)
    for step, time_s in zip(rewinds.values, rewinds.times_s, strict=True):
        begin_s = max(begun_s[begun_s <= time_s], default=-np.inf)
        holds &= (series.steps <= step) | (series.times_s >= time_s) | (series.times_s < begin_s)
    return holds
