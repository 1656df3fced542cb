"""Numbers that a device still computes. Where there is no GPU, tensors of the CPU pretend to be on one, behind events
that the test lets happen; the buffers, their copies and the reading are the real ones."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

import tracelet
from tests.adapters.torch.helpers import histograms, network, points, train
from tracelet import Experiment
from tracelet.frameworks._torch import histograms as counting
from tracelet.frameworks._torch import measuring
from tracelet.frameworks.torch_framework import watch
from tracelet.utils import media, pending
from tracelet.utils.pending import Numbers, Pending, Transfers, bring


class OnDevice(torch.Tensor):
    """A tensor that says it is on a GPU."""

    is_cpu = False  # type: ignore[assignment]  # an attribute of C
    is_cuda = True  # type: ignore[assignment]  # an attribute of C
    device = torch.device("cuda", 0)  # type: ignore[assignment]  # an attribute of C


class FakeEvent:
    """Happens when the test lets it."""

    def __init__(self, device: FakeDevice) -> None:
        self._device = device
        self.recorded = 0

    def record(self, stream: Any) -> None:
        assert stream == f"stream of {OnDevice.device}"
        self.recorded += 1

    def query(self) -> bool:
        return self._device.is_done.is_set()

    def synchronize(self) -> None:
        assert threading.current_thread() is not threading.main_thread() or self.query(), "the training waits"
        assert self._device.is_done.wait(60)
        if self._device.failure is not None:
            raise self._device.failure


class FakeDevice:
    def __init__(self) -> None:
        self.is_done = threading.Event()
        self.failure: Exception | None = None
        self.blocks: list[tuple[int, int]] = []
        self.transfers = Transfers(self._pinned, lambda: FakeEvent(self), lambda device: f"stream of {device}")

    def _pinned(self, slots: int, numbers: int) -> torch.Tensor:
        self.blocks.append((slots, numbers))
        return torch.empty((slots, numbers), dtype=torch.float64)

    def send(self, *numbers: float) -> Numbers:
        return bring([torch.tensor(number).as_subclass(OnDevice) for number in numbers])


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> FakeDevice:
    fake = FakeDevice()
    monkeypatch.setattr(pending, "transfers", lambda kind: {"cuda": fake.transfers}[kind])
    return fake


def test_numbers_of_a_cpu_are_there_at_once():
    numbers = bring([torch.tensor(1.5), torch.tensor(7), torch.tensor(2.0, dtype=torch.bfloat16)])
    assert numbers.is_ready()
    assert [1.5, 7, 2.0] == numbers.values()


def test_numbers_of_a_device_come_when_it_is_done_in_one_copy(device: FakeDevice):
    numbers = device.send(1.5, 2.5, 3.5)
    assert not numbers.is_ready()
    device.is_done.set()
    assert numbers.is_ready()
    assert [1.5, 2.5, 3.5] == numbers.values() == numbers.values()
    assert [(64, 4)] == device.blocks


def test_numbers_of_several_devices_and_types_keep_their_order(device: FakeDevice):
    device.is_done.set()
    given = [
        torch.tensor(1.5),
        torch.tensor(2**53 - 1).as_subclass(OnDevice),
        torch.tensor(3.5),
        torch.tensor(0.1).half(),
    ]
    given[3] = given[3].as_subclass(OnDevice)
    assert [1.5, 2**53 - 1, 3.5, given[3].item()] == bring(given).values()


def test_a_tensor_that_changes_later_was_copied_before(device: FakeDevice):
    tensor = torch.tensor([1.0]).as_subclass(OnDevice)
    value = pending.pending(tensor)
    tensor.zero_()
    device.is_done.set()
    assert value is not None
    assert 1.0 == value.result()


def test_buffers_are_used_again_and_again(device: FakeDevice):
    device.is_done.set()
    for count in range(500):
        assert [float(count)] == device.send(count).values()
    assert [(64, 1)] == device.blocks
    waiting = [device.send(count) for count in range(100)]  # As many as are under way at once.
    assert [(64, 1)] * 2 == device.blocks
    assert [float(count) for count in range(100)] == [numbers.values()[0] for numbers in waiting]
    for count in range(500):
        device.send(count).values()
    assert [(64, 1)] * 2 == device.blocks


def test_a_buffer_is_not_used_again_before_it_has_been_read(device: FakeDevice):
    device.is_done.set()
    first = device.send(1.0)
    for count in range(200):
        device.send(count).values()
    assert [1.0] == first.values()


def test_two_threads_that_read_the_same_numbers_give_the_buffer_back_once(device: FakeDevice):
    numbers, found = device.send(4.0), []
    threads = [threading.Thread(target=lambda: found.append(numbers.values())) for _ in range(8)]
    for thread in threads:
        thread.start()
    device.is_done.set()
    for thread in threads:
        thread.join()
    assert [[4.0]] * 8 == found
    assert 64 == len(device.transfers._free[OnDevice.device, 1])


@pytest.mark.parametrize("value", [1.0, "x", None, torch.tensor(1.0), torch.ones(2).as_subclass(OnDevice), [1]])
def test_what_is_there_already_or_no_number_is_not_pending(value: Any):
    assert pending.pending(value) is None


def test_a_pending_number_is_its_own():
    value = Pending(Numbers([]), lambda values: 1.0)
    assert pending.pending(value) is value


# -- in an experiment --------------------------------------------------------------------------------------------------


def test_logging_a_number_of_a_device_does_not_wait_for_it(device: FakeDevice):
    with Experiment("device") as experiment:
        for step in range(5):
            experiment.log_metric("loss", torch.tensor(float(step)).as_subclass(OnDevice), step)
        logged_s = time.time()
        experiment.log_metric("plain", 1.0, 0)
        assert [(0, 1.0)] == points(experiment, "plain")
        device.is_done.set()
        assert experiment.flush()
        assert [(step, float(step)) for step in range(5)] == points(experiment, "loss")
        gc.collect()
        assert 64 == len(device.transfers._free[OnDevice.device, 1])
    assert (tracelet.Run(experiment.run_dir).series("loss").times_s <= logged_s).all()


def test_a_number_that_could_not_be_computed_is_recorded_as_what_went_wrong(device: FakeDevice):
    device.failure = RuntimeError("CUDA error: an illegal memory access was encountered")
    device.is_done.set()
    with Experiment("device") as experiment:
        experiment.log_metric("loss", torch.tensor(1.0).as_subclass(OnDevice), 3)
    ((step, text),) = tracelet.Run(experiment.run_dir).texts("loss")
    assert 3 == step
    assert "illegal memory access" in text


def record_a_training(before_end: Callable[[Experiment], None] = lambda experiment: None) -> dict[Any, Any]:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with Experiment("device") as experiment:
        watch(model, optimizer, per="layer", update_norm=True, histograms_every=3)
        train(model, optimizer, 5)
        before_end(experiment)
    names = tracelet.Run(experiment.run_dir).names()
    return {name: points(experiment, name) for name in names} | histograms(experiment)


def test_a_watched_training_does_not_wait_for_the_device(device: FakeDevice, monkeypatch: pytest.MonkeyPatch):
    on_host = record_a_training()
    norms, local = measuring.norms, measuring.local

    def norms_on_device(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        return [found.as_subclass(OnDevice) for found in norms(tensors)]

    def nothing_is_there(experiment: Experiment) -> None:  # `FakeEvent` fails where this thread waits.
        assert ["train/learning_rate"] == tracelet.Run(experiment.run_dir).names()
        assert {} == histograms(experiment)
        device.is_done.set()

    monkeypatch.setattr(measuring, "norms", norms_on_device)
    monkeypatch.setattr(counting, "local", lambda tensor: local(tensor).as_subclass(OnDevice))
    on_device = record_a_training(nothing_is_there)
    assert on_device.keys() == on_host.keys()
    for name, found in on_device.items():
        if isinstance(found, dict):
            assert sum(found["counts"]) == sum(on_host[name]["counts"])
            assert found["edges"] == pytest.approx(on_host[name]["edges"], abs=1e-7)
        else:
            assert found == on_host[name]


@pytest.mark.parametrize(
    "values",
    [
        torch.arange(1000) / 7,
        torch.randn(64, 64, generator=torch.Generator().manual_seed(0)).bfloat16(),
        torch.tensor([1.0, float("nan"), 3.0, float("inf"), -float("inf")]),
        torch.tensor([float("nan")] * 3),
        torch.zeros(9),
        torch.full((5,), 3e30),
        torch.empty(0),
        torch.tensor([-3, 4, 100]),
        torch.tensor(2.5),
    ],
    ids=str,
)
def test_a_device_counts_as_the_host_does(values: torch.Tensor):
    found = counting.as_histogram(counting.counted(values).tolist())
    expected = media.histogram(values, counting.BINS)
    assert {key: found[key] for key in ("nan", "inf")} == {key: expected[key] for key in ("nan", "inf")}
    assert found["edges"] == pytest.approx(expected["edges"])
    # NumPy counts with the edges as they are rounded: an element that is on one may be in the bin beside.
    assert sum(found["counts"]) == sum(expected["counts"])
    assert sum(abs(one - other) for one, other in zip(found["counts"], expected["counts"], strict=True)) <= 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_real_gpu():
    value = pending.pending(torch.full((1,), 2.5, device="cuda") * 2)
    assert value is not None
    assert 5.0 == value.result()
