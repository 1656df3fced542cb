"""What `self.log` has logged, as tensors: for a trainer without a logger of ours, where nobody makes floats of them.

Called on the training thread. Lightning hands a logger floats, for which it has waited for the device. Here its
`logged_metrics` are read, in the hook that comes after the trainer would have called a logger; so a value that another
hook logs belongs to the same step. Guarantee: names, values and steps are those that a logger gets, and nothing waits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, final

from torch import Tensor


@final
class LoggedMetrics:
    """See the module docstring."""

    def __init__(self, record: Callable[[Mapping[str, Any], int], None]) -> None:
        """Make one; `record` takes values and their step."""
        self._record = record
        self._seen: dict[str, Tensor] = {}  # Kept, so that no other tensor can have its memory.
        self._step, self._epoch = 0, 0.0
        self._last_epoch: tuple[int, float] | None = None  # As it was recorded: step and value.
        self._batches: Counter[tuple[Any, int]] = Counter()  # Of evaluations, by stage and data loader.
        self._is_due = False  # Whether the last step is to be recorded.

    def step_ended(self, trainer: Any, step: int, *, is_recorded: bool) -> None:
        """A step has ended; what it logged is read in the next hook."""
        self._step, self._epoch, self._is_due = step, float(trainer.current_epoch), is_recorded
        if not is_recorded and trainer.is_last_batch:
            self._fresh(trainer)  # Not to be taken for values of the epoch.

    def next_begins(self, trainer: Any) -> None:
        """Another batch begins."""
        if self._is_due:
            self.read(trainer)

    def evaluation_begins(self, trainer: Any) -> None:
        """A validation begins."""
        self.next_begins(trainer)
        self._fresh(trainer)  # Of a step that is not to be recorded.

    def read(self, trainer: Any, step: int | None = None) -> None:
        """Record what is new. At the end of an epoch every rank calls this: it may have to add up over the ranks.

        Args:
            trainer: The trainer.
            step: None: the last one that has ended.
        """
        self._is_due = False
        # A CPU's number is there already, and as a float it takes the short way into the journal.
        values = {name: value.item() if value.is_cpu else value for name, value in self._fresh(trainer).items()}
        if not values:
            return
        epoch = self._epoch if step is None else float(trainer.current_epoch)
        step = self._step if step is None else step
        if "step" in values:  # Lightning lets a module say the step in this way.
            step = int(values.pop("step"))
        elif "epoch" not in values and self._last_epoch != (step, epoch):
            values["epoch"], self._last_epoch = epoch, (step, epoch)
        self._record(values, step)

    def evaluation_batch_ended(self, trainer: Any, dataloader: int) -> None:
        """Record what an evaluation logs of each batch; its step is the number of the batch, over all epochs."""
        values = self._fresh(trainer)
        if values:
            self._record(values, self._batches[trainer.state.stage, dataloader])
        self._batches[trainer.state.stage, dataloader] += 1

    def forget(self) -> None:
        """Let go of the tensors."""
        self._seen.clear()

    def _fresh(self, trainer: Any) -> dict[str, Tensor]:
        fresh: dict[str, Tensor] = {}
        for name, value in trainer.logged_metrics.items():
            before = self._seen.get(name)
            if before is None or before.data_ptr() != value.data_ptr() or not value.data_ptr():
                fresh[name] = value
        self._seen |= fresh
        return fresh
