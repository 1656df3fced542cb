"""Train a small network on scikit-learn's handwritten digits in a loop of its own, and record it.

python docs/examples/torch_digits.py --learning-rate 0.1
"""

from __future__ import annotations

import argparse

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from tracelet import Experiment
from tracelet.frameworks.torch_framework import watch


def loaders(batch_size: int = 64) -> tuple[DataLoader[tuple[Tensor, ...]], DataLoader[tuple[Tensor, ...]]]:
    """Batches of 1,437 pictures of 8 by 8 pixels and their digits to train on, and of 360 others to validate with."""
    images, labels = load_digits(return_X_y=True)
    parts = train_test_split(images / 16, labels, test_size=0.2, random_state=0, stratify=labels)
    train_images, val_images, train_labels, val_labels = parts
    train = TensorDataset(torch.tensor(train_images, dtype=torch.float32), torch.tensor(train_labels))
    val = TensorDataset(torch.tensor(val_images, dtype=torch.float32), torch.tensor(val_labels))
    return DataLoader(train, batch_size, shuffle=True), DataLoader(val, batch_size)


def network(hidden: int = 64) -> nn.Module:
    """A network of one hidden layer."""
    return nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))


@torch.no_grad()
def accuracy(model: nn.Module, batches: DataLoader[tuple[Tensor, ...]]) -> float:
    """The share of digits that the model recognises."""
    return torch.cat([model(images).argmax(1) == labels for images, labels in batches]).float().mean().item()


def train(learning_rate: float, epochs: int) -> Experiment:
    """Train the network, and return the experiment that has recorded it."""
    torch.manual_seed(0)
    train_batches, val_batches = loaders()
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), learning_rate, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(train_batches))
    config = {"learning_rate": learning_rate, "epochs": epochs}
    with (
        Experiment("digits", config=config, project="torch") as experiment,
        watch(model, optimizer, experiment=experiment, histograms_every=100),
    ):
        step = 0
        for epoch in range(epochs):
            for images, labels in train_batches:
                optimizer.zero_grad()
                loss = cross_entropy(model(images), labels)
                loss.backward()
                optimizer.step()
                scheduler.step()
                experiment.log_metric("train/loss", loss, step)
                step += 1
            experiment.log_metrics({"epoch": epoch, "val/accuracy": accuracy(model, val_batches)}, step - 1)
    return experiment


def main() -> None:
    """Train with the options of the command line."""
    parser = argparse.ArgumentParser(description="Train a small network on handwritten digits.")
    parser.add_argument("--learning-rate", type=float, default=0.1)
    parser.add_argument("--epochs", type=int, default=8)
    options = parser.parse_args()
    experiment = train(options.learning_rate, options.epochs)
    print(f"Recorded as {experiment.run_id} in {experiment.run_dir}")


if __name__ == "__main__":
    main()
