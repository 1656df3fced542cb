"""A script as it was written for TensorBoard: only the line that imports `SummaryWriter` is another one.

python docs/examples/tensorboard_script.py runs/digits
"""

from __future__ import annotations

import argparse

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

from tracelet.frameworks.torch_framework import SummaryWriter


def main() -> None:
    """Train, and write down what happens."""
    parser = argparse.ArgumentParser(description="Train a small network on handwritten digits.")
    parser.add_argument("log_dir", nargs="?", default="runs/digits")
    parser.add_argument("--epochs", type=int, default=30)
    options = parser.parse_args()

    torch.manual_seed(0)
    digits, answers = load_digits(return_X_y=True)
    images, labels = torch.tensor(digits / 16, dtype=torch.float32), torch.tensor(answers)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)

    with SummaryWriter(options.log_dir) as writer:
        writer.add_graph(model, images[:1])
        writer.add_images("digits", images[:16].reshape(-1, 1, 8, 8))
        accuracy = 0.0
        for epoch in range(options.epochs):
            optimizer.zero_grad()
            scores = model(images)
            loss = cross_entropy(scores, labels)
            loss.backward()
            optimizer.step()
            accuracy = (scores.argmax(1) == labels).float().mean().item()
            writer.add_scalar("loss/train", loss, epoch)
            writer.add_scalar("accuracy/train", accuracy, epoch, walltime=1_700_000_000 + epoch / 8)
            writer.add_scalars("probability", {"mean": scores.softmax(1).amax(1).mean(), "least": 0.1}, epoch)
            if epoch % 10 == 0:
                writer.add_histogram("weights/first", model[0].weight, epoch)
                writer.add_pr_curve("zero", labels == 0, scores.softmax(1)[:, 0].detach(), epoch)
        writer.add_text("note", "trained on the **whole** set")
        writer.add_hparams({"learning_rate": 0.01, "epochs": options.epochs}, {"final/accuracy": accuracy})


if __name__ == "__main__":
    main()
