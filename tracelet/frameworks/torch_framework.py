"""PyTorch: `watch` for a training loop of your own, and a `SummaryWriter` for scripts that have TensorBoard's.

    from tracelet import Experiment
    from tracelet.frameworks.torch_framework import watch

    with Experiment("digits") as experiment, watch(model, optimizer, experiment=experiment):
        ...

`watch` and `close` are called on the thread that trains, where the hooks of `_torch.watching` then run. PyTorch is
imported by these calls, and not by importing this module.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, final

from tracelet.core.experiment import Experiment
from tracelet.core.plugins import FrameworkPlugin, PluginMetadata, PluginType
from tracelet.core.records import MetricData, MetricType
from tracelet.errors import UsageError
from tracelet.frameworks._torch.measuring import Per
from tracelet.frameworks._torch.models import ExperimentOutput, named, parameter_names
from tracelet.frameworks._torch.summary_writer import SummaryWriter
from tracelet.frameworks._torch.watching import OptimizerWatch, Options, Output
from tracelet.utils.imports import require
from tracelet.utils.pending import Pending

if TYPE_CHECKING:
    from torch.nn import Module
    from torch.optim import Optimizer

__all__ = ["PyTorchFramework", "SummaryWriter", "Watch", "watch"]


def watch(
    model: Module | Sequence[Module] | Mapping[str, Module],
    optimizer: Optimizer | Sequence[Optimizer] | Mapping[str, Optimizer],
    *,
    experiment: Experiment | None = None,
    every: int = 1,
    histograms_every: int | None = None,
    per: Per | None = None,
    update_norm: bool = False,
    scaler: Any = None,
    prefix: str = "",
    first_step: int = 0,
) -> Watch:
    """Record what each step of an optimizer does: learning rates and norms, and histograms where they are asked for.

    The model and the optimizer compute the same as without, and can be pickled and copied; a copy is not watched.

    Args:
        model: What is trained; it gives the parameters their names. Several: the names begin with their keys or places.
        optimizer: What makes the steps. Several: each counts its own, under `optimizer_0/` and so on, or its key.
        experiment: None: the active one.
        every: Steps from one record to the next.
        histograms_every: Steps from one histogram of each parameter and gradient to the next. None: there are none.
        per: Norms also for each `"group"` of parameters, or for each `"layer"`: a module with parameters of its own.
        update_norm: Whether the norm of what a step changes is recorded, which takes a copy of all parameters.
        scaler: A `GradScaler`, whose scale is recorded then.
        prefix: Stands before all names, divided by a `/`.
        first_step: The number of the next step: that of a checkpoint, say.

    Returns:
        What ends it, by `close()` or as a context manager.

    Raises:
        UsageError: An argument is not what it should be, or no experiment is given or active.
        MissingDependencyError: PyTorch is not installed.
    """
    torch = require("torch", "watch()")
    options = Options(every=every, histograms_every=histograms_every, per=per, update_norm=update_norm, scaler=scaler)
    experiment = Experiment.active() if experiment is None else experiment
    if experiment is None:
        raise UsageError("watch() finds no active experiment: start one before, or give it as experiment=…")
    models = dict(named(model, torch.nn.Module, "model", ""))
    optimizers = dict(named(optimizer, torch.optim.Optimizer, "optimizer", "optimizer_"))
    output = ExperimentOutput(experiment, models, optimizers, f"{prefix}/" if prefix else "")
    names = parameter_names(models)
    watches = []
    for key, one in optimizers.items():
        watches.append(OptimizerWatch(options, output, names, "/".join((*filter(None, (prefix, key)), "")), first_step))
        watches[-1].attach(one)
    return Watch(watches)


@final
class Watch:
    """What `watch` has begun."""

    def __init__(self, watches: Sequence[OptimizerWatch]) -> None:
        """Made by `watch`."""
        self._watches = watches

    def close(self) -> None:
        """Take the hooks away. A second call does nothing."""
        for one in self._watches:
            one.detach()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@final
class PyTorchFramework(FrameworkPlugin):
    """Records learning rates and norms at the steps of every optimizer of the process, whoever makes it.

    Settings: `every`, `histograms_every`, `per` and `update_norm`, as for `watch`. The second optimizer's names begin
    with `optimizer_1/`, and so on, by the order of their first steps.
    """

    def __init__(self) -> None:
        super().__init__()
        self._options = Options()
        self._handles: list[Any] = []
        self._watches: weakref.WeakKeyDictionary[Optimizer, OptimizerWatch] = weakref.WeakKeyDictionary()
        self._count = 0

    @classmethod
    def get_metadata(cls) -> PluginMetadata:
        """As `PluginBase`."""
        return PluginMetadata(
            "torch", "1.0.0", PluginType.FRAMEWORK, "Learning rates and norms of all optimizers", "Tracelet",
            dependencies=["torch"], capabilities={"metric_capture"},
        )  # fmt: skip

    def initialize(self, config: dict[str, Any]) -> None:
        """As `PluginBase`.

        Raises:
            UsageError: A setting is out of range.
        """
        known = ("every", "histograms_every", "per", "update_norm")
        self._options = Options(**{key: value for key, value in config.items() if key in known})

    def start(self) -> None:
        """Add the hooks."""
        import torch
        from torch.optim import optimizer

        if not self._handles:
            disable: Any = torch.compiler.disable  # As in `OptimizerWatch.attach`.
            self._handles = [
                optimizer.register_optimizer_step_pre_hook(disable(self._before)),
                optimizer.register_optimizer_step_post_hook(disable(self._after)),
            ]

    def stop(self) -> None:
        """Take them away."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        for one in list(self._watches.values()):
            one.detach()
        self._watches.clear()

    def get_status(self) -> dict[str, Any]:
        """Whether it is hooked, and how many optimizers have made a step."""
        return {"hooked": bool(self._handles), "optimizers": self._count}

    def _before(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        found = self._watches.get(optimizer)
        if found is None:
            prefix = f"optimizer_{self._count}/" if self._count else ""
            found = self._watches[optimizer] = OptimizerWatch(self._options, _SinkOutput(self), prefix=prefix)
            self._count += 1
        found.before(optimizer, args, kwargs)

    def _after(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        found = self._watches.get(optimizer)
        if found is not None:  # The plug-in was started within a step.
            found.after(optimizer, args, kwargs)


@final
class _SinkOutput(Output):
    """The experiment of a plug-in, which may be any sink."""

    def __init__(self, plugin: PyTorchFramework) -> None:
        self._plugin = plugin

    def is_open(self) -> bool:
        return True

    def numbers(self, values: Mapping[str, float | Pending[float]], step: int) -> None:
        for name, value in values.items():
            self.record(MetricData(name, value, MetricType.SCALAR, step))

    def record(self, metric: MetricData) -> None:
        self._plugin.emit_metric(replace(metric, source=self._plugin.get_source_id()))

    def before_end(self, write: Callable[[], None]) -> None:
        """The plug-in's `stop` does it."""
