"""How fast records come to Weights & Biases, offline.

A worker takes a journal that is written already to W&B's files, beside a loop of `run.log` with the same rows: ten
metrics, the step and the time. The peer is `wandb.init(mode="offline")` as it comes. Both are timed from the opened run
to its end, in turns, each in a process of its own, since the SDK keeps state. Ours is set up as the delivery process of
a run is, and has the SDK in a further one; a batch counts as delivered when it is in the file. `run.log` leaves that to
wandb-core, which writes every 15 s.

The points are counted in the `.wandb` file.
"""

from __future__ import annotations

import statistics
import tempfile
import time

from benchmarks.measuring import Row, Target, in_new_process, scaled, show
from benchmarks.trackers import check, delivery_s, points_in_wandb, quieten, settings_for
from tracelet import Experiment
from tracelet.utils.garbage import expect_many_records

_ROUNDS = 3
_ROWS = 5_000
_SERIES = 10


def main(scale: float = 1.0) -> None:
    """Measure and print."""
    rows = scaled(_ROWS, scale, 10)
    seconds = [(in_new_process(_deliver, rows), in_new_process(_log, rows)) for _ in range(scaled(_ROUNDS, scale))]
    ours, bare = (rows / statistics.median(column) for column in zip(*seconds, strict=True))
    ratio = statistics.median(bare_s / ours_s for ours_s, bare_s in seconds)
    target = Target(ratio, 0.9, "times its rate", at_least=True)
    row = Row(f"{rows:,} rows", f"{ours:,.0f} a second", f"run.log, bare: {bare:,.0f}", f"{ratio:.2f}", target)
    show(f"Delivery of a written journal to W&B, offline, in rows of {_SERIES} metrics", [row])


def _deliver(rows: int) -> float:
    from tracelet.backends.wandb_backend import WandbBackend

    expect_many_records()
    with tempfile.TemporaryDirectory(prefix="tracelet-benchmark-") as directory:
        settings = settings_for(directory)
        with Experiment("benchmark", collectors=(), settings=settings) as experiment:
            for step in range(rows):
                experiment.log_metrics(_metrics(step), step)
        seconds = delivery_s(WandbBackend(), settings, experiment.run_dir)
        check(points_in_wandb(directory), rows * _SERIES)
        return seconds


def _log(rows: int) -> float:
    import wandb

    with tempfile.TemporaryDirectory(prefix="tracelet-benchmark-") as directory:
        quieten(directory)
        run = wandb.init(mode="offline", dir=directory)
        began_s = time.perf_counter()
        for step in range(rows):
            run.log({"_timestamp": time.time(), "tracelet/step": step, **_metrics(step)})
        run.finish()
        wandb.teardown()  # Which waits until wandb-core has written its file, as ours does for every batch.
        seconds = time.perf_counter() - began_s
        check(points_in_wandb(directory), rows * _SERIES)
        return seconds


def _metrics(step: int) -> dict[str, float]:
    return {f"train/metric{series}": step / (series + 1) for series in range(_SERIES)}


if __name__ == "__main__":
    main()
