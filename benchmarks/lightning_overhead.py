"""How much longer a Lightning training takes with a logger that records every step.

A small convolutional network is trained on scikit-learn's digits with `log_every_n_steps=1` and two metrics a step. The
loggers take turns from step to step, in a new order each time, so that whatever else the machine does hits all of them
alike. A figure is the median over a logger's steps, on one thread of torch's, as CPU time of the thread that trains;
the wall time stands beside it.

With `logger=False` Lightning leaves out its own work for loggers, too: it gathers the metrics of the step and turns the
tensors into floats, for whichever logger. So there are two ratios: to `logger=False`, which is what a user gains by not
logging, and to a logger that does nothing, which is what each logger costs by itself. `TraceletCallback` alone stands
with them: it records the same metrics without a logger, and learning rates and throughput as well, as the callback does
that Lightning attaches beside our logger; its peer is `LearningRateMonitor` with a `CSVLogger`. The last table has the
logger's own calls alone, without a training.
"""

from __future__ import annotations

import logging
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.loggers.logger import DummyLogger
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.measuring import Row, Target, compare, scaled, show
from tracelet_lightning import TraceletCallback, TraceletLogger

_STEPS = 400  # Of each logger.
_WARM_UP = 10
_BATCH = 64
_CALLS = 300
_LIMIT = 1.02
_ALONE, _BESIDE, _PEER = (
    "TraceletCallback alone",
    "TraceletLogger and its callback",
    "CSVLogger and LearningRateMonitor",
)
_OFF, _NOTHING, _OURS = "logger=False", "a logger that does nothing", "TraceletLogger"


def main(scale: float = 1.0) -> None:
    """Measure and print."""
    for name in ("lightning.pytorch", "lightning.fabric", "tracelet"):
        logging.getLogger(name).setLevel(logging.ERROR)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings(), tempfile.TemporaryDirectory(prefix="tracelet-benchmark-") as directory:
            warnings.simplefilter("ignore")
            ours = TraceletLogger(dir=directory)
            peers = {"CSVLogger": CSVLogger(directory), "TensorBoardLogger": TensorBoardLogger(directory)}
            loggers: dict[str, Logger] = {_NOTHING: DummyLogger(), _OURS: ours, **peers}
            steps = scaled(_STEPS, scale, 20)
            callback, alone = TraceletCallback(), TraceletCallback(dir=directory)
            cases = {_OFF: _Case(), **{name: _Case([logger]) for name, logger in loggers.items()}}
            cases[_BESIDE] = _Case([ours], [callback])
            cases[_PEER] = _Case([peers["CSVLogger"]], [LearningRateMonitor("step")])
            _show_training(cases, steps, _NOTHING)
            _show_training({_OFF: _Case(), _ALONE: _Case(callbacks=[alone])}, steps, _OFF)
            _show_calls(loggers, scaled(_CALLS, scale, 20))
            ours.stop()
            alone.stop()
    finally:
        torch.set_num_threads(threads)


@final
@dataclass(frozen=True)
class _Case:
    """What records a step."""

    loggers: list[Logger] = field(default_factory=list)
    callbacks: list[Callback] = field(default_factory=list)


def _show_training(cases: Mapping[str, _Case], steps: int, second: str) -> None:
    turns = _Turns(cases)
    trainer = Trainer(
        logger=list({id(logger): logger for case in cases.values() for logger in case.loggers}.values()),
        callbacks=[turns, *(callback for case in cases.values() for callback in case.callbacks)],
        max_steps=(steps + _WARM_UP) * len(cases),
        log_every_n_steps=1,
        accelerator="cpu",
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    trainer.fit(Network(), loader())
    cpu_ms = {name: statistics.median(cpu_ns for cpu_ns, _ in found) / 1e6 for name, found in turns.times_ns.items()}
    wall_ms = {name: statistics.median(wall_ns for _, wall_ns in found) / 1e6 for name, found in turns.times_ns.items()}
    rows = []
    for name in cases:
        to_off, to_second = cpu_ms[name] / cpu_ms[_OFF], cpu_ms[name] / cpu_ms[second]
        target = Target(to_off, _LIMIT, "times") if name == _OURS else None
        figure = f"{cpu_ms[name]:.3f} ms (wall {wall_ms[name]:.3f})"
        rows.append(Row(name, figure, ratio=f"{to_off:.3f} / {to_second:.3f}", target=target))
    show(f"Lightning: one step, logged; ratios to {_OFF} / to {second}", rows)


def _show_calls(loggers: Mapping[str, Logger], calls: int) -> None:
    def loop(logger: Logger) -> Any:
        def log(count: int) -> None:
            for step in range(count):
                logger.log_metrics(metrics={"train/loss": 0.5, "train/accuracy": 0.9, "epoch": 0}, step=step)
                logger.save()

        return log

    timings = compare({name: loop(logger) for name, logger in loggers.items()}, calls, repeats=15)
    ours = timings[_OURS].cpu_us
    rows = [Row(name, str(timing), ratio=f"{timing.cpu_us / ours:.1f}") for name, timing in timings.items()]
    show(f"Lightning: log_metrics() of 3 values, and save(); ratios to {_OURS}", rows)


@final
class _Turns(Callback):
    """Gives each step its logger and its callbacks, and times it to the beginning of the next step."""

    def __init__(self, cases: Mapping[str, _Case]) -> None:
        self.times_ns: dict[str, list[tuple[int, int]]] = {name: [] for name in cases}
        self._cases = cases
        self._order: list[str] = []
        self._present: str | None = None
        self._began_ns = (0, 0)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        cpu_ns, wall_ns = time.thread_time_ns(), time.perf_counter_ns()
        if self._present is not None and trainer.global_step > _WARM_UP * len(self._cases):
            self.times_ns[self._present].append((cpu_ns - self._began_ns[0], wall_ns - self._began_ns[1]))
        self._order = self._order or random.sample(list(self._cases), len(self._cases))
        self._present = self._order.pop()
        trainer.loggers = self._cases[self._present].loggers
        self._began_ns = time.thread_time_ns(), time.perf_counter_ns()
        for callback in self._cases[self._present].callbacks:
            callback.on_train_batch_start(trainer, pl_module, batch, batch_idx)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        for callback in self._cases[self._present or _OFF].callbacks:
            callback.on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        state: Any = trainer  # Its `callbacks` have no annotation.
        others, state.callbacks = state.callbacks, [self]  # The trainer calls this one alone from now on.
        for callback in others:
            if callback is not self:
                callback.on_train_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._present = None  # A step does not pay for the end of an epoch.


@final
class Network(LightningModule):
    """Some ten milliseconds a step."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(64 * 64, 10),
        )  # fmt: skip

    def training_step(self, batch: Sequence[Tensor], index: int) -> Tensor:
        scores = self.network(batch[0])
        loss = nn.functional.cross_entropy(scores, batch[1])
        self.log("train/loss", loss)
        self.log("train/accuracy", (scores.argmax(1) == batch[1]).float().mean())
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters())


def loader() -> DataLoader[tuple[Tensor, ...]]:
    images, labels = load_digits(return_X_y=True)
    pictures = torch.tensor(images / 16, dtype=torch.float32).view(-1, 1, 8, 8)
    return DataLoader(TensorDataset(pictures, torch.tensor(labels)), _BATCH, drop_last=True)


if __name__ == "__main__":
    main()
