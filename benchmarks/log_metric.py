"""What a log call costs the training loop.

Each figure is the CPU time of the calling thread, the median of short loops that take turns; the wall time stands
beside it. The targets hold for the CPU time, because the wall time includes whatever else the machine does. It would
also show a call that waits, which CPU time hides: the bare loop never waits, so a call of ours does not either as long
as its wall time is not further above its CPU time than the bare loop's. The loop itself is included (20 ns).

The bare loop is the least that keeps the same record as safely: time, `struct.pack`, CRC and one store into a
preallocated map. `os.write` stores the same 32 bytes by a system call. `SummaryWriter.add_scalar` hands its record to
a thread; the CPU time of that thread is not counted against it.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
import time
import zlib
from pathlib import Path

from benchmarks.measuring import Row, Target, compare, scaled, scratch_experiment, show

_CALLS = 10_000
_REPEATS = 31
_RECORD_BYTES = 32


def main(scale: float = 1.0) -> None:
    """Measure and print."""
    import numpy as np
    import torch
    from torch.utils.tensorboard import SummaryWriter

    calls, repeats = scaled(_CALLS, scale, 100), scaled(_REPEATS, scale, 3)
    pack, pack_crc, crc32, time_ns = struct.Struct("<dqqI").pack, struct.Struct("<I").pack, zlib.crc32, time.time_ns
    array_value, tensor_value = np.float32(0.5), torch.tensor(0.5)
    ten = {f"metric_{index}": 0.5 for index in range(10)}
    with tempfile.TemporaryDirectory() as scratch, scratch_experiment() as experiment:
        folder = Path(scratch)
        with open(folder / "map", "w+b") as mapped, open(folder / "written", "ab", buffering=0) as written:
            size = calls * (repeats + 1) * _RECORD_BYTES
            os.posix_fallocate(mapped.fileno(), 0, size)
            store, descriptor, write = mmap.mmap(mapped.fileno(), size).write, written.fileno(), os.write
            writer = SummaryWriter(folder)

            def bare(calls: int) -> None:
                for step in range(calls):
                    record = pack(0.5, step, time_ns(), 1)
                    store(record + pack_crc(crc32(record)))

            def system_call(calls: int) -> None:
                for step in range(calls):
                    record = pack(0.5, step, time_ns(), 1)
                    write(descriptor, record + pack_crc(crc32(record)))

            def explicit_step(calls: int) -> None:
                for step in range(calls):
                    experiment.log_metric("explicit", 0.5, step)

            def implicit_step(calls: int) -> None:
                for _ in range(calls):
                    experiment.log_metric("implicit", 0.5)

            def numpy_scalar(calls: int) -> None:
                for step in range(calls):
                    experiment.log_metric("numpy", array_value, step)

            def torch_scalar(calls: int) -> None:
                for step in range(calls):
                    experiment.log_metric("torch", tensor_value, step)

            def ten_metrics(calls: int) -> None:
                for step in range(calls):
                    experiment.log_metrics(ten, step)

            def ten_without_step(calls: int) -> None:
                for _ in range(calls):
                    experiment.log_metrics(ten)

            def add_scalar(calls: int) -> None:
                for step in range(calls):
                    writer.add_scalar("loss", 0.5, step)

            cases = (
                bare, explicit_step, implicit_step, system_call, numpy_scalar, torch_scalar, ten_metrics,
                ten_without_step, add_scalar,
            )  # fmt: skip
            times = compare({case.__name__: case for case in cases}, calls, repeats)
            writer.close()

    floor, ours, board = times["bare"], times["explicit_step"], times["add_scalar"]

    def most(case: str, limit_us: float) -> Target:
        return Target(times[case].cpu_us, limit_us, "µs")

    def beside_bare(what: str, case: str, target: Target | None = None) -> Row:
        cpu_us = times[case].cpu_us
        return Row(what, str(times[case]), f"bare store {floor.cpu_us:.2f} µs", f"{cpu_us / floor.cpu_us:.1f}", target)

    show(
        "One log call: CPU time of the calling thread (wall time)",
        [
            Row("pack + crc32 + mmap.write, bare", str(floor)),
            beside_bare("pack + crc32 + os.write, bare", "system_call"),
            beside_bare("log_metric(float), explicit step", "explicit_step", most("explicit_step", 1.2)),
            beside_bare(
                "log_metric(float), beside the bare store",
                "explicit_step",
                Target(ours.cpu_us / floor.cpu_us, 4, "times the bare store"),
            ),
            beside_bare("log_metric(float), implicit step", "implicit_step"),
            beside_bare("log_metric(numpy.float32)", "numpy_scalar"),
            beside_bare("log_metric(torch 0-d CPU tensor)", "torch_scalar"),
            beside_bare("log_metrics of 10, explicit step", "ten_metrics", most("ten_metrics", 6)),
            beside_bare("log_metrics of 10, implicit steps", "ten_without_step"),
            Row(
                "log_metric, beside SummaryWriter.add_scalar",
                str(ours),
                str(board),
                f"{board.cpu_us / ours.cpu_us:.0f}",
                Target(board.cpu_us / ours.cpu_us, 5, "times faster", at_least=True),
            ),
        ],
    )


if __name__ == "__main__":
    main()
