"""How much longer a Lightning training takes with MLflow and W&B: our one logger beside Lightning's own two.

The network and data of `lightning_overhead`, `log_every_n_steps=1`, two metrics and the epoch in each step, a real
MLflow server on the same machine, and W&B offline. Each case trains in a process of its own, because what is measured
includes what a delivery thread takes by the GIL, and in one process it would take it from every case. The processes
take turns by blocks of steps, so that whatever else the machine does hits all of them alike. Before a turn ends,
everything is delivered: no case works in the turn of another. The first turn is not counted: SDKs are imported and runs
are opened in it, and `hosting` shows what that costs.

Wall time counts here, since a training that waits for the GIL or for a tracker takes no CPU time; that of the training
thread stands beside it. The figures are those of all steps; what a case adds is the median over the rounds of its
difference to `logger=False` in the same round.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import multiprocessing
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, NamedTuple, final

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger, MLFlowLogger, WandbLogger

from benchmarks.lightning_overhead import Network, loader
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
_OURS: Final = {"TraceletLogger, thread": "thread", "TraceletLogger, process": "process"}
_THEIRS = "MLFlowLogger and WandbLogger"


@final
class Step(NamedTuple):
    """What one step took, in milliseconds."""

    wall_ms: float
    cpu_ms: float  # Of the training thread.


@final
class Figures(NamedTuple):
    """Of some steps, in milliseconds."""

    median: float
    mean: float
    p99: float
    cpu: float

    @classmethod
    def of(cls, steps: Iterable[Step]) -> Figures:
        """Sum up some steps."""
        walls, cpus = (sorted(column) for column in zip(*steps, strict=True))
        p99 = walls[int(len(walls) * 0.99)]
        return cls(statistics.median(walls), statistics.fmean(walls), p99, statistics.median(cpus))


def main(scale: float = 1.0) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="tracelet-benchmark-") as folder, MlflowServer(Path(folder)) as server:
        measure(server, scale)


def measure(server: MlflowServer, scale: float) -> None:
    """Measure on a server that runs already."""
    rounds = _take_turns([_OFF, *_OURS, _THEIRS], server.uri, scaled(_ROUNDS, scale), scaled(_STEPS, scale, 5))
    added = {case: _added(rounds, case) for case in rounds[0]}
    rows = []
    for case, (median, mean) in added.items():
        step = Figures.of(itertools.chain.from_iterable(found[case] for found in rounds))
        told = f"{step.median:.2f} / {step.mean:.2f} / {step.p99:.1f} ms (CPU {step.cpu:.2f})"
        if case == _OFF:
            rows.append(Row(case, told))
            continue
        times = [theirs / max(own, _RESOLUTION_MS) for theirs, own in zip(added[_THEIRS], added[case], strict=True)]
        target = Target(times[0], _TARGET, "times", at_least=True) if case in _OURS else None
        rows.append(Row(case, told, f"adds {median:.2f} / {mean:.2f} ms", f"{times[0]:.0f} / {times[1]:.0f}", target))
    show(f"Lightning, each step to MLflow and W&B: median / mean / p99; how many times that {_THEIRS} add", rows)


def _added(rounds: Sequence[Mapping[str, Sequence[Step]]], case: str) -> tuple[float, float]:
    """What the median and the mean of a case have over those without a logger, in milliseconds."""
    pairs = [(Figures.of(found[case]), Figures.of(found[_OFF])) for found in rounds]
    medians, means = zip(*((own.median - off.median, own.mean - off.mean) for own, off in pairs), strict=True)
    return statistics.median(medians), statistics.median(means)


# -- the turns ---------------------------------------------------------------------------------------------------------


def _take_turns(cases: Sequence[str], server_uri: str, rounds: int, steps: int) -> Sequence[Mapping[str, list[Step]]]:
    """The steps of each round, by case."""
    context = multiprocessing.get_context("spawn")
    turns: dict[str, Connection] = {}
    processes = []
    for case in cases:
        turns[case], other_end = context.Pipe()
        processes.append(context.Process(target=_train, args=(case, server_uri, other_end, steps)))
        processes[-1].start()
        other_end.close()  # Else nobody would notice that a process has died.
    found: list[dict[str, list[Step]]] = [{} for _ in range(1 + rounds)]
    try:
        for steps_of in found:
            for case in random.sample(cases, len(cases)):
                turns[case].send(True)
                steps_of[case] = turns[case].recv()
    finally:
        for turn in turns.values():
            turn.close()
        for process in processes:
            process.join()
    return [{case: steps_of[case] for case in cases} for steps_of in found[1:]]


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
        trainer.fit(Network(), loader())


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
