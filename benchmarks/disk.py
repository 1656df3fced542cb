"""Bytes on the disk a point, as `du` counts them: all allocated blocks of the run directory.

A record has 32 bytes. What comes on top is a header a segment, the log and the identity, which weigh in short runs; and
while a run is going on, the space that the present segment and the spare one have reserved. `stop` gives that back.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measuring import Row, Target, scaled, scratch_experiment, show

_SIZES = (100, 10_000, 1_000_000, 10_000_000)
_TARGET_BYTES = 40.0
_FIRST_TARGETED = 1_000_000
_PEER_MOST = 10_000  # TensorBoard takes its time; its bytes a point are the same from here on.


def main(scale: float = 1.0) -> None:
    """Measure and print."""
    show("Disk: bytes a point", [row for size in _SIZES for row in _rows(scaled(size, scale))])


def _rows(points: int) -> Iterator[Row]:
    with scratch_experiment() as experiment:
        for step in range(points):
            experiment.log_metric("loss", 0.5, step)
        running = _allocated_bytes(experiment.run_dir) / points
        experiment.stop()
        stopped = _allocated_bytes(experiment.run_dir) / points
    peer = _tensorboard_bytes(min(points, _PEER_MOST)) / min(points, _PEER_MOST)
    for state, figure in (("stopped", stopped), ("running", running)):
        yield Row(
            f"{points:,} points, {state}",
            f"{figure:.1f}",
            f"TensorBoard {peer:.1f}",
            f"{peer / figure:.1f}",
            Target(figure, _TARGET_BYTES, "bytes") if points >= _FIRST_TARGETED else None,
        )


def _tensorboard_bytes(points: int) -> int:
    from torch.utils.tensorboard import SummaryWriter

    with tempfile.TemporaryDirectory() as directory:
        with SummaryWriter(directory) as writer:
            for step in range(points):
                writer.add_scalar("loss", 0.5, step)
        return _allocated_bytes(Path(directory))


def _allocated_bytes(directory: Path) -> int:
    return sum(path.lstat().st_blocks * 512 for path in (directory, *directory.rglob("*")))


if __name__ == "__main__":
    main()
