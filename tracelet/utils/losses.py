"""The loss of each step as the model computed it, read without waiting for the device.

Called on the training thread: `attach` as a training begins, `step_ended` after each step, `read` where the framework
waits for the device anyway, `detach` at the end. Guarantee: a loss is copied where it is computed, and fetched in one
piece by `read`; the model computes the same as without. Costs 3 µs a forward pass on a CPU; on another device it costs
the launch of one copy of one number.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, final

if TYPE_CHECKING:
    import torch
    from torch.utils.hooks import RemovableHandle

_MOST: Final = 10_000  # Passes that are kept between two reads: 5 MB on a device. Later ones are left out.


@final
class LossWatch:
    """See the module docstring. A copy, or one from a pickle, watches nothing until it is attached."""

    def __init__(self) -> None:
        """Make one that watches nothing yet."""
        self._handle: RemovableHandle | None = None
        self._losses: list[torch.Tensor | float] = []
        self._is_part: list[bool] = []  # Whether a loss is its share of the step's, or a loss by itself.
        self._ends: list[tuple[int, int]] = []  # (step, how many losses there were at its end)

    def __reduce__(self) -> tuple[type[LossWatch], tuple[()]]:
        return LossWatch, ()

    def attach(self, model: torch.nn.Module) -> None:
        """Watch a model whose forward pass gives its loss, as `output.loss` or `output["loss"]`."""
        self.detach()
        self._handle = model.register_forward_hook(self._see, with_kwargs=True)

    def detach(self) -> None:
        """Watch no more."""
        if self._handle is not None:
            self._handle.remove()
        self._handle = None
        self._clear()

    def step_ended(self, step: int) -> None:
        """The losses since the last call are those of this step."""
        self._ends.append((step, len(self._losses)))

    def read(self) -> list[tuple[int, float]]:
        """(step, loss) of the steps that have ended since the last read. This waits for the device."""
        values, found, begin = self._fetched(), [], 0
        for step, end in self._ends:
            if end > begin:
                total = sum(values[begin:end])
                found.append((step, total if self._is_part[begin] else total / (end - begin)))
            begin = end
        self._clear()
        return found

    def _see(self, module: torch.nn.Module, inputs: Any, options: Mapping[str, Any], output: Any) -> None:
        if self._handle is None or not module.training or len(self._losses) >= _MOST:
            return  # Without a handle, it is the watch of a copied model.
        loss = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
        if loss is None or loss.numel() != 1:
            return
        # Copied, since a later step, a CUDA graph's replay or an average over ranks may change it in place.
        self._losses.append(loss.item() if loss.device.type == "cpu" else loss.detach().clone())
        self._is_part.append(options.get("num_items_in_batch") is not None)

    def _fetched(self) -> list[float]:
        import torch

        if not self._losses or isinstance(self._losses[0], float):
            return [float(loss) for loss in self._losses]
        stacked = torch.stack([torch.as_tensor(loss).reshape(()).float() for loss in self._losses])
        fetched: list[float] = stacked.tolist()
        return fetched

    def _clear(self) -> None:
        self._losses.clear()
        self._is_part.clear()
        self._ends.clear()
