"""Time is shared out over the steps, and pauses are left out."""

from __future__ import annotations

import pytest

from tracelet.utils.throughput import Throughput, peak_flops_per_s


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s

    def spend(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def throughput(clock: Clock) -> Throughput:
    made = Throughput(clock)
    clock.spend(50.0)  # What comes before the training does not count.
    made.begin(10, 1000.0)
    return made


def test_an_interval_is_that_since_the_last_read(clock: Clock, throughput: Throughput):
    for _ in range(2):
        clock.spend(2.0)
        throughput.step_ended()
    assert (2, 4.0, 200.0) == throughput.read(12, 1200.0)
    clock.spend(1.0)
    throughput.step_ended()
    assert (1, 1.0, 0.0) == throughput.read(13, 1200.0)


def test_pauses_are_left_out(clock: Clock, throughput: Throughput):
    for _ in range(2):
        clock.spend(1.0)
        throughput.step_ended()
        for _ in range(2):  # An evaluation on each of two datasets.
            clock.spend(30.0)
            throughput.pause_ended()
    clock.spend(1.0)
    throughput.step_ended()
    assert (3, 3.0) == throughput.read(13, 0.0)[:2]
    clock.spend(30.0)
    throughput.pause_ended()
    clock.spend(1.0)
    assert (1, 1.0) == throughput.read(14, 0.0)[:2]


def test_without_a_new_step_or_time_there_is_nothing(clock: Clock, throughput: Throughput):
    assert None is throughput.read(11, 2000.0)
    clock.spend(1.0)
    assert None is throughput.read(11, 3000.0)


@pytest.mark.parametrize(
    ("device", "peak"),
    [("NVIDIA H100 80GB HBM3", 989e12), ("NVIDIA H100 PCIe", 756e12), ("NVIDIA A100-SXM4-40GB", 312e12),
     ("NVIDIA L40S", 362e12), ("NVIDIA L4", 121e12), ("Tesla T4", 65e12), ("Quadro", None)],
)  # fmt: skip
def test_the_peak_of_a_device_goes_by_its_name(device: str, peak: float | None):
    assert peak == peak_flops_per_s(device)
