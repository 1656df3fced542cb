"""Numbers that a device is still computing, brought to the host without waiting for it.

`pending` and `bring` are called on the thread that trains; `is_ready` and `result` on any thread, later. Guarantee: the
former launch a copy and return. What comes later does not see a change that is made to a tensor after the call, for the
device copies in the order of its own work. Only tensors of CUDA (and ROCm) are copied so: a CPU's number is there
already, and reading it at once (0.16 µs) is cheaper than any copy.
"""

from __future__ import annotations

import functools
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar, final

from tracelet.utils.values import is_a

if TYPE_CHECKING:
    import torch
    from torch import Tensor

T = TypeVar("T")

_DEVICES: Final = ("cuda",)
_SLOTS: Final = 64  # Made at once: as many copies of one size as are usually under way.


def pending(value: Any) -> Pending[Any] | None:
    """The number of a tensor of one element on a device that computes by itself; None for anything that is there.

    Imports nothing: where PyTorch is not loaded, no value is its tensor.
    """
    if type(value) is Pending:
        return value
    if not is_a(value, "torch", "Tensor") or value.device.type not in _DEVICES or value.numel() != 1:
        return None
    return Pending(bring([value.detach().reshape(())]), _first)


def bring(numbers: Sequence[Tensor]) -> Numbers:
    """Bring numbers to the host: those of a CPU at once, those of each other device by one copy of all of them.

    Args:
        numbers: Tensors of shape (), of any real types and devices.
    """
    import torch

    if all([number.is_cpu for number in numbers]):  # noqa: C419 - a generator takes twice as long
        return Numbers([(range(len(numbers)), [number.item() for number in numbers])])
    parts: list[tuple[Sequence[int], Copy | list[float]]] = []
    for device in {number.device for number in numbers}:
        places = [place for place, number in enumerate(numbers) if number.device == device]
        here = [numbers[place] for place in places]
        if device.type not in _DEVICES:
            parts.append((places, [number.item() for number in here]))
            continue
        if len({number.dtype for number in here}) > 1:  # float64 holds the numbers of every other type.
            here = [number.double() for number in here]
        parts.append((places, transfers(device.type).start(torch.stack(here).double())))
    return Numbers(parts)


def bring_all(numbers: Tensor) -> Numbers:
    """Bring the elements of a tensor of shape (n,) to the host; as `bring`."""
    count = numbers.numel()
    if numbers.device.type not in _DEVICES:
        return Numbers([(range(count), numbers.tolist())])
    return Numbers([(range(count), transfers(numbers.device.type).start(numbers.double()))])


@final
class Numbers:
    """Numbers on their way to the host."""

    def __init__(self, parts: Sequence[tuple[Sequence[int], Copy | list[float]]]) -> None:
        """Put together what comes from several devices: each part has the places of its numbers."""
        self._parts = parts

    def is_ready(self) -> bool:
        """Whether `values` returns at once."""
        return all(not isinstance(part, Copy) or part.is_ready() for _, part in self._parts)

    def values(self) -> list[float]:
        """The numbers, in the order in which they were given. Waits for them.

        Raises:
            RuntimeError: A device could not compute them.
        """
        found = [(places, part.values() if isinstance(part, Copy) else part) for places, part in self._parts]
        if len(found) == 1:
            return found[0][1]
        placed = {place: value for places, values in found for place, value in zip(places, values, strict=True)}
        return [placed[place] for place in range(len(placed))]


@final
class Pending(Generic[T]):
    """What is made of such numbers, on the host."""

    def __init__(self, numbers: Numbers, make: Callable[[list[float]], T]) -> None:
        """`make` gets all of the numbers."""
        self._numbers = numbers
        self._make = make

    def is_ready(self) -> bool:
        """Whether `result` returns at once."""
        return self._numbers.is_ready()

    def result(self) -> T:
        """It. Waits for the numbers.

        Raises:
            RuntimeError: A device could not compute them.
        """
        return self._make(self._numbers.values())


def _first(values: list[float]) -> float:
    return values[0]


# -- copies from a device ----------------------------------------------------------------------------------------------


class Event(Protocol):
    """What is used of `torch.cuda.Event`."""

    def record(self, stream: Any) -> None:
        """Happen when the stream has come here."""

    def query(self) -> bool:
        """Whether it has happened."""

    def synchronize(self) -> None:
        """Wait until it has."""


@final
@dataclass(frozen=True, slots=True)
class Slot:
    """A buffer in pinned memory, and the event that says that it is full."""

    buffer: Tensor
    event: Event


@final
class Transfers:
    """Starts copies from the devices of one kind into pinned buffers, which are used again and again.

    A fresh buffer for each copy would be taken from PyTorch's cache of pinned memory, which holds a block back until
    the device is done with it and asks the driver for new ones meanwhile: milliseconds, in which all streams stand.
    """

    def __init__(
        self,
        pinned: Callable[[int, int], Tensor],
        new_event: Callable[[], Event],
        current_stream: Callable[[torch.device], Any],
    ) -> None:
        """Make one without any buffer.

        Args:
            pinned: Gives float64 in pinned memory, of a shape (slots, numbers).
            new_event: Makes an event.
            current_stream: The stream that a device's work is put on.
        """
        self._pinned = pinned
        self._new_event = new_event
        self._current_stream = current_stream
        # By device, whose events are no other's, and size. A deque's `pop` and `append` need no lock.
        self._free: defaultdict[tuple[torch.device, int], deque[Slot]] = defaultdict(deque)

    def start(self, numbers: Tensor) -> Copy:
        """Begin to copy.

        Args:
            numbers: float64 of shape (n,), on a device of this kind.
        """
        count = numbers.numel()
        free = self._free[numbers.device, 1 << (count - 1).bit_length()]
        slot = self._slot(free, 1 << (count - 1).bit_length())
        slot.buffer[:count].copy_(numbers, non_blocking=True)
        slot.event.record(self._current_stream(numbers.device))
        return Copy(slot, count, free)

    def _slot(self, free: deque[Slot], size: int) -> Slot:
        try:
            return free.popleft()
        except IndexError:
            first, *others = (Slot(buffer, self._new_event()) for buffer in self._pinned(_SLOTS, size))
            free.extend(others)
            return first


@final
class Copy:
    """Numbers on their way from a device."""

    def __init__(self, slot: Slot, count: int, free: deque[Slot]) -> None:
        """Take the slot, until the numbers have been read; then it goes to the free ones."""
        self._slot = slot
        self._count = count
        self._free = free
        self._values: list[float] | None = None
        self._reading = threading.Lock()  # Never taken on the thread that trains.

    def is_ready(self) -> bool:
        """Whether `values` returns at once."""
        return self._values is not None or self._slot.event.query()

    def values(self) -> list[float]:
        """The numbers. Waits for them.

        Raises:
            RuntimeError: The device could not compute them.
        """
        with self._reading:
            if self._values is None:
                self._slot.event.synchronize()
                self._values = self._slot.buffer[: self._count].tolist()
                self._free.append(self._slot)
            return self._values


@functools.cache
def transfers(kind: str) -> Transfers:
    """The ones for all devices of a kind in this process."""
    import torch

    api: Any = torch.get_device_module(kind)

    def pinned(slots: int, numbers: int) -> Tensor:
        return torch.empty((slots, numbers), dtype=torch.float64, pin_memory=True)

    # `blocking`: who waits sleeps, and does not spin on a core that the training may need.
    return Transfers(pinned, lambda: api.Event(blocking=True), api.current_stream)
