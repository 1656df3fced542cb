"""A small real training, and the same one by hand."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import tracelet
from tracelet import Experiment, MetricType

STEPS = 6
Points = list[tuple[int, float]]


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Sequential(nn.Linear(16, 8, bias=False), nn.Linear(8, 10)))


@functools.cache
def digits() -> tuple[Tensor, Tensor]:
    images, labels = load_digits(return_X_y=True)
    return torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)


def batches(steps: int = STEPS) -> list[tuple[Tensor, Tensor]]:
    images, labels = digits()
    return list(zip(images.split(32), labels.split(32), strict=True))[:steps]


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    steps: int = STEPS,
    on_step: Callable[[], Any] = lambda: None,
    step: Callable[[], Any] | None = None,
) -> list[float]:
    """A plain loop; `on_step` comes between the gradients and the step."""
    losses = []
    for images, labels in batches(steps):
        optimizer.zero_grad()
        loss = cross_entropy(model(images), labels)
        loss.backward()
        on_step()
        (step or optimizer.step)()
        losses.append(loss.item())
    return losses


def norm(tensors: Iterable[Tensor | None]) -> float:
    """By hand, in double precision."""
    return math.sqrt(sum(tensor.detach().double().square().sum().item() for tensor in tensors if tensor is not None))


def points(experiment: Experiment, name: str) -> Points:
    series = tracelet.Run(experiment.run_dir).series(name)
    return list(zip(series.steps.tolist(), series.values.tolist(), strict=True))


def names(experiment: Experiment) -> list[str]:
    return tracelet.Run(experiment.run_dir).names(MetricType.SCALAR)


def histograms(experiment: Experiment) -> dict[tuple[str, int | None], dict[str, Any]]:
    run = tracelet.Run(experiment.run_dir)
    return {(record.name, record.iteration): record.value for record in run.records(MetricType.HISTOGRAM)}
