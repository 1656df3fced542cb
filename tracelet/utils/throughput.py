"""How fast a training goes, by the host's clock alone: no device is asked, so none has to catch up.

Called on the training thread. `begin` comes first; then, in any order, `step_ended` (each step), `pause_ended` (an
evaluation, a checkpoint) and `read` (each logging step). Guarantee: the time between two reads, without the pauses, is
shared out over the steps between them. A framework waits for the device when it reads the loss that it logs; so this
time is right where `read` comes after that, though a step alone may only have been queued.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, final

# Dense, 16 bits, from the makers' data sheets. The first name that a device's name contains counts.
_PEAK_FLOPS_PER_S: Final = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "A100": 312e12,
    "A10G": 70e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "V100": 125e12,
    "T4": 65e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
    "MI300X": 1307e12,
    "MI250": 362e12,
}


def peak_flops_per_s(device: str) -> float | None:
    """The most floating-point operations per second that a device of this name can do; None for an unknown one."""
    return next((peak for name, peak in _PEAK_FLOPS_PER_S.items() if name in device), None)


@final
class Throughput:
    """See the module docstring."""

    def __init__(self, clock_s: Callable[[], float] = time.perf_counter) -> None:
        """Make one; `clock_s` gives seconds that only go forward."""
        self._clock_s = clock_s
        self.begin(0, 0.0)

    def begin(self, step: int, flops: float) -> None:
        """A training begins, or goes on, at a step; `flops` are the operations that were counted before."""
        self._began_s = self._noted_s = self._clock_s()
        self._paused_s = 0.0
        self._step, self._flops = step, flops

    def step_ended(self) -> None:
        """What comes now is not of the step any more: the next one, or a pause."""
        self._noted_s = self._clock_s()

    def pause_ended(self) -> None:
        """All since the last step, read or pause was no training."""
        now_s = self._clock_s()
        self._paused_s += now_s - self._noted_s
        self._noted_s = now_s

    def read(self, step: int, flops: float) -> tuple[int, float, float] | None:
        """What has been done since the last read; None without a new step.

        Args:
            step: How many steps have been done, in all.
            flops: Floating-point operations that have been counted, in all.

        Returns:
            How many steps, the time that they took, in seconds and without the pauses, and their operations.
        """
        now_s = self._clock_s()
        steps, spent_s, flops_since = step - self._step, now_s - self._began_s - self._paused_s, flops - self._flops
        self._began_s = self._noted_s = now_s
        self._paused_s, self._step, self._flops = 0.0, step, flops
        return (steps, spent_s, flops_since) if steps > 0 and spent_s > 0 else None
