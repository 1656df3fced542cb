"""The distribution of a tensor's elements, counted on the device that has them.

Called on the thread that trains. Guarantee: as `measuring`. A CPU's tensor is counted at once, as by `log_histogram`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from tracelet.frameworks._torch.measuring import local
from tracelet.utils.media import histogram
from tracelet.utils.pending import Numbers, bring_all

if TYPE_CHECKING:
    from torch import Tensor

BINS: Final = 64


def take(tensor: Tensor, scale: Tensor | None = None) -> tuple[Numbers | None, Callable[[], dict[str, Any]]]:
    """Count the elements.

    Args:
        tensor: Of any shape, real.
        scale: What its elements are too large by.

    Returns:
        What is to be waited for before the histogram can be read (None: nothing), and what then gives it.
    """
    here = local(tensor.detach())
    if here.is_cpu:
        made = histogram(here if scale is None else here / scale, BINS)
        return None, lambda: made
    numbers = bring_all(counted(here if scale is None else here / scale))
    return numbers, lambda: as_histogram(numbers.values())


def counted(tensor: Tensor) -> Tensor:
    """What a histogram is made of, computed without asking the device for anything.

    Returns:
        Floats of shape (BINS + 4,): the lowest and highest finite element, the counts, and those of NaN and infinity.
    """
    import torch

    elements = tensor.reshape(-1).to(torch.float32 if tensor.device.type == "mps" else torch.float64)  # Which has none.
    if not elements.numel():
        return elements.new_zeros(BINS + 4)
    is_finite = torch.isfinite(elements)
    low = torch.where(is_finite, elements, math.inf).min()
    high = torch.where(is_finite, elements, -math.inf).max()
    width = torch.where(high > low, high - low, 1.0)
    bins = ((elements - low) / width * BINS).clamp(0, BINS - 1).nan_to_num()
    bins = torch.where(is_finite, bins, torch.where(elements.isnan(), float(BINS), BINS + 1.0)).long()
    counts = elements.new_zeros(BINS + 2).scatter_add_(0, bins, torch.ones_like(elements))
    return torch.cat([torch.stack([low, high]), counts])


def as_histogram(numbers: list[float]) -> dict[str, Any]:
    """The histogram of what `counted` gave."""
    low, high, *counts, nan, inf = numbers
    details = {"nan": int(nan), "inf": int(inf)}
    total = sum(counts)
    if not total:
        return {"edges": [0.0, 1.0], "counts": [0.0], **details}
    if low == high:  # As NumPy does it.
        low, high, counts = low - 0.5, high + 0.5, [0.0] * BINS
        counts[BINS // 2] = total
    edges = [low + (high - low) * place / BINS for place in range(BINS)] + [high]
    if any(one >= other for one, other in itertools.pairwise(edges)):  # Floats are too coarse for bins here.
        return {"edges": [low, math.nextafter(high, math.inf)], "counts": [total], **details}
    return {"edges": edges, "counts": counts, **details}
