"""Watches one optimizer by its own hooks.

The optimizer calls `before` and `after`, on the thread that trains, around each step that it makes. Guarantee: neither
raises, waits for a device or changes anything of the training. A fault of ours is logged once.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, final

from tracelet.core.records import MetricData, MetricType
from tracelet.errors import UsageError
from tracelet.frameworks._torch import histograms
from tracelet.frameworks._torch.measuring import Measurement, Parameters, Per
from tracelet.utils.guarding import Guarded
from tracelet.utils.pending import Numbers, Pending

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer
    from torch.utils.hooks import RemovableHandle

_STEP: Final = "a step of the optimizer"


class Output(ABC):
    """Where the numbers go."""

    @abstractmethod
    def is_open(self) -> bool:
        """Whether anything is taken now."""

    @abstractmethod
    def numbers(self, values: Mapping[str, float | Pending[float]], step: int) -> None:
        """Take the numbers of a step."""

    @abstractmethod
    def record(self, metric: MetricData) -> None:
        """Take anything else."""

    @abstractmethod
    def before_end(self, write: Callable[[], None]) -> None:
        """Have what a device still counts written before the end."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What is watched; see `torch_framework.watch`."""

    every: int = 1
    histograms_every: int | None = None
    per: Per | None = None
    update_norm: bool = False
    scaler: Any = None

    def __post_init__(self) -> None:
        for name in ("every", "histograms_every"):
            value = getattr(self, name)
            if not (type(value) is int and value > 0) and not (value is None and name == "histograms_every"):
                raise UsageError(f"{name} is a number of steps, 1 or more, not {value!r:.100}")
        if self.per not in (None, "group", "layer"):
            raise UsageError(f"per is 'group', 'layer' or None, not {self.per!r:.100}")


@final
@dataclass(slots=True)
class _Step:
    """One step while it is made."""

    measurement: Measurement | None = None
    histograms: list[tuple[str, Numbers | None, Callable[[], Any]]] | None = None
    parameters: Parameters | None = None
    before: list[Tensor] | None = None

    @property
    def is_watched(self) -> bool:
        return self.measurement is not None or self.histograms is not None


@final
class OptimizerWatch(Guarded):
    """See the module docstring."""

    def __init__(
        self,
        options: Options,
        output: Output,
        names: Mapping[int, str] | None = None,
        prefix: str = "",
        first_step: int = 0,
    ) -> None:
        """Prepare to watch.

        Args:
            options: What.
            output: Where it goes.
            names: What a model calls its parameters, by their `id`.
            prefix: Stands before each name.
            first_step: The number of the next step.
        """
        self.step = first_step
        self._options = options
        self._output = output
        self._names = names or {}
        self._prefix = prefix
        self._now: _Step | None = None
        self._handles: list[RemovableHandle] = []
        # What a device still counts. A device that is behind holds up the training before this grows large.
        self._histograms: deque[tuple[str, Numbers | None, Callable[[], Any], int, float]] = deque()

    def attach(self, optimizer: Optimizer) -> None:
        """Watch the steps from now on."""
        import torch

        # A compiled `optimizer.step` leaves its graph for the hooks.
        disable: Any = torch.compiler.disable
        self._handles.append(optimizer.register_step_pre_hook(disable(self.before)))
        self._handles.append(optimizer.register_step_post_hook(disable(self.after)))
        self._output.before_end(self.write_all)

    def detach(self) -> None:
        """Watch no more, and write what a device has counted: this waits for it."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.write_all()

    def write_all(self) -> None:
        """Write what a device has counted: this waits for it. Called on any thread."""
        try:
            self._write_histograms(only_ready=False)
        except Exception as error:  # noqa: BLE001 - whatever it is, the training is worth more
            self.report(_STEP, error)

    # -- what the optimizer calls --------------------------------------------------------------------------------------

    def before(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """A step begins."""
        now = self._now = _Step()
        try:
            options = self._options
            if not self._output.is_open():
                return
            if self.step % options.every == 0:
                now.measurement = Measurement()
            if options.histograms_every is not None and self.step % options.histograms_every == 0:
                now.histograms = []
            # Not after the step: some optimizers compute in the gradients. With a closure, they are computed in it.
            if now.is_watched and not (len(args) > 1 and args[1] is not None) and kwargs.get("closure") is None:
                self._take(now, optimizer)
                if options.update_norm and now.measurement is not None and now.parameters is not None:
                    now.before = [parameter.detach().clone() for parameter in now.parameters.all]
        except Exception as error:  # noqa: BLE001 - as in `write_all`
            self.report(_STEP, error)

    def after(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """A step has been made, or left out by a `GradScaler`."""
        now, self._now = self._now, None
        if now is None:  # The step of a base class, called by that of a subclass: both call the hooks.
            return
        try:
            if _was_left_out(optimizer):
                return
            step, self.step = self.step, self.step + 1
            if now.is_watched:
                self._finish(now, optimizer, step)
            if self._histograms:
                self._write_histograms(only_ready=True)
        except Exception as error:  # noqa: BLE001 - as in `write_all`
            self.report(_STEP, error)

    # -- inside --------------------------------------------------------------------------------------------------------

    def _take(self, now: _Step, optimizer: Optimizer) -> None:
        import torch

        parameters = now.parameters = Parameters(optimizer, self._names)
        if _is_captured(parameters.all):
            now.measurement = now.histograms = None
            return
        with torch.no_grad():
            if now.measurement is not None:
                kinds = {"grad_norm": parameters.gradients, "param_norm": parameters.all}
                now.measurement.add_norms(kinds, self._places(parameters), {"grad_norm": parameters.scale})
                now.measurement.add_learning_rates(optimizer)
                if self._options.scaler is not None:
                    scale = self._options.scaler._get_scale_async()  # noqa: SLF001 - the public one waits for the device
                    if scale is not None:
                        now.measurement.add("train/loss_scale", scale)
            if now.histograms is not None:
                for (name, parameter), gradient in zip(parameters.named(), parameters.gradients, strict=True):
                    now.histograms.append((f"gradients/{name}", *histograms.take(gradient, parameters.scale)))
                    now.histograms.append((f"parameters/{name}", *histograms.take(parameter)))

    def _finish(self, now: _Step, optimizer: Optimizer, step: int) -> None:
        import torch

        if now.parameters is None:
            self._take(now, optimizer)
        if now.before is not None and now.parameters is not None and now.measurement is not None:
            with torch.no_grad():
                updates = torch._foreach_sub(now.parameters.all, now.before)  # noqa: SLF001 - one launch on a GPU
                now.measurement.add_norms({"update_norm": updates}, self._places(now.parameters))
        if now.histograms is not None:
            self._histograms.extend((*taken, step, time.time()) for taken in now.histograms)
        if now.measurement is not None:
            self._output.numbers(now.measurement.result(self._prefix), step)

    def _places(self, parameters: Parameters) -> Mapping[str, Any]:
        return {} if self._options.per is None else parameters.places(self._options.per)

    def _write_histograms(self, *, only_ready: bool) -> None:
        while self._histograms:
            try:
                name, numbers, make, step, time_s = first = self._histograms.popleft()
            except IndexError:  # Another thread was faster.
                return
            if only_ready and numbers is not None and not numbers.is_ready():
                self._histograms.appendleft(first)
                return
            if self._output.is_open():
                self._output.record(MetricData(self._prefix + name, make(), MetricType.HISTOGRAM, step, time_s))


def _was_left_out(optimizer: Optimizer) -> bool:
    """Whether a `GradScaler` has found infinities. It does not call other optimizers then, but it does fused ones.

    On a device, what it has found is not known yet: there the step counts, and its gradient's norm is infinite.
    """
    found = vars(optimizer).get("found_inf")
    return found is not None and found.is_cpu and bool(found.item())


def _is_captured(tensors: list[Tensor]) -> bool:
    """Whether the step is being captured as a CUDA graph: nothing can be read then, nor when the graph is replayed."""
    import torch

    cuda: Any = torch.cuda
    return bool(tensors and tensors[0].is_cuda and cuda.is_current_stream_capturing())
