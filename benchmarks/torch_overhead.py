"""How much longer a plain PyTorch loop takes with `watch`, and what a call of `SummaryWriter` costs.

A small convolutional network is trained on scikit-learn's digits by a loop of some two milliseconds a step. Each case
has its own network, and they take turns from step to step, in a new order each time, so that whatever else the machine
does hits all of them alike. A figure is the median over a case's steps, on one thread of torch's, as CPU time of the
thread that trains; the wall time stands beside it.

The first three cases that record have the same values: the learning rate and the norms of the gradients and parameters.
For the two writers the loop computes them itself, as scripts do. W&B's `watch(log="gradients", log_freq=1)` has a
histogram of each gradient and no norms: `watch(histograms_every=1)` has those of the parameters as well.
"""

from __future__ import annotations

import logging
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from typing import Any, final

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.utils import tensorboard

from benchmarks.measuring import Row, Target, compare, scaled, scratch_experiment, show
from tracelet.frameworks.torch_framework import SummaryWriter, watch

_STEPS = 1000  # Of each case.
_WARM_UP = 10
_BATCH = 24
_CALLS = 1000
_OFF, _OURS, _BY_HAND = "nothing", "watch(every=1)", "torch.utils.tensorboard, by hand"


def main(scale: float = 1.0) -> None:
    """Measure and print."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with (
            warnings.catch_warnings(),
            tempfile.TemporaryDirectory(prefix="tracelet-benchmark-") as directory,
            scratch_experiment() as experiment,
        ):
            warnings.simplefilter("ignore")
            logging.getLogger("wandb").setLevel(logging.ERROR)
            theirs = tensorboard.SummaryWriter(directory)
            ours = SummaryWriter(experiment=experiment)
            run, cases = _wandb_run(directory), {_OFF: _Case()}
            cases[_OURS] = _Case()
            watch(cases[_OURS].network, cases[_OURS].optimizer, experiment=experiment, prefix="norms")
            cases["SummaryWriter, by hand"] = _Case(ours)
            cases[_BY_HAND] = _Case(theirs)
            counted = cases["watch(histograms_every=1)"] = _Case()
            watch(counted.network, counted.optimizer, experiment=experiment, prefix="counted", histograms_every=1)
            gradients = cases['wandb.watch(log="gradients", log_freq=1)'] = _Case(commit=lambda: run.log({}))
            run.watch(gradients.network, log="gradients", log_freq=1)
            _show_steps(cases, scaled(_STEPS, scale, 10))
            _show_calls({"SummaryWriter": ours, "torch.utils.tensorboard": theirs}, scaled(_CALLS, scale, 20))
            theirs.close()
            run.finish()
    finally:
        torch.set_num_threads(threads)


@final
class _Case:
    """A network, its optimizer, and what is done after each step."""

    def __init__(self, writer: Any = None, commit: Callable[[], Any] | None = None) -> None:
        torch.manual_seed(0)
        self.network = nn.Sequential(
            nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(), nn.Flatten(), nn.Linear(32 * 64, 10),
        )  # fmt: skip
        self.optimizer = torch.optim.Adam(self.network.parameters())
        self.times_ns: list[tuple[int, int]] = []
        self._writer, self._commit = writer, commit

    def step(self, images: Tensor, labels: Tensor, step: int) -> None:
        cpu_ns, wall_ns = time.thread_time_ns(), time.perf_counter_ns()
        self.optimizer.zero_grad()
        nn.functional.cross_entropy(self.network(images), labels).backward()
        self.optimizer.step()
        if self._writer is not None:
            parameters = list(self.network.parameters())
            gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
            self._writer.add_scalar("train/learning_rate", self.optimizer.param_groups[0]["lr"], step)
            self._writer.add_scalar("train/grad_norm", get_total_norm(gradients), step)
            self._writer.add_scalar("train/param_norm", get_total_norm([p.detach() for p in parameters]), step)
        if self._commit is not None:
            self._commit()
        self.times_ns.append((time.thread_time_ns() - cpu_ns, time.perf_counter_ns() - wall_ns))


def _show_steps(cases: dict[str, _Case], steps: int) -> None:
    images, labels = load_digits(return_X_y=True)
    pictures, answers = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
    batches = list(zip(pictures.split(_BATCH)[:-1], answers.split(_BATCH)[:-1], strict=True))
    for step in range(steps + _WARM_UP):
        for case in random.sample(list(cases.values()), len(cases)):
            case.step(*batches[step % len(batches)], step)
    medians = {
        name: [statistics.median(times) / 1e6 for times in zip(*case.times_ns[_WARM_UP:], strict=True)]
        for name, case in cases.items()
    }
    rows = []
    for name, (cpu_ms, wall_ms) in medians.items():
        added_ms, by_hand_ms = cpu_ms - medians[_OFF][0], medians[_BY_HAND][0] - medians[_OFF][0]
        target = Target(added_ms, by_hand_ms / 2, "ms added, half of by hand") if name == _OURS else None
        figure = f"{cpu_ms:.3f} ms (wall {wall_ms:.3f})"
        rows.append(Row(name, figure, ratio=f"{cpu_ms / medians[_OFF][0]:.3f}", target=target))
    show(f"PyTorch: one step of a plain loop, recorded; ratios to {_OFF}", rows)


def _show_calls(writers: dict[str, Any], calls: int) -> None:
    def loop(writer: Any) -> Callable[[int], None]:
        def add(count: int) -> None:
            for step in range(count):
                writer.add_scalar("loss", 0.5, step)

        return add

    timings = compare({name: loop(writer) for name, writer in writers.items()}, calls, repeats=15)
    ours = timings["SummaryWriter"].cpu_us
    rows = [Row(name, str(timing), ratio=f"{timing.cpu_us / ours:.1f}") for name, timing in timings.items()]
    show("PyTorch: one add_scalar; ratios to SummaryWriter", rows)


def _wandb_run(directory: str) -> Any:
    import wandb

    settings = wandb.Settings(console="off", silent=True, x_disable_stats=True)
    return wandb.init(mode="offline", dir=directory, settings=settings)


if __name__ == "__main__":
    main()
