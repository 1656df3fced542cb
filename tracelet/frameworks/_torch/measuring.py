"""What one step of an optimizer tells in numbers: learning rates, norms, the loss scale.

Called on the thread that trains, in the hooks of a step. Guarantee: only what the device is to compute is launched
there. What is read of it, is read by `tracelet.utils.pending`: at once on a CPU, else when it has come to the host.
"""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, final

from tracelet.utils.pending import Pending, bring
from tracelet.utils.values import is_a

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

Per = Literal["group", "layer"]
Make = Callable[[list[float]], float]

_DTENSOR: Final = ("torch.distributed.tensor", "DTensor")


@final
class Parameters:
    """The parameters of an optimizer that a step changes, and what they belong to."""

    def __init__(self, optimizer: Optimizer, names: Mapping[int, str]) -> None:
        """Look at those that have a gradient now.

        Args:
            optimizer: Its groups may change from step to step.
            names: What a model calls its parameters, by their `id`.
        """
        self._names = names
        self._groups = [
            (group, [parameter for parameter in group["params"] if parameter.grad is not None])
            for group in optimizer.param_groups
        ]
        self.all: list[Tensor] = [parameter for _, found in self._groups for parameter in found]
        self.gradients: list[Tensor] = [parameter.grad for parameter in self.all]  # type: ignore[misc]  # None is out.
        self.scale: Tensor | None = vars(optimizer).get("grad_scale")
        """What the gradients are too large by: a `GradScaler` leaves it to a fused optimizer to divide by it."""

    def named(self) -> Iterable[tuple[str, Tensor]]:
        """With their names; one that no model names is called by its place."""
        for label, found in self._labelled():
            for place, parameter in enumerate(found):
                yield self._names.get(id(parameter), f"{label}.{place}"), parameter

    def places(self, per: Per) -> Mapping[str, Sequence[int]]:
        """The places in `all` of those of each group; or of each layer, a module with parameters of its own."""
        places: defaultdict[str, list[int]] = defaultdict(list)
        place = 0
        for label, found in self._labelled():
            for parameter in found:
                name = self._names.get(id(parameter)) if per == "layer" else None
                places[label if name is None else name.rpartition(".")[0] or "model"].append(place)
                place += 1
        return places

    def _labelled(self) -> Iterable[tuple[str, list[Tensor]]]:
        for place, (group, found) in enumerate(self._groups):
            yield group_name(group, place), found


@final
class Measurement:
    """The numbers of one step, as they come together."""

    def __init__(self) -> None:
        """Make one without any number."""
        self._tensors: list[Tensor] = []
        self._made: dict[str, Make] = {}
        self._floats: dict[str, float] = {}

    def add(self, name: str, number: Any) -> None:
        """Take a number, or a tensor of one."""
        if is_a(number, "torch", "Tensor"):
            self._made[name] = functools.partial(_at, len(self._tensors))
            self._tensors.append(number.detach().reshape(()))
        else:
            self._floats[name] = float(number)

    def add_learning_rates(self, optimizer: Optimizer) -> None:
        """Take that of the first group, and of each where there are several."""
        groups = optimizer.param_groups
        self.add("train/learning_rate", groups[0]["lr"])
        if len(groups) > 1:
            for place, group in enumerate(groups):
                self.add(f"lr/{group_name(group, place)}", group["lr"])

    def add_norms(
        self,
        kinds: Mapping[str, Sequence[Tensor]],
        places: Mapping[str, Sequence[int]],
        scales: Mapping[str, Tensor | None] = MappingProxyType({}),
    ) -> None:
        """Take norms over tensors: over all of each kind, and over those at some places.

        Args:
            kinds: `grad_norm`, `param_norm` or `update_norm`, and the tensors.
            places: Name and places in the tensors of each kind.
            scales: What the tensors of a kind are too large by.
        """
        begin = len(self._tensors)
        self._tensors += norms([tensor for tensors in kinds.values() for tensor in tensors])
        for kind, tensors in kinds.items():
            end = begin + len(tensors)
            scaled_at = None
            if (scale := scales.get(kind)) is not None:
                scaled_at = len(self._tensors)
                self._tensors.append(scale.detach().reshape(()))
            if tensors:
                self._made[f"train/{kind}"] = functools.partial(_norm, slice(begin, end), scaled_at)
            for name, found in places.items():
                shifted = tuple(begin + place for place in found)
                self._made[f"{kind}/{name}"] = functools.partial(_norm_at, shifted, scaled_at)
            begin = end

    def result(self, prefix: str) -> dict[str, float | Pending[float]]:
        """The numbers, each under its name with the prefix."""
        numbers = bring(self._tensors)
        found: dict[str, float | Pending[float]] = {prefix + name: value for name, value in self._floats.items()}
        if numbers.is_ready():
            values = numbers.values()
            found.update((prefix + name, make(values)) for name, make in self._made.items())
        else:
            found.update((prefix + name, Pending(numbers, make)) for name, make in self._made.items())
        return found


def norms(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The norm of each: one launch for many on a GPU. Halves are summed as float32: float16 ends at 65,504."""
    import torch

    plain, strided = (torch.Tensor, torch.nn.Parameter), torch.strided
    here = [tensor if type(tensor) in plain and tensor.layout is strided else local(tensor) for tensor in tensors]
    halves = [dtype.itemsize <= 2 for dtype in {tensor.dtype for tensor in here}]
    if not any(halves):
        return list(torch._foreach_norm(here)) if here else []  # noqa: SLF001 - as in torch's own clipping of gradients
    if all(halves):
        return list(torch._foreach_norm(here, 2, torch.float32))  # noqa: SLF001 - as above
    return [torch.linalg.vector_norm(tensor.float() if tensor.dtype.itemsize <= 2 else tensor) for tensor in here]


def local(tensor: Tensor) -> Tensor:
    """The elements in this process's memory: of a sharded tensor the shard, of a sparse one what is not zero.

    To put a sharded one together is a matter of all processes, of which maybe one alone records.
    """
    import torch

    if is_a(tensor, *_DTENSOR):
        shard: Any = tensor
        return local(shard.to_local())
    return tensor if tensor.layout is torch.strided else tensor.coalesce().values()


def group_name(group: Mapping[str, Any], place: int) -> str:
    """As the user calls it, or by its place."""
    return str(group.get("name", f"group_{place}"))


def _at(place: int, values: list[float]) -> float:
    return values[place]


def _norm(places: slice, scaled_at: int | None, values: list[float]) -> float:
    return math.hypot(*values[places]) / (1.0 if scaled_at is None else values[scaled_at])


def _norm_at(places: Sequence[int], scaled_at: int | None, values: list[float]) -> float:
    return math.hypot(*(values[place] for place in places)) / (1.0 if scaled_at is None else values[scaled_at])
