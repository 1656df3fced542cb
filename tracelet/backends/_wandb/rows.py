"""Gathers the values of one step into a row of the history. In the SDK's process, on its main thread.

The guarantee: no value, step or time hides another one. A value that would comes into a row of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, final

from tracelet.backends._wandb.mapping import AXIS_PREFIX, STEP_KEY

_SAME_TIME_S: Final = 0.0005  # Values of a step that are no further apart share a row: each keeps its millisecond.


@final
class Rows:
    """The row at hand, and what it takes for other x-axes than the step."""

    def __init__(self, log: Callable[[dict[str, Any]], None], axes: dict[str, str]) -> None:
        """Begin with no row.

        Args:
            log: Takes each row.
            axes: The key of a series → the key of the one that is its x-axis.
        """
        self.axes = axes
        self._log = log
        self._row: dict[str, Any] = {}
        self._positions: dict[str, Any] = {}  # The last value of each x-axis.

    def add(self, key: str, value: Any, step: int | None, time_s: float) -> None:
        """Put a value into the row at hand, or end that and begin the next one."""
        row = self._row
        if row and (key in row or row.get(STEP_KEY) != step or abs(row["_timestamp"] - time_s) > _SAME_TIME_S):
            self.end()
            row = self._row
        if not row:
            row |= {"_timestamp": time_s} if step is None else {"_timestamp": time_s, STEP_KEY: step}
        row[key] = value

    def end(self) -> None:
        """Log the row at hand."""
        row, self._row = self._row, {}
        if not row:
            return
        for key, axis in self.axes.items():  # W&B looks for the position in the row of the value.
            if axis in row:
                self._positions[axis] = row[axis]
            if key in row and axis in self._positions:
                row[AXIS_PREFIX + axis] = self._positions[axis]
        self._log(row)
