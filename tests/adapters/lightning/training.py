"""A training of two processes, for `test_processes`: python training.py NAMESPACE STRATEGY PLAN...

A PLAN of `begun` logs before the first stage, one of `after` after the last one; `fails` raises in step 3; `ranks` has
all ranks record, and `alone` uses the callback without a logger; `saves` and `resumes` are for checkpoints.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, TensorDataset

namespace, strategy, *plans = sys.argv[1:]
L = importlib.import_module(namespace)
home = "tracelet_lightning.legacy" if namespace == "pytorch_lightning" else "tracelet_lightning"
TraceletLogger, TraceletCallback = (
    getattr(importlib.import_module(home), name) for name in ("TraceletLogger", "TraceletCallback")
)


class Model(L.LightningModule):  # type: ignore[misc, name-defined]  # A base of the chosen namespace.
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)

    def setup(self, stage: str) -> None:
        if "alone" in plans or "resumes" in plans:  # Who asks for it begins the run, before the checkpoint is loaded.
            return
        is_dummy = isinstance(self.logger.experiment, type(L.loggers.logger.DummyLogger().experiment))
        assert is_dummy is (self.global_rank > 0)

    def teardown(self, stage: str) -> None:
        if (
            strategy != "ddp"
        ):  # Its processes end with the stage; gloo's threads now and then abort one that does not ask.
            torch.distributed.barrier()
            torch.distributed.destroy_process_group()

    def training_step(self, batch: Any, index: int) -> Any:
        if ("fails" in plans and index == 3) or ("fails5" in plans and index == 5):
            raise RuntimeError("no memory")
        loss = (self.layer(batch[0]) ** 2).mean()
        self.log("loss", loss)
        if "alone" not in plans:
            self.logger.experiment.log_metric("rank", float(self.global_rank), index)
        return loss

    def test_step(self, batch: Any, index: int) -> None:
        self.log("test/loss", (self.layer(batch[0]) ** 2).mean(), sync_dist=True)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)


if __name__ == "__main__":
    torch.set_num_threads(1)
    loader = DataLoader(TensorDataset(torch.randn(32, 4)), batch_size=2)
    options = {"run_id": None if {"saves", "resumes"} & {*plans} else "ddp", "config": {"plan": " ".join(plans)}}
    logger = False if "alone" in plans else TraceletLogger(**options)
    callbacks = []
    if "ranks" in plans:
        callbacks.append(TraceletCallback(**(options if "alone" in plans else {}), all_ranks=True))
    if {"saves", "resumes"} & {*plans}:
        callbacks.append(L.callbacks.ModelCheckpoint(every_n_train_steps=4, save_last=True))
    if "begun" in plans:
        logger.log_metrics({"begun": 1.0}, 0)
    trainer = L.Trainer(
        accelerator="cpu",
        devices=2,
        strategy=strategy,
        logger=logger,
        callbacks=callbacks,
        max_epochs=1,
        log_every_n_steps=1,
        enable_checkpointing=bool({"saves", "resumes"} & {*plans}),
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    (checkpoint,) = Path().rglob("last.ckpt") if "resumes" in plans else (None,)
    trainer.fit(Model(), loader, ckpt_path=checkpoint)
    trainer.test(Model(), loader, verbose=False)
    if "after" in plans:
        logger.log_metrics({"after": 1.0}, 0)
