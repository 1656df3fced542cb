"""`tracelet import tensorboard` of a million scalars, beside what TensorBoard's `EventAccumulator` takes to load them.

Our side writes them to the disk, too; the peer keeps them in memory. Each figure is the median wall time of a few
repeats, with the CPU time beside it. The files are written by `SummaryWriter`, ten series side by side, and are in the
page cache. The import of ten million points is of a source without a file, so that its memory is the import's own.
"""

from __future__ import annotations

import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.measuring import Row, Target, in_new_process, scaled, show

_POINTS = 1_000_000
_MANY_POINTS = 10_000_000
_SERIES = 10
_REPEATS = 3
_BLOCK = 65_536


def main(scale: float = 1.0) -> None:
    """Measure and print."""
    points, many = scaled(_POINTS, scale, 100), scaled(_MANY_POINTS, scale, 1000)
    with tempfile.TemporaryDirectory(prefix="tracelet-benchmark-") as scratch:
        events, runs = Path(scratch) / "events", Path(scratch) / "runs"
        _write(events, points)
        walls_s: dict[Callable[[Path, Path], int], list[float]] = {_import: [], _accumulate: []}
        cpus_s: dict[Callable[[Path, Path], int], list[float]] = {_import: [], _accumulate: []}
        for _ in range(scaled(_REPEATS, scale)):
            for read in (_import, _accumulate):
                shutil.rmtree(runs, ignore_errors=True)
                wall_s, cpu_s = time.perf_counter(), time.process_time()
                if (count := read(events, runs)) != points // _SERIES * _SERIES:
                    raise RuntimeError(f"{read.__name__}: {count} points came, not {points}")
                walls_s[read].append(time.perf_counter() - wall_s)
                cpus_s[read].append(time.process_time() - cpu_s)
        ours, peer = (statistics.median(walls_s[read]) for read in (_import, _accumulate))
        cpu, peer_cpu = (statistics.median(cpus_s[read]) for read in (_import, _accumulate))
        few_bytes, many_bytes = (
            in_new_process(_peak_bytes, str(Path(scratch) / str(count)), count) for count in (many // 10, many)
        )
    grown_mb = (many_bytes - few_bytes) / 1e6
    show(
        f"Importing {points:,} scalars of TensorBoard",
        [
            Row(
                "tracelet import",
                f"{ours:.2f} s (CPU {cpu:.2f})",
                f"EventAccumulator, into memory: {peer:.2f} s (CPU {peer_cpu:.2f})",
                f"{ours / peer:.2f}",
                Target(ours / peer, 1.0, ""),
            ),
            Row(
                f"peak memory, {many:,} points",
                f"{many_bytes / 1e6:.0f} MB",
                f"a tenth of them: {few_bytes / 1e6:.0f} MB",
                "",
                Target(grown_mb, 50, "MB"),
            ),
        ],
    )


def _write(folder: Path, points: int) -> None:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder), max_queue=100_000)
    for step in range(points // _SERIES):
        for series in range(_SERIES):
            writer.add_scalar(f"train/metric_{series}", step / 2, step)
    writer.close()


def _import(events: Path, runs: Path) -> int:
    from tracelet.core.importer import find_importer
    from tracelet.importers.writing import import_run
    from tracelet.settings import TraceletSettings

    (run,) = find_importer("tensorboard", {}).runs(str(events))
    return import_run(run, "tensorboard", runs, None, TraceletSettings.load()).points


def _accumulate(events: Path, runs: Path) -> int:
    from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]  # ships none
        EventAccumulator,
    )

    accumulator = EventAccumulator(str(events), size_guidance={"tensors": 0, "scalars": 0}).Reload()
    return sum(len(accumulator.Scalars(tag)) for tag in accumulator.Tags()["scalars"])


def _peak_bytes(runs: str, count: int) -> int:
    import numpy as np

    from tracelet.core.importer import Item, Points, SourceRun
    from tracelet.importers.writing import import_run
    from tracelet.settings import TraceletSettings

    def records() -> Iterator[Item]:
        for start in range(0, count, _BLOCK):
            steps = np.arange(start, min(start + _BLOCK, count))
            yield Points(["a", "b"], steps % 2, steps, steps / 2, steps + 1)

    source = SourceRun("many", "many", records)
    import_run(source, "benchmark", Path(runs), None, TraceletSettings.load())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
