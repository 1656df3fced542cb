"""A training that is interrupted, for `test_resume`: python interrupted.py PLAN…, each `DIRECTORY,HOW,STEP`.

HOW is `kill`, `exception`, `interrupt` or `nothing`, in the step STEP. It resumes from the checkpoint that lies there.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from torch.utils.data import DataLoader, TensorDataset

from tests.adapters.resume.interrupted import MLFLOW, Interruption, forked
from tracelet_lightning import TraceletLogger

BATCHES, EPOCHS = 8, 3


class Model(L.LightningModule):
    def __init__(self, interrupt: Interruption) -> None:
        super().__init__()
        self.interrupt = interrupt
        self.layer = torch.nn.Linear(4, 1)

    def training_step(self, batch: Any, index: int) -> Any:
        self.interrupt(self.global_step)
        loss = (self.layer(batch[0]) ** 2).mean()
        self.log("train/loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, index: int) -> None:
        self.log("val/loss", (self.layer(batch[0]) ** 2).mean())

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), 0.1)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3)
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]


def last_checkpoint(home: Path) -> Path | None:
    return next((path for path in home.rglob("last.ckpt") if "artifacts" not in path.parts), None)


def train(interrupt: Interruption, checkpoints: Any, backend: Any = None) -> str:
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(2 * BATCHES, 4))
    logger = TraceletLogger(project="p", backend=backend, log_model="all")
    trainer = L.Trainer(
        logger=logger,
        callbacks=[checkpoints],
        accelerator="cpu",
        devices=1,
        max_epochs=EPOCHS,
        log_every_n_steps=1,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    checkpoint = last_checkpoint(Path.cwd())
    trainer.fit(Model(interrupt), DataLoader(data, 2), DataLoader(data, 8), ckpt_path=checkpoint)
    logger.stop()
    return logger.version


if __name__ == "__main__":
    for module in MLFLOW:
        importlib.import_module(module)
    interruption = forked(sys.argv[1:])
    train(interruption, L.callbacks.ModelCheckpoint(monitor="val/loss", save_top_k=2, save_last=True), ["mlflow"])
