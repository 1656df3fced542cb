"""What each process of a job runs in the tests: a tiny training that records its own part of one run.

    python digits.py HOW DIRECTORY [backend]

HOW is `before` (the run is shared before the processes know each other), `torch` (after `init_process_group`), or
`once` and `restart`, which fail in the first of two attempts.
"""

from __future__ import annotations

import os
import signal
import sys

import torch

import tracelet

STEPS = 6


def main(how: str, directory: str, backend: str | None = None) -> None:
    if how == "torch":
        torch.distributed.init_process_group("gloo")
    options = {"dir": directory, "collectors": (), "backend": backend, "config": {"lr": 0.1}}
    with tracelet.shared_experiment("digits", **options) as experiment:
        rank = int(os.environ["RANK"])
        if how in ("before", "kill 0", "kill 1"):
            torch.distributed.init_process_group("gloo")
        model = torch.nn.Linear(4, 1)
        torch.manual_seed(rank)
        x = torch.randn(8, 4)
        for step in range(STEPS):
            loss = (model(x) ** 2).mean()
            mean = loss.detach().clone()
            if torch.distributed.is_initialized():
                torch.distributed.all_reduce(mean)
            experiment.log_metrics({"train/loss": loss, "train/sum": mean}, step)
            experiment.log_metric("own/rank", float(rank), step)
            if how.startswith("kill") and step == 2:
                torch.distributed.barrier()
                if rank == int(how[-1]):
                    os.kill(os.getpid(), signal.SIGKILL)
            if how == "restart" and step == 2 and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
                os._exit(3)
        experiment.log_text(f"note of {rank}", "done")
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
