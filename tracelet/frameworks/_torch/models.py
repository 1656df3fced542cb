"""What `watch` is given: models and optimizers, one or several, and an experiment.

Called on the thread that trains.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar, final

from tracelet.core.experiment import Experiment
from tracelet.core.records import MetricData
from tracelet.errors import UsageError
from tracelet.frameworks._torch.watching import Output
from tracelet.utils.pending import Pending
from tracelet.utils.values import as_text, is_a

if TYPE_CHECKING:
    from torch.nn import Module
    from torch.optim import Optimizer

T = TypeVar("T")

_WRAPPERS: Final = re.compile(r"_orig_mod\.|_fsdp_wrapped_module\.|_checkpoint_wrapped_module\.")
"""What `torch.compile` and others put into the names of parameters."""

_DATA_PARALLEL: Final = ("DistributedDataParallel", "DataParallel")


@final
class ExperimentOutput(Output):
    """An experiment that the user has, and what is said of the model before the first numbers."""

    def __init__(
        self,
        experiment: Experiment,
        models: Mapping[str, Module],
        optimizers: Mapping[str, Optimizer],
        prefix: str,
    ) -> None:
        self._experiment = experiment
        self._new: tuple[Mapping[str, Module], Mapping[str, Optimizer]] | None = models, optimizers
        self._prefix = prefix

    def is_open(self) -> bool:
        if not self._experiment.is_running:
            return False
        new, self._new = self._new, None
        if new is not None:
            self._describe(*new)
        return True

    def numbers(self, values: Mapping[str, float | Pending[float]], step: int) -> None:
        self._experiment.log_metrics(values, step)

    def record(self, metric: MetricData) -> None:
        self._experiment.emit_metric(metric)

    def before_end(self, write: Callable[[], None]) -> None:
        self._experiment.add_barrier(write)

    def _describe(self, models: Mapping[str, Module], optimizers: Mapping[str, Optimizer]) -> None:
        """Not before the first step: a lazy module has no parameters earlier."""
        facts: dict[str, Any] = {}
        for key, model in models.items():
            place = f"{self._prefix}model/{key}".rstrip("/")
            self._experiment.log_text(f"{place}/summary", as_text(model))
            trainable, total = (
                sum(p.numel() for p in model.parameters() if p.requires_grad or all_) for all_ in (0, 1)
            )
            counts = {"parameters": total, "trainable_parameters": trainable, "frozen_parameters": total - trainable}
            facts.update((f"{place}/{name}", count) for name, count in counts.items())
        for key, optimizer in optimizers.items():
            place = f"{self._prefix}{key or 'optimizer'}"
            facts[place] = {"name": type(optimizer).__name__, **optimizer.defaults}
        self._experiment.log_params(facts)


def named(given: Any, kind: type[T], what: str, prefix: str = "") -> Iterator[tuple[str, T]]:
    """Each one with its key or place; one alone has an empty name."""
    if isinstance(given, Mapping):
        named = [(as_text(key), one) for key, one in given.items()]
    elif isinstance(given, (list, tuple)):
        named = [(f"{prefix}{place}" if len(given) > 1 else "", one) for place, one in enumerate(given)]
    else:
        named = [("", given)]
    for key, one in named:
        inner = _unwrapped(one, kind)
        if not isinstance(inner, kind):
            raise UsageError(
                f"watch() takes a {kind.__module__}.{kind.__name__}, or a list or mapping of them, as {what}, not "
                f"{type(one).__name__}: {as_text(one):.200}"
            )
        yield key, inner


def _unwrapped(one: Any, kind: type[T]) -> Any:
    """What an optimizer of Accelerate and its like holds; it has no hooks itself."""
    inner = getattr(one, "__dict__", {}).get("optimizer")
    return _unwrapped(inner, kind) if isinstance(inner, kind) else one


def parameter_names(models: Mapping[str, Module]) -> dict[int, str]:
    names = {}
    for key, model in models.items():
        inner: Any = model
        if any(is_a(model, "torch.nn.parallel", name) for name in _DATA_PARALLEL):
            inner = inner.module
        for wrapped, parameter in inner.named_parameters():
            name = _WRAPPERS.sub("", wrapped)
            names[id(parameter)] = f"{key}.{name}" if key else name
    return names
