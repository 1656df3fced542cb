"""What is known of a training's steps besides its metrics: learning rates, gradient norms, speed.

Called on the training thread: `begin` first, then for each step those of the methods that its hooks call. Guarantee: no
device is asked for anything; what it still computes is recorded when it is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

from torch import Tensor, cuda
from torch.nn.utils import get_total_norm

from tracelet.utils.throughput import Throughput, peak_flops_per_s
from tracelet_lightning.rates import Rates, group_names


@final
class Progress:
    """See the module docstring."""

    def __init__(self, *, grad_norms: bool, momentum: bool, weight_decay: bool, peak_flops_per_s: float | None) -> None:
        """Say what is wanted; see `TraceletCallback`."""
        self.wants_norms = grad_norms
        """Whether `optimizer_steps` has something to do."""
        self.throughput = Throughput()
        """Is told of the ends of steps and pauses."""
        self._rates = Rates(momentum=momentum, weight_decay=weight_decay)
        self._has_rates = True
        self._given_peak_flops_per_s = peak_flops_per_s
        self._peak_flops_per_s: float | None = None  # Of one device.
        self._values: dict[str, Any] = {}  # Of the present step; on the device, maybe.
        self._samples = self._steps = 0
        self._flops = 0.0
        self._world_size = 1

    def begin(self, trainer: Any, *, has_rates: bool) -> None:
        """A training begins. `has_rates`: whether learning rates are recorded here, and not by Lightning's monitor."""
        self._has_rates = has_rates
        self._rates.forget()
        self._values = {}
        device = trainer.strategy.root_device
        known = peak_flops_per_s(cuda.get_device_name(device)) if device.type == "cuda" else None
        self._peak_flops_per_s = self._given_peak_flops_per_s or known
        self._samples = self._steps = 0
        self._flops = 0.0
        self._world_size = trainer.world_size
        self.throughput.begin(0, 0.0)

    def step_begins(self, trainer: Any) -> None:
        """Note the learning rates of a step that is to be recorded: a scheduler changes them before it ends."""
        if self._has_rates:
            self._values = self._rates.read(trainer.optimizers, trainer.lr_scheduler_configs)

    def optimizer_steps(self, optimizer: Any) -> None:
        """Note the norms of a step's gradient, before it is clipped."""
        groups = optimizer.param_groups
        found = [[weight.grad for weight in group["params"] if weight.grad is not None] for group in groups]
        self._values["train/grad_norm"] = get_total_norm([grad for grads in found for grad in grads])
        if len(groups) > 1:
            for name, grads in zip(group_names(groups), found, strict=True):
                self._values[f"grad_norm/{name}"] = get_total_norm(grads)

    def batch_ended(self, module: Any, batch: Any) -> None:
        """Count a batch."""
        self._samples += _size(batch)
        self._flops += getattr(module, "flops_per_batch", None) or 0.0  # As `ThroughputMonitor` asks for it.

    def step_ended(self, *, is_recorded: bool) -> dict[str, Any]:
        """The values of a step that has ended; none where it is not to be recorded."""
        self._steps += 1
        if not is_recorded:
            self.throughput.step_ended()
            return {}
        values, self._values = self._values, {}
        done = self.throughput.read(self._steps, self._flops)
        if done is not None:
            steps, spent_s, flops = done
            values["throughput/step_time_s"] = spent_s / steps
            if self._samples:
                values["throughput/samples_per_s"] = self._samples * self._world_size / spent_s
            if self._peak_flops_per_s and flops > 0:
                values["throughput/mfu"] = flops / self._peak_flops_per_s / spent_s
        self._samples = 0
        return values


def _size(batch: Any) -> int:
    """How many samples there are: by the first tensor of a batch, 0 where it has none at its top levels."""
    for _ in range(3):
        if isinstance(batch, Tensor):
            return len(batch) if batch.ndim else 1
        if isinstance(batch, Mapping):
            batch = next(iter(batch.values()), None)
        elif isinstance(batch, (list, tuple)):
            batch = batch[0] if batch else None
    return 0
