"""What each rank runs in the tests: a few steps of a training on its own data, recorded as its part of one run.

    torchrun digits.py HOW DIRECTORY [BACKEND]

HOW says what happens: `before` shares the run before the ranks know each other, `after` when they do, `accelerate`
through `Accelerator`; in `kill 0` and `kill 1` that rank is killed when all have come to the middle. In `restart` rank
1 dies there, in the first of two attempts; the ranks never know each other (gloo at times does not come up again).
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import torch
from torch import distributed

import tracelet

STEPS = 6
MIDDLE = 2


def main(how: str, directory: str, backend: str | None = None) -> None:
    if how == "accelerate":
        from accelerate import Accelerator

        Accelerator(cpu=True)
    elif how not in ("before", "restart"):
        distributed.init_process_group("gloo")
    with tracelet.shared_experiment("digits", backend, {"lr": 0.1, "of": os.environ["RANK"]}, dir=directory) as run:
        if how == "before":
            distributed.init_process_group("gloo")
        rank = int(os.environ["RANK"])
        for step in range(STEPS):
            loss = torch.tensor(float(rank + step))
            mean = loss.clone()
            if how != "restart":
                distributed.all_reduce(mean)
            run.log_metrics({"loss": loss, "sum": mean}, step)
            if step == MIDDLE and how.startswith("kill"):
                distributed.barrier()
                if how == f"kill {rank}":
                    os.kill(os.getpid(), signal.SIGKILL)
            elif step == MIDDLE and how == "restart" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
                break_off(run.run_dir, rank)
        run.log_text("note", f"rank {rank}")
        run.log_metric("only/1", 1.0) if rank else None
    if how != "restart":
        distributed.destroy_process_group()


def break_off(run_dir: Path, rank: int) -> None:
    """Rank 1 dies as soon as rank 0 has come as far; the launcher ends that one."""
    while rank == 0 or len(tracelet.load_run(run_dir).ranks) < 2 or tracelet.load_run(run_dir).ranks[0].last_step != 2:
        time.sleep(0.01)
    os._exit(3)


if __name__ == "__main__":
    main(*sys.argv[1:])
