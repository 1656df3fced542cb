"""A training of two processes, for `test_processes`: python training.py NAMESPACE STRATEGY PLAN...

A PLAN of `begun` logs before the first stage, one of `after` after the last one; `fails` raises in step 3.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import torch
from torch.utils.data import DataLoader, TensorDataset

namespace, strategy, *plans = sys.argv[1:]
L = importlib.import_module(namespace)
home = "tracelet_lightning.legacy" if namespace == "pytorch_lightning" else "tracelet_lightning"
TraceletLogger = importlib.import_module(home).TraceletLogger


class Model(L.LightningModule):  # type: ignore[misc, name-defined]  # A base of the chosen namespace.
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)

    def setup(self, stage: str) -> None:
        is_dummy = isinstance(self.logger.experiment, type(L.loggers.logger.DummyLogger().experiment))
        assert is_dummy is (self.global_rank > 0)

    def teardown(self, stage: str) -> None:
        if (
            strategy != "ddp"
        ):  # Its processes end with the stage; gloo's threads now and then abort one that does not ask.
            torch.distributed.barrier()
            torch.distributed.destroy_process_group()

    def training_step(self, batch: Any, index: int) -> Any:
        if "fails" in plans and index == 3:
            raise RuntimeError("no memory")
        loss = (self.layer(batch[0]) ** 2).mean()
        self.log("loss", loss)
        self.logger.experiment.log_metric("rank", float(self.global_rank), index)
        return loss

    def test_step(self, batch: Any, index: int) -> None:
        self.log("test/loss", (self.layer(batch[0]) ** 2).mean(), sync_dist=True)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)


if __name__ == "__main__":
    torch.set_num_threads(1)
    loader = DataLoader(TensorDataset(torch.randn(32, 4)), batch_size=2)
    logger = TraceletLogger(run_id="ddp", config={"plan": " ".join(plans)})
    if "begun" in plans:
        logger.log_metrics({"begun": 1.0}, 0)
    trainer = L.Trainer(
        accelerator="cpu",
        devices=2,
        strategy=strategy,
        logger=logger,
        max_epochs=1,
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    trainer.fit(Model(), loader)
    trainer.test(Model(), loader, verbose=False)
    if "after" in plans:
        logger.log_metrics({"after": 1.0}, 0)
