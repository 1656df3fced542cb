"""From the files to numpy: ten million points of one series, beside TensorBoard's reader and CSV.

Each figure is the wall time of opening the run and reading one series, every CRC checked, with the CPU time beside it:
the medians of repeats that take turns; the files are in the page cache. The peers read fewer points, since they take
longer; what is compared is points a second.
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.measuring import Row, Target, scaled, scratch_experiment, show

_POINTS = 10_000_000
_CSV_POINTS = 1_000_000
_TENSORBOARD_POINTS = 50_000
_REPEATS = 5
_SERIES = 10


def main(scale: float = 1.0) -> None:
    """Measure and print."""
    import tracelet

    points = scaled(_POINTS, scale, _SERIES)
    csv_points, board_points = scaled(_CSV_POINTS, scale), scaled(_TENSORBOARD_POINTS, scale)
    with (
        _run(points, ["loss"]) as one,
        _run(points // _SERIES, [f"metric_{index}" for index in range(_SERIES)]) as ten,
        _csv(csv_points) as csv,
        _events(board_points) as events,
    ):
        cases: dict[str, tuple[int, Callable[[], int]]] = {
            "one": (points, lambda: len(tracelet.load_run(one).series("loss"))),
            "of ten": (points // _SERIES, lambda: len(tracelet.load_run(ten).series("metric_3"))),
            "pandas.read_csv": (csv_points, lambda: _read_csv(csv)),
            "EventAccumulator": (board_points, lambda: _read_events(events)),
        }
        walls_s: dict[str, list[float]] = {name: [] for name in cases}
        cpus_s: dict[str, list[float]] = {name: [] for name in cases}
        for name, (expected, read) in cases.items():
            count = read()  # Not counted: packages are imported, and files come into the page cache.
            if count != expected:
                raise RuntimeError(f"{name}: {count} points came back, not {expected}")
        for _ in range(scaled(_REPEATS, scale)):
            for name, (_, read) in cases.items():
                wall_s, cpu_s = time.perf_counter(), time.process_time()
                read()
                walls_s[name].append(time.perf_counter() - wall_s)
                cpus_s[name].append(time.process_time() - cpu_s)
    seconds = {name: statistics.median(times_s) for name, times_s in walls_s.items()}
    cpu = {name: statistics.median(times_s) for name, times_s in cpus_s.items()}
    rate = {name: cases[name][0] / seconds[name] for name in cases}

    def row(peer: str) -> Row:
        return Row(
            f"beside {peer}",
            f"{rate['one'] / 1e6:.1f} million points/s",
            f"{rate[peer] / 1e6:.2f} million points/s",
            f"{rate['one'] / rate[peer]:.1f}",
        )

    show(
        "Reading a series into numpy",
        [
            Row(
                f"{points:,} points of one series",
                f"{seconds['one']:.2f} s (CPU {cpu['one']:.2f})",
                target=Target(seconds["one"], 1, "s"),
            ),
            Row(
                f"one of {_SERIES} series of together {points:,}",
                f"{seconds['of ten']:.2f} s (CPU {cpu['of ten']:.2f})",
            ),
            row("pandas.read_csv"),
            row("EventAccumulator"),
        ],
    )


@contextlib.contextmanager
def _run(steps: int, names: list[str]) -> Iterator[Path]:
    values = dict.fromkeys(names, 0.5)
    with scratch_experiment() as experiment:
        for step in range(steps):
            experiment.log_metrics(values, step)
        experiment.stop()
        yield experiment.run_dir


@contextlib.contextmanager
def _csv(points: int) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "loss.csv"
        with path.open("w") as file:
            file.write("step,value,time_s\n")
            file.writelines(f"{step},{1 / (step + 1)!r},{time.time()!r}\n" for step in range(points))
        yield path


@contextlib.contextmanager
def _events(points: int) -> Iterator[Path]:
    from torch.utils.tensorboard import SummaryWriter

    with tempfile.TemporaryDirectory() as directory:
        with SummaryWriter(directory) as writer:
            for step in range(points):
                writer.add_scalar("loss", 0.5, step)
        yield Path(directory)


def _read_csv(path: Path) -> int:
    import pandas

    frame = pandas.read_csv(path)
    return min(len(frame[column].to_numpy()) for column in frame)


def _read_events(directory: Path) -> int:
    import numpy as np
    from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]  # ships none
        EventAccumulator,
    )

    accumulator = EventAccumulator(str(directory), size_guidance={"tensors": 0, "scalars": 0}).Reload()
    events = accumulator.Scalars("loss")
    return len(np.array([(event.step, event.value, event.wall_time) for event in events]))


if __name__ == "__main__":
    main()
