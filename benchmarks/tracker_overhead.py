"""How much longer a Lightning training takes with MLflow and W&B: our one logger beside Lightning's own two.

The network and data of `lightning_overhead`, `log_every_n_steps=1`, two metrics and the epoch in each step, a real
MLflow server on the same machine, and W&B offline. Each case trains in a process of its own, because what is measured
includes what a delivery thread takes by the GIL, and in one process it would take it from every case. The processes
take turns by blocks of steps, so that whatever else the machine does hits all of them alike. Before a turn ends,
everything is delivered: no case works in the turn of another. The first turn is not counted: SDKs are imported and runs
are opened in it, and `hosting` shows what that costs.

Wall time counts here, since a training that waits for the GIL or for a tracker takes no CPU time. What a case adds is
the difference to `logger=False` in the same round. Figures are medians over the rounds.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple, final

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger, MLFlowLogger, WandbLogger

from benchmarks.lightning_overhead import _loader, _Network
from benchmarks.measuring import Row, Target, scaled, show
from benchmarks.trackers import quieten, settings_for
from tests.backends.mlflow_server import MlflowServer
from tracelet import Experiment
from tracelet_lightning import TraceletLogger

_ROUNDS = 8
_STEPS = 80  # In a turn.
_TARGET = 10.0
_RESOLUTION_MS = 0.1  # A smaller difference is noise.
_OFF = "logger=False"
_OURS = {"TraceletLogger, thread": "thread", "TraceletLogger, process": "process"}
_THEIRS = "MLFlowLogger and WandbLogger"


@final
class Step(NamedTuple):
    """What one step took, in milliseconds."""

    wall_ms: float
    cpu_ms: float  # Of the training thread.


@final
class Figures(NamedTuple):
    """Of the steps of one turn, in milliseconds."""

    median: float
    mean: float
    p99: float
    cpu: float

    @classmethod
    def of(cls, steps: Sequence[Step]) -> Figures:
        """Sum up some steps."""
        walls = sorted(step.wall_ms for step in steps)
        p99 = walls[min(len(walls) - 1, int(len(walls) * 0.99))]
        return cls(statistics.median(walls), statistics.fmean(walls), p99, statistics.median(s.cpu_ms for s in steps))


def main(scale: float = 1.0) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="tracelet-benchmark-") as folder, MlflowServer(Path(folder)) as server:
        measure(server, scale)


def measure(server: MlflowServer, scale: float) -> None:
    """Measure on a server that runs already."""
    rounds = _take_turns([_OFF, *_OURS, _THEIRS], server.uri, scaled(_ROUNDS, scale), scaled(_STEPS, scale, 5))
    added = {case: _middle([_less(found[case], found[_OFF]) for found in rounds]) for case in rounds[0]}
    rows = []
    for case, more in added.items():
        step = _middle([found[case] for found in rounds])
        told = f"{step.median:.2f} / {step.mean:.2f} / {step.p99:.1f} ms"
        what = f"{case} (CPU {step.cpu:.2f} ms)"
        if case == _OFF:
            rows.append(Row(what, told))
            continue
        median, mean = (
            theirs / max(own, _RESOLUTION_MS) for theirs, own in zip(added[_THEIRS][:2], more[:2], strict=True)
        )
        target = Target(median, _TARGET, "times", at_least=True) if case in _OURS else None
        adds = f"adds {more.median:.2f} / {more.mean:.2f} / {more.p99:.1f} ms"
        rows.append(Row(what, told, adds, f"{median:.0f} / {mean:.0f}", target))
    show(
        "Lightning, each step to MLflow and W&B: median / mean / 99th percentile of a step; what it adds to "
        f"{_OFF}; how many times that {_THEIRS} add",
        rows,
    )


def _middle(figures: Sequence[Figures]) -> Figures:
    return Figures(*map(statistics.median, zip(*figures, strict=True)))


def _less(figures: Figures, base: Figures) -> Figures:
    return Figures(*(own - other for own, other in zip(figures, base, strict=True)))


# -- the turns ---------------------------------------------------------------------------------------------------------


def _take_turns(cases: Sequence[str], server_uri: str, rounds: int, steps: int) -> list[dict[str, Figures]]:
    context = multiprocessing.get_context("spawn")
    turns: dict[str, Connection] = {}
    processes = []
    for case in cases:
        turns[case], theirs = context.Pipe()
        processes.append(context.Process(target=_train, args=(case, server_uri, theirs, steps), daemon=False))
        processes[-1].start()
        theirs.close()  # Else a process that dies would not be noticed.
    found = []
    try:
        for _ in range(1 + rounds):
            figures = {}
            for case in random.sample(cases, len(cases)):
                turns[case].send(True)
                figures[case] = Figures.of(turns[case].recv())
            found.append({case: figures[case] for case in cases})
        return found[1:]
    finally:
        for turn in turns.values():
            turn.close()
        for process in processes:
            process.join()


def _train(case: str, server_uri: str, turn: Connection, steps: int) -> None:
    """A case's process."""
    for name in ("lightning.pytorch", "lightning.fabric", "mlflow"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with (
        tempfile.TemporaryDirectory(prefix="tracelet-benchmark-") as directory,
        _loggers(case, server_uri, directory) as (loggers, flush),
    ):
        trainer = Trainer(
            logger=loggers,
            callbacks=[_Turns(turn, steps, flush)],
            max_epochs=-1,
            log_every_n_steps=1,
            accelerator="cpu",
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
        )
        trainer.fit(_Network(), _loader())


@contextlib.contextmanager
def _loggers(case: str, server_uri: str, directory: str) -> Iterator[tuple[Sequence[Logger], Callable[[], bool]]]:
    """The loggers of a case, and what brings all that they hold to the trackers."""
    if case in _OURS:
        settings = settings_for(directory, server_uri, delivery=_OURS[case])
        with Experiment("benchmark", ["mlflow", "wandb"], collectors=(), settings=settings) as experiment:
            yield [TraceletLogger(experiment=experiment)], experiment.flush
    elif case == _THEIRS:
        quieten(directory)
        wandb = WandbLogger(offline=True, save_dir=directory)
        yield [MLFlowLogger(tracking_uri=server_uri), wandb], lambda: True
        wandb.experiment.finish()
    else:
        yield [], lambda: True


@final
class _Turns(Callback):
    """Times each step to the beginning of the next one, and waits while others have their turn."""

    def __init__(self, turn: Connection, steps: int, flush: Callable[[], bool]) -> None:
        self._turn = turn
        self._steps = steps
        self._flush = flush
        self._found: list[Step] | None = None  # None: it is not our turn.
        self._began_ns: tuple[int, int] | None = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        wall_ns, cpu_ns = time.perf_counter_ns(), time.thread_time_ns()
        if self._found is not None and self._began_ns is not None:
            self._found.append(Step((wall_ns - self._began_ns[0]) / 1e6, (cpu_ns - self._began_ns[1]) / 1e6))
        if self._found is None or len(self._found) == self._steps:
            self._take_turn(trainer)
        self._began_ns = time.perf_counter_ns(), time.thread_time_ns()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._began_ns = None  # A step does not pay for the end of an epoch.

    def _take_turn(self, trainer: Trainer) -> None:
        if self._found is not None:
            if not self._flush():
                raise RuntimeError("the trackers have not got everything")
            self._turn.send(self._found)
        try:
            self._turn.recv()
        except EOFError:
            trainer.should_stop = True
        self._found = []


if __name__ == "__main__":
    main()
