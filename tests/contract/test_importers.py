"""The contract of importers, for those that come with Tracelet, on what the real libraries wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.importers.conftest import (  # noqa: F401 - imported fixtures
    aim_folder,
    clearml_folder,
    mlflow_folder,
    neptune_folder,
    tensorboard_folder,
    trackio_folder,
    wandb_folder,
)
from tracelet.core.importer import ImporterPlugin
from tracelet.importers.aim_importer import AimImporter
from tracelet.importers.clearml_importer import ClearMLImporter
from tracelet.importers.csv_importer import CsvImporter
from tracelet.importers.mlflow_importer import MLflowImporter
from tracelet.importers.neptune_importer import NeptuneImporter
from tracelet.importers.tensorboard_importer import TensorBoardImporter
from tracelet.importers.trackio_importer import TrackioImporter
from tracelet.importers.wandb_importer import WandbImporter
from tracelet.testing import ImporterContract


class OurContract(ImporterContract):
    subject: type[ImporterPlugin]

    @pytest.fixture
    def importer(self) -> ImporterPlugin:
        return self.subject()


class TestAim(OurContract):
    subject = AimImporter

    @pytest.fixture
    def source(self, aim_folder: Path) -> str:  # noqa: F811 - the imported fixture
        return str(aim_folder / "written")


class TestClearML(OurContract):
    subject = ClearMLImporter

    @pytest.fixture
    def source(self, clearml_folder: Path) -> str:  # noqa: F811 - the imported fixture
        return str(clearml_folder / "cache")


class TestCsv(OurContract):
    subject = CsvImporter

    @pytest.fixture
    def source(self, tmp_path: Path) -> str:
        file = tmp_path / "table" / "metrics.csv"
        file.parent.mkdir()
        file.write_text("epoch,step,train_loss\n0,0,1.5\n0,1,nan\n")
        return str(file)


class TestMLflow(OurContract):
    subject = MLflowImporter

    @pytest.fixture
    def source(self, mlflow_folder: Path) -> str:  # noqa: F811 - the imported fixture
        return f"sqlite:///{mlflow_folder}/m.db"


class TestNeptune(OurContract):
    subject = NeptuneImporter

    @pytest.fixture
    def source(self, neptune_folder: Path) -> str:  # noqa: F811 - the imported fixture
        return str(neptune_folder / ".neptune")

    @pytest.fixture
    def config(self, neptune_folder: Path) -> dict[str, Any]:  # noqa: F811 - the imported fixture
        return {"files": str(neptune_folder)}


class TestTensorBoard(OurContract):
    subject = TensorBoardImporter

    @pytest.fixture
    def source(self, tensorboard_folder: Path) -> str:  # noqa: F811 - the imported fixture
        return str(tensorboard_folder / "run")


class TestTrackio(OurContract):
    subject = TrackioImporter

    @pytest.fixture
    def source(self, trackio_folder: Path) -> str:  # noqa: F811 - the imported fixture
        return str(trackio_folder)


class TestWandb(OurContract):
    subject = WandbImporter

    @pytest.fixture
    def source(self, wandb_folder: Path) -> str:  # noqa: F811 - the imported fixture
        return str(wandb_folder / "wandb")
