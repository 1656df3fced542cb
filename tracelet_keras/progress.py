"""Where a training stands: its step, and what it takes.

Called by the callback, on the thread that trains; `end_batch` also on the threads of Keras's pool, in any order. So
no step comes from a count of calls: it is the number of the batch plus the steps before its epoch.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import Any, Final, final

_IN_FLIGHT: Final = 64  # The pool has at most 32 threads, so at most 31 batches can come after a later one.
_LATE_S: Final = 10.0  # A backlog takes milliseconds; what has not come by then was lost with the pool.
_POLL_S: Final = 0.001


@final
class Progress:
    """Counts the steps and takes the time. See the module docstring."""

    def __init__(self, every: int | None) -> None:
        """Begin at step 0.

        Args:
            every: Record after so many steps; None: after epochs only.
        """
        self._every = every
        self._together = 1  # Steps that Keras executes before it tells of one.
        self._steps_per_epoch: int | None = None
        self._before = 0  # Steps before the present epoch.
        self._ahead = 0  # Steps that the optimizer does not count: those that a loss scale made it skip, say.
        self._clear()

    def _clear(self) -> None:
        self._began: tuple[int, float] | None = None  # The last batch that began, and when.
        self._open: deque[int] = deque()  # One item for each batch that has begun and is not done; which, says nothing.
        self._ended: deque[tuple[int, Mapping[str, Any]]] = deque(maxlen=_IN_FLIGHT)
        self._epoch_began_s = time.perf_counter()

    @property
    def step(self) -> int:
        """Steps so far, of those whose end Keras has told."""
        return self._before + self.steps_of_epoch

    @property
    def step_of_validation(self) -> int:
        """The same where the epoch's last batch has ended, also if nobody has told yet."""
        if self._steps_per_epoch is None or self._began is None:
            return self.step
        return max(self.step, self._before + self._steps_until(self._began[0] + self._together - 1))

    @property
    def steps_of_epoch(self) -> int:
        """The same since the epoch began."""
        return self._steps_until(self._last[0])

    @property
    def last_logs(self) -> Mapping[str, Any]:
        """What the last batch brought."""
        return self._last[1]

    @property
    def epoch_s(self) -> float:
        """Time since the epoch began."""
        return time.perf_counter() - self._epoch_began_s

    @property
    def _last(self) -> tuple[int, Mapping[str, Any]]:
        return max(self._ended.copy(), key=lambda ended: ended[0], default=(-1, {}))

    def forget_optimizer(self) -> None:
        """Another model comes: what is known of the last one's optimizer says nothing about its own."""
        self._ahead = 0

    def begin_training(self, steps_per_epoch: int | None) -> None:
        """Note how many steps an epoch has, where that is known."""
        self._steps_per_epoch = steps_per_epoch

    def begin_epoch(self, taken: int, together: int = 1) -> None:
        """Go on from where the optimizer stands, which may have been restored; where it counts nothing, from here.

        Args:
            taken: Steps that the optimizer has made.
            together: Steps that Keras executes before it tells of one.
        """
        self._together = together
        self._before = taken + self._ahead if taken else self.step
        self._clear()

    def begin_batch(self, batch: int) -> tuple[int, float | None]:
        """Note that a batch begins. It may be one that never comes: so Keras learns that a generator is empty.

        Returns:
            The step before it, and the time in seconds for each step since the last batch began, if this is no first.
        """
        now_s, began = time.perf_counter(), self._began
        self._began = batch, now_s
        self._open.append(batch)
        return self._before + batch, None if began is None else (now_s - began[1]) / (batch - began[0])

    def end_batch(self, batch: int, logs: Mapping[str, Any]) -> int:
        """Note that a batch has ended; returns its step."""
        self._ended.append((batch, logs))
        return self._before + self._steps_until(batch)

    def leave_batch(self) -> None:
        """Note that all is done for a batch that has ended."""
        if self._open:  # A loop of one's own may not say when a batch begins.
            self._open.popleft()

    def wait_for_late(self) -> None:
        """Wait until all is done for those batches that have surely ended: all but the one that began last.

        After an exception in a training, Keras's pool goes on with the batches before it, and tells nobody.
        """
        until_s = time.monotonic() + _LATE_S
        while len(self._open) > 1 and time.monotonic() < until_s:
            time.sleep(_POLL_S)

    def is_due(self, step: int) -> bool:
        """Whether one of the steps that were executed together, of which this is the last, is to be recorded."""
        every = self._every
        return every is not None and step // every > (step - self._together) // every

    def end_epoch(self, taken: int) -> None:
        """Note that an epoch has ended. See `begin_epoch` for the argument."""
        self._before, self._ahead = self.step, self.step - taken if taken else 0
        self._clear()

    def _steps_until(self, batch: int) -> int:
        # Where the last steps of an epoch are fewer than are executed together, Keras counts those that are missing.
        return batch + 1 if self._steps_per_epoch is None else min(batch + 1, self._steps_per_epoch)
