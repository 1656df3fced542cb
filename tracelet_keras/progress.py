"""Where a training stands: its step, and what it takes.

Called by the callback, on the thread that trains; `end_batch` also on the threads of Keras's pool, in any order. So
nothing here counts calls: a step is the number of the batch plus the steps before its epoch.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import Any, Final, final

_IN_FLIGHT: Final = 64  # The pool has at most 32 threads, so at most 31 batches can come after a later one.


@final
class Progress:
    """Counts the steps and takes the time. See the module docstring."""

    def __init__(self) -> None:
        self._before = 0  # Steps before the present epoch.
        self._ahead = 0  # Steps that the optimizer does not count: those that a loss scale made it skip, say.
        self._clear()

    def _clear(self) -> None:
        self._began, self._began_s = -1, 0.0  # The last batch that began, and when.
        self._ended: deque[tuple[int, Mapping[str, Any]]] = deque(maxlen=_IN_FLIGHT)
        self._epoch_began_s = time.perf_counter()

    @property
    def step(self) -> int:
        """Steps so far."""
        return self._before + 1 + max(self._began, self._last[0])

    @property
    def is_open(self) -> bool:
        """Whether there were batches since the last epoch ended."""
        return self._began >= 0 or len(self._ended) > 0

    @property
    def last_logs(self) -> Mapping[str, Any]:
        """What the last batch brought."""
        return self._last[1]

    @property
    def _last(self) -> tuple[int, Mapping[str, Any]]:
        return max(self._ended.copy(), key=lambda ended: ended[0], default=(-1, {}))

    def forget_optimizer(self) -> None:
        """Another model comes: what is known of the last one's optimizer says nothing about its own."""
        self._ahead = 0

    def begin_epoch(self, taken: int) -> None:
        """Go on from where the optimizer stands, which may have been restored; where it counts nothing, from here.

        Args:
            taken: Steps that the optimizer has made.
        """
        self._before = taken + self._ahead if taken else self.step
        self._clear()

    def begin_batch(self, batch: int) -> float | None:
        """Note that a batch begins.

        Returns:
            The time for each step since the last batch began, in seconds; None where it is the first one.
        """
        now_s, before, before_s = time.perf_counter(), self._began, self._began_s
        self._began, self._began_s = batch, now_s
        return (now_s - before_s) / (batch - before) if before >= 0 else None

    def end_batch(self, batch: int, logs: Mapping[str, Any]) -> int:
        """Note that a batch has ended; returns its step."""
        self._ended.append((batch, logs))
        return self._before + 1 + batch

    def took(self, samples: float) -> dict[str, float]:
        """What the training of this epoch took until now.

        Args:
            samples: How many there were; 0 where nobody knows.
        """
        time_s = time.perf_counter() - self._epoch_began_s
        rates = {"samples_per_s": samples / time_s} if samples else {}
        return {"time_s": time_s, "mean_step_time_s": time_s / max(self.step - self._before, 1), **rates}

    def end_epoch(self, taken: int) -> None:
        """Note that an epoch has ended. See `begin_epoch` for the argument."""
        self._before, self._ahead = self.step, self.step - taken if taken else 0
        self._clear()
