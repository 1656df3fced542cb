"""A small real training: handwritten digits, one linear layer, in either namespace of Lightning."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset

from tracelet.core.plugins import BackendPlugin, PluginMetadata, PluginType
from tracelet.core.records import MetricData
from tracelet_lightning.base import LoggerBase
from tracelet_lightning.callback_base import CallbackBase

BATCHES = 8


@dataclass(frozen=True)
class Lightning:
    """One of the two namespaces, and the logger and callback that belong to it."""

    module: ModuleType
    Logger: type[LoggerBase]
    Callback: type[CallbackBase]

    @classmethod
    def named(cls, name: str) -> Lightning:
        home = "tracelet_lightning.legacy" if name == "pytorch_lightning" else "tracelet_lightning"
        classes = importlib.import_module(home)
        return cls(importlib.import_module(name), classes.TraceletLogger, classes.TraceletCallback)

    def trainer(self, logger: Any, **options: Any) -> Any:
        quiet = {
            "accelerator": "cpu",
            "devices": 1,
            "enable_checkpointing": False,
            "enable_model_summary": False,
            "enable_progress_bar": False,
            "log_every_n_steps": 1,
            "max_epochs": 1,
        }
        return self.module.Trainer(logger=logger, **{**quiet, **options})

    def model(self, **hyper_parameters: Any) -> Any:
        class Digits(self.module.LightningModule):  # type: ignore[name-defined]  # A base of the chosen namespace.
            def __init__(self, learning_rate: float = 0.1, nan_at: int | None = None) -> None:
                super().__init__()
                self.save_hyperparameters()
                self.layer = torch.nn.Linear(64, 10)

            def _loss(self, batch: Any) -> tuple[Any, Any]:
                images, labels = batch
                scores = self.layer(images)
                return torch.nn.functional.cross_entropy(scores, labels), (scores.argmax(1) == labels).float().mean()

            def training_step(self, batch: Any, index: int) -> Any:
                loss, accuracy = self._loss(batch)
                self.log("train/loss", loss, on_step=True, on_epoch=True)
                self.log("train/accuracy", accuracy)
                self.log("train/odd", float("nan") if index == self.hparams.nan_at else float(index))
                return loss

            def validation_step(self, batch: Any, index: int) -> None:
                self.log_dict(dict(zip(("val/loss", "val/accuracy"), self._loss(batch), strict=True)))

            def test_step(self, batch: Any, index: int) -> None:
                self.log("test/accuracy", self._loss(batch)[1])

            def predict_step(self, batch: Any, index: int) -> Any:
                return self.layer(batch[0]).argmax(1)

            def configure_optimizers(self) -> Any:
                return torch.optim.SGD(self.parameters(), self.hparams.learning_rate)

        torch.manual_seed(1)
        return Digits(**hyper_parameters)

    def callback(self, hook: str, action: Any) -> Any:
        """A callback that has one hook."""
        return type("Hook", (self.module.Callback,), {hook: lambda _, *args: action(*args)})()


def digits() -> DataLoader[Any]:
    images, labels = load_digits(return_X_y=True)
    count = BATCHES * 16
    data = TensorDataset(torch.tensor(images[:count] / 16, dtype=torch.float32), torch.tensor(labels[:count]))
    return DataLoader(data, batch_size=16)


class ListBackend(BackendPlugin):
    """Keeps what it is given; `on_record` may fail or wait."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[MetricData] = []

    @classmethod
    def get_metadata(cls) -> PluginMetadata:
        return PluginMetadata(name="list", version="1", type=PluginType.BACKEND, description="", author="")

    def initialize(self, config: dict[str, Any]) -> None:
        pass

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass

    def get_status(self) -> dict[str, Any]:
        return {}

    def on_record(self) -> None:
        pass

    def handle_metric(self, metric: MetricData) -> None:
        self.on_record()
        self.records.append(metric)
