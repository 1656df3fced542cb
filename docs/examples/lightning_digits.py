"""Train a small network on scikit-learn's handwritten digits, and record it: one line of it is Tracelet's.

python docs/examples/lightning_digits.py --learning-rate 0.003
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from tracelet_lightning import TraceletLogger


class Digits(LightningModule):
    """A network of one hidden layer: 8 by 8 pixels in, a digit out."""

    def __init__(self, hidden: int = 64, learning_rate: float = 1e-3) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.network = nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))
        self.learning_rate = learning_rate

    def _step(self, batch: Sequence[Tensor], stage: str) -> Tensor:
        images, labels = batch
        scores = self.network(images)
        loss = nn.functional.cross_entropy(scores, labels)
        accuracy = (scores.argmax(dim=1) == labels).float().mean()
        self.log_dict({f"{stage}/loss": loss, f"{stage}/accuracy": accuracy})
        return loss

    def training_step(self, batch: Sequence[Tensor], index: int) -> Tensor:
        return self._step(batch, "train")

    def validation_step(self, batch: Sequence[Tensor], index: int) -> None:
        self._step(batch, "val")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), self.learning_rate)


def loaders(batch_size: int = 64) -> tuple[DataLoader[tuple[Tensor, ...]], DataLoader[tuple[Tensor, ...]]]:
    """1,437 pictures to train on, and 360 others to validate with."""
    images, labels = load_digits(return_X_y=True)
    parts = train_test_split(images / 16, labels, test_size=0.2, random_state=0, stratify=labels)
    train_images, val_images, train_labels, val_labels = map(torch.as_tensor, parts)
    train = TensorDataset(train_images.float(), train_labels)
    val = TensorDataset(val_images.float(), val_labels)
    return DataLoader(train, batch_size, shuffle=True), DataLoader(val, batch_size)


def train(learning_rate: float, epochs: int) -> TraceletLogger:
    """Train the network, and return the logger that has recorded it."""
    seed_everything(0, verbose=False)
    logger = TraceletLogger("digits", project="quickstart")
    trainer = Trainer(
        logger=logger,
        max_epochs=epochs,
        log_every_n_steps=1,
        accelerator="cpu",
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    trainer.fit(Digits(learning_rate=learning_rate), *loaders())
    logger.stop()
    return logger


def main() -> None:
    """Train with the options of the command line."""
    parser = argparse.ArgumentParser(description="Train a small network on handwritten digits.")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--epochs", type=int, default=8)
    options = parser.parse_args()
    logger = train(options.learning_rate, options.epochs)
    print(f"Recorded as {logger.version} in {logger.log_dir}")


if __name__ == "__main__":
    main()
