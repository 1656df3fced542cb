"""What keeping an artifact costs the thread that trains, and the disk.

A checkpoint of gigabytes is linked, and hashed behind the training's back; beside it, what `shutil.copytree` takes, and
a SHA-256 of the files in the call. Many small files are copied: nobody's later write may show in the run.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.measuring import Row, Target, scaled, scratch_experiment, show

_CHECKPOINT_BYTES = 2 << 30
_CHECKPOINT_FILES = 4
_SMALL_FILES = 1000
_SMALL_BYTES = 4096
_REPEATS = 3
_TARGET_MS = 5.0


def main(scale: float = 1.0) -> None:
    """Measure and print."""
    size_bytes, count = scaled(_CHECKPOINT_BYTES, scale, least=8 << 20), scaled(_SMALL_FILES, scale)
    large = _rows(
        f"checkpoint of {size_bytes >> 20:,} MiB", _CHECKPOINT_FILES, size_bytes // _CHECKPOINT_FILES, _TARGET_MS
    )
    show("Artifacts: time of the call", large + _rows(f"{count:,} files of 4 KiB", count, _SMALL_BYTES, None))


def _rows(what: str, files: int, size_bytes: int, target_ms: float | None) -> list[Row]:
    with scratch_experiment() as experiment:
        home = experiment.run_dir.parent  # On the run's filesystem.
        source = _make(home / "source", files, size_bytes)
        before = _allocated_bytes(experiment.run_dir)
        call_ms = statistics.median(_ms(lambda: experiment.log_artifact(source)) for _ in range(_REPEATS))
        copied = (_allocated_bytes(experiment.run_dir) - before) // _REPEATS
        hashed_ms = _ms(lambda: experiment.flush(600))
        hash_ms = _ms(lambda: _hash(source))
        copy_ms = _ms(lambda: shutil.copytree(source, home / "copy"))
    return [
        Row(
            f"{what}, {copied / 2**20:.1f} MiB copied",
            f"{call_ms:.2f} ms",
            f"copytree {copy_ms:,.0f} ms",
            f"{copy_ms / call_ms:,.1f}",
            None if target_ms is None else Target(call_ms, target_ms, "ms"),
        ),
        Row(
            f"{what}, and hashed {_REPEATS} times, behind",
            f"{hashed_ms:,.0f} ms",
            f"hashed in the call {hash_ms:,.0f} ms",
        ),
    ]


def _make(directory: Path, files: int, size_bytes: int) -> Path:
    """A directory of files, no two blocks of which are equal."""
    directory.mkdir()
    for number in range(files):
        with open(directory / f"{number}.bin", "wb") as file:
            for begin in range(0, size_bytes, 8 << 20):
                file.write(os.urandom(min(8 << 20, size_bytes - begin)))
    return directory


def _hash(directory: Path) -> None:
    for path in directory.iterdir():
        with open(path, "rb") as file:
            hashlib.file_digest(file, "sha256")


def _ms(call: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    call()
    return (time.perf_counter() - began_s) * 1e3


def _allocated_bytes(directory: Path) -> int:
    """What is the run's alone: a file with a link elsewhere costs it nothing."""
    files = (path.lstat() for path in directory.rglob("*") if path.is_file())
    return sum(status.st_blocks * 512 for status in files if status.st_nlink == 1)


if __name__ == "__main__":
    main()
