"""Watches one optimizer by its own hooks.

The optimizer calls `before` and `after`, on the thread that trains, around each step that it makes. Guarantee: neither
raises, waits for a device or changes anything of the training. A fault of ours is logged once.
"""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from tracelet.core.records import MetricData, MetricType
from tracelet.errors import UsageError
from tracelet.frameworks._torch import histograms
from tracelet.frameworks._torch.measuring import Measurement, Parameters, Per
from tracelet.utils.pending import Numbers, Pending

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer
    from torch.utils.hooks import RemovableHandle

logger = logging.getLogger(__name__)


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
class OptimizerWatch:
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
        self._has_reported = False
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

    def detach(self) -> None:
        """Watch no more, and write what a device has counted: this waits for it."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        try:
            self._write_histograms(only_ready=False)
        except Exception as error:  # noqa: BLE001 - whatever it is, the training is worth more
            self._report(error)

    # -- what the optimizer calls --------------------------------------------------------------------------------------

    def before(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """A step begins."""
        now = self._now = _Step()
        try:
            options = self._options
            if not self._output.is_open() or _is_capturing():
                return
            if self.step % options.every == 0:
                now.measurement = Measurement()
            if options.histograms_every is not None and self.step % options.histograms_every == 0:
                now.histograms = []
            if not now.is_watched:
                return
            if not (len(args) > 1 and args[1] is not None) and kwargs.get("closure") is None:
                self._take_gradients(now, optimizer)
            if options.update_norm and now.measurement is not None:
                self._keep(now, optimizer)
        except Exception as error:  # noqa: BLE001 - as in `detach`
            self._report(error)

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
        except Exception as error:  # noqa: BLE001 - as in `detach`
            self._report(error)

    # -- inside --------------------------------------------------------------------------------------------------------

    def _take_gradients(self, now: _Step, optimizer: Optimizer) -> None:
        """Before the step: some optimizers compute in the gradients. With a closure, after it: it computes them."""
        import torch

        with torch.no_grad():
            now.parameters = Parameters(optimizer, self._names)
            scale = vars(optimizer).get("grad_scale")  # A GradScaler leaves it to a fused optimizer to divide by it.
            if now.measurement is not None:
                gradients = [parameter.grad for parameter in now.parameters.all if parameter.grad is not None]
                now.measurement.add_norms("grad_norm", gradients, self._places(now.parameters), scale)
            if now.histograms is not None:
                for name, parameter in now.parameters.named():
                    if parameter.grad is not None:
                        now.histograms.append((f"gradients/{name}", *histograms.take(parameter.grad, scale)))

    def _keep(self, now: _Step, optimizer: Optimizer) -> None:
        import torch

        with torch.no_grad():
            now.parameters = now.parameters or Parameters(optimizer, self._names)
            now.before = [parameter.detach().clone() for parameter in now.parameters.all]

    def _finish(self, now: _Step, optimizer: Optimizer, step: int) -> None:
        import torch

        if now.parameters is None:
            self._take_gradients(now, optimizer)
        parameters = now.parameters
        assert parameters is not None
        with torch.no_grad():
            if now.histograms is not None:
                for name, parameter in parameters.named():
                    now.histograms.append((f"parameters/{name}", *histograms.take(parameter)))
                self._histograms.extend((*taken, step, time.time()) for taken in now.histograms)
            if (measurement := now.measurement) is None:
                return
            measurement.add_learning_rates(optimizer)
            places = self._places(parameters)
            measurement.add_norms("param_norm", parameters.all, places)
            if now.before is not None:
                updates = torch._foreach_sub(parameters.all, now.before)  # noqa: SLF001 - one launch for all on a GPU
                measurement.add_norms("update_norm", updates, places)
            if (scaler := self._options.scaler) is not None:
                scale = scaler._get_scale_async()  # noqa: SLF001 - `get_scale` waits for the device
                if scale is not None:
                    measurement.add("train/loss_scale", scale)
        self._output.numbers(measurement.result(self._prefix), step)

    def _places(self, parameters: Parameters) -> Mapping[str, Any]:
        return {} if self._options.per is None else parameters.places(self._options.per)

    def _write_histograms(self, *, only_ready: bool) -> None:
        while self._histograms:
            name, numbers, make, step, time_s = self._histograms[0]
            if only_ready and numbers is not None and not numbers.is_ready():
                return
            self._histograms.popleft()
            if self._output.is_open():
                self._output.record(MetricData(self._prefix + name, make(), MetricType.HISTOGRAM, step, time_s))

    def _report(self, error: Exception) -> None:
        if not self._has_reported:
            self._has_reported = True
            logger.warning("A step is not recorded, the training goes on: %r", error, exc_info=error)


def _was_left_out(optimizer: Optimizer) -> bool:
    """Whether a `GradScaler` has found infinities. It does not call other optimizers then, but it does fused ones.

    On a device, what it has found is not known yet: there the step counts, and its gradient's norm is infinite.
    """
    found = vars(optimizer).get("found_inf")
    return found is not None and found.is_cpu and bool(found.item())


def _is_capturing() -> bool:
    """Whether the step is being recorded for a CUDA graph: nothing can be read then, nor when the graph is replayed."""
    import torch

    cuda: Any = torch.cuda
    return bool(cuda.is_initialized() and cuda.is_current_stream_capturing())
