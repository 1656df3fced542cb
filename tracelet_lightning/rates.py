"""Learning rates, momentum and weight decay of a trainer's optimizers, under the names of `LearningRateMonitor`.

Called on the training thread. Pure, but for what it remembers of names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, final

from torch.optim import Optimizer


@final
class Rates:
    """See the module docstring."""

    def __init__(self, *, momentum: bool, weight_decay: bool) -> None:
        """Say what is wanted besides learning rates."""
        self._momentum = momentum
        self._weight_decay = weight_decay
        self._named: list[tuple[dict[str, Any], str, bool]] = []  # (group, name, whether it has betas)
        self._groups = -1

    def read(self, optimizers: Iterable[Any], schedulers: Iterable[Any]) -> dict[str, float]:
        """The values as they are now.

        Args:
            optimizers: The trainer's; a strategy may have wrapped them.
            schedulers: The trainer's configurations of schedulers.
        """
        bare = [getattr(optimizer, "optimizer", optimizer) for optimizer in optimizers]
        groups = sum(len(optimizer.param_groups) for optimizer in bare)
        if groups != self._groups:  # A training that unfreezes layers adds groups.
            self._named, self._groups = list(_named_groups(bare, schedulers)), groups
        values = {}
        for group, name, has_betas in self._named:
            values[name] = group["lr"]
            if self._momentum:
                values[f"{name}-momentum"] = group["betas"][0] if has_betas else group.get("momentum", 0.0)
            if self._weight_decay:
                values[f"{name}-weight_decay"] = group.get("weight_decay", 0.0)
        return values

    def forget(self) -> None:
        """Another training begins, with optimizers of its own."""
        self._groups = -1


def group_names(groups: Iterable[Mapping[str, Any]]) -> list[str]:
    """What the groups of one optimizer are called: by their `name`, or `pg1`, `pg2` and so on."""
    return [str(group.get("name", f"pg{place}")) for place, group in enumerate(groups, 1)]


def _named_groups(optimizers: Iterable[Optimizer], schedulers: Iterable[Any]) -> Iterator[tuple[Any, str, bool]]:
    """Those with a scheduler come first, as `LearningRateMonitor` numbers them."""
    planned = [(config.scheduler.optimizer, config.name) for config in schedulers]
    seen = [id(optimizer) for optimizer, _ in planned]
    counts: Counter[type] = Counter()
    for optimizer, given in [*planned, *((one, None) for one in optimizers if id(one) not in seen)]:
        kind = type(optimizer)
        counts[kind] += given is None
        name = given or f"lr-{kind.__name__}"
        if counts[kind] > 1:
            name = f"{name}-{counts[kind] - 1}"
        groups = optimizer.param_groups
        for group, label in zip(groups, group_names(groups), strict=True):
            full = f"{name}/{label}" if len(groups) > 1 or "name" in group else name
            yield group, full, "betas" in optimizer.defaults
