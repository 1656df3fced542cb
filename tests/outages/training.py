"""A training in a process of its own, which logs until it is told to stop, and measures what that cost it."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from tracelet import Experiment

SERIES = [f"train/metric_{index}" for index in range(5)]
CONFIG = {"lr": 1e-3, "model": {"layers": 4, "name": "digits"}}
TAGS = {"team": "vision", "stage": "test"}
TEXT = "the first sample"
WEIGHTS = bytes(range(256)) * 400
LATE_NS = 50_000_000
DETAILS_STEP = 20
MIN_STEPS = 50  # However early a training is told to stop: what its calls cost needs some of them.

_STEP_S = 0.005


@dataclass(frozen=True)
class Plan:
    """What is trained, and how it is set up. `folder` becomes the working directory."""

    folder: Path
    run_id: str
    environment: Mapping[str, str]


@dataclass
class Costs:
    """What the log calls have cost a training so far: the worst CPU time and the longest time by the clock of one."""

    steps: int = 0
    worst_cpu_ns: int = 0
    longest_ns: int = 0
    late_calls: int = 0
    stop_s: float = 0.0

    def log(self, experiment: Experiment) -> None:
        """Log the 5 numbers of the next step, and measure that."""
        step = self.steps
        for place, name in enumerate(SERIES):
            began_ns, began_cpu_ns = time.perf_counter_ns(), time.thread_time_ns()
            experiment.log_metric(name, step + place / 8, step)
            cpu_ns, took_ns = time.thread_time_ns() - began_cpu_ns, time.perf_counter_ns() - began_ns
            self.worst_cpu_ns = max(self.worst_cpu_ns, cpu_ns)
            self.longest_ns = max(self.longest_ns, took_ns)
            self.late_calls += took_ns > LATE_NS
        self.steps += 1

    def stop(self, experiment: Experiment) -> None:
        """End the run, and measure that."""
        began_s = time.monotonic()
        experiment.stop()
        self.stop_s = time.monotonic() - began_s


def train(plan: Plan, orders: Connection) -> None:
    """Train for some steps and until an order comes, or somebody kills this process; then send the `Costs`."""
    os.chdir(plan.folder)
    os.environ.update(plan.environment)
    os.dup2(os.open(f"{plan.run_id}.log", os.O_WRONLY | os.O_CREAT), 2)
    gc.freeze()  # What the test has imported is none of the training's.
    experiment = Experiment("digits", run_id=plan.run_id, config=CONFIG, tags=TAGS).start()
    costs = Costs()
    while not orders.poll(_STEP_S) or costs.steps < MIN_STEPS:
        costs.log(experiment)
        if costs.steps == DETAILS_STEP:
            weights = Path(plan.run_id, "weights.bin")  # Of this training: others work in the same directory.
            weights.parent.mkdir()
            weights.write_bytes(WEIGHTS)
            experiment.log_artifact(weights)
            experiment.log_text("sample", TEXT, DETAILS_STEP)
    costs.stop(experiment)
    orders.send(costs)
