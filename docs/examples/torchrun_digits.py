"""Train a classifier of the sklearn digits on two processes: `torchrun --nproc-per-node 2 torchrun_digits.py`."""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

import tracelet


def main(epochs: int) -> None:
    distributed.init_process_group("gloo")
    rank, size = distributed.get_rank(), distributed.get_world_size()
    digits = load_digits()
    x = torch.tensor(digits.data[rank::size], dtype=torch.float32) / 16
    y = torch.tensor(digits.target[rank::size])
    torch.manual_seed(0)
    model = DistributedDataParallel(
        torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

    with tracelet.shared_experiment("digits", project="torchrun", config={"lr": 1e-2}) as experiment:
        for epoch in range(epochs):
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            accuracy = (model(x).argmax(1) == y).float().mean()
            experiment.log_metrics({"train/loss": loss, "train/accuracy": accuracy}, epoch)
        if rank == 0:
            print(f"Recorded as {experiment.run_id} in {experiment.run_dir}")
    distributed.destroy_process_group()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=50)
    main(parser.parse_args().epochs)
