"""`LightningCLI`: the logger from a file and from arguments."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

import tracelet
from tests.adapters.lightning.helpers import BATCHES, Lightning, digits

HOMES = {"lightning.pytorch": "tracelet_lightning", "pytorch_lightning": "tracelet_lightning.legacy"}

TRAINER = """
trainer:
  accelerator: cpu
  max_epochs: 1
  log_every_n_steps: 1
  enable_progress_bar: false
  enable_model_summary: false
"""

LOGGER = """
  logger:
    class_path: {home}.TraceletLogger
    init_args:
      name: from-a-file
      project: cli
      config: {{seed: 3}}
      tags: {{team: vision}}
      log_graph: false
      backend: [memory]
"""


def run_cli(pl: Lightning, arguments: list[str]) -> Any:
    class Model(pl.module.LightningModule):  # type: ignore[name-defined]  # A base of the chosen namespace.
        def __init__(self, learning_rate: float = 0.1) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.layer = torch.nn.Linear(64, 10)

        def training_step(self, batch: Any, index: int) -> Any:
            loss = torch.nn.functional.cross_entropy(self.layer(batch[0]), batch[1])
            self.log("loss", loss)
            return loss

        def train_dataloader(self) -> DataLoader[Any]:
            return digits()

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), self.hparams.learning_rate)

    cli = importlib.import_module(f"{pl.module.__name__}.cli").LightningCLI
    return cli(Model, args=["fit", *arguments], seed_everything_default=False).trainer


def test_logger_from_a_file(pl: Lightning):
    Path("cli.yaml").write_text(TRAINER + LOGGER.format(home=HOMES[pl.module.__name__]))
    loggers = [run_cli(pl, ["--config", "cli.yaml", "--model.learning_rate", "0.5"]).logger for _ in range(2)]
    for logger in loggers:
        run = tracelet.load_run(logger.version)
        assert ("from-a-file", "cli", {"team": "vision"}) == (run.name, run.project, run.tags)
        assert {"seed": 3, "learning_rate": 0.5}.items() <= run.params.items()
        assert BATCHES == len(run.series("loss"))
        assert Path(logger.log_dir, "config.yaml").is_file()
    assert loggers[0].version != loggers[1].version


@pytest.mark.parametrize("options", [[], ["--trainer.logger.project=cli", "--trainer.logger.dir=here"]])
def test_logger_from_arguments(pl: Lightning, options: list[str]):
    Path("cli.yaml").write_text(TRAINER)
    logger = run_cli(
        pl, ["--config=cli.yaml", f"--trainer.logger={HOMES[pl.module.__name__]}.TraceletLogger", *options]
    ).logger
    run = tracelet.load_run(logger.log_dir)
    assert ("cli" if options else "default", BATCHES) == (run.project, len(run.series("loss")))
    assert ("here" if options else "tracelet_runs") == run.path.parent.parent.name
