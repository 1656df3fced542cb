from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.importers import sources
from tracelet.core.importer import find_importer
from tracelet.importers.writing import Imported, import_run
from tracelet.settings import TraceletSettings

Import = Callable[..., list[Imported]]


@pytest.fixture
def bring(tmp_path: Path) -> Import:
    """Imports all runs of a source into one directory."""

    def bring(kind: str, source: object, *, dry_run: bool = False, **config: Any) -> list[Imported]:
        importer, settings = find_importer(kind, config), TraceletSettings.load()
        return [
            import_run(run, kind, tmp_path / "imported", None, settings, dry_run=dry_run)
            for run in importer.runs(str(source))
        ]

    return bring


def _written(code: str, package: str | None = None) -> Any:
    @pytest.fixture(scope="session")
    def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
        if package is not None and importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} has no build for this Python")
        if code not in _written_already:
            _written_already[code] = sources.write(code, tmp_path_factory.mktemp("source"))
        return _written_already[code]

    return folder


_written_already: dict[
    str, Path
] = {}  # The contract's tests import the fixtures, and pytest takes them for others then.

tensorboard_folder = _written(sources.TENSORBOARD)
wandb_folder = _written(sources.WANDB)
mlflow_folder = _written(sources.MLFLOW)
neptune_folder = _written(sources.NEPTUNE)
clearml_folder = _written(sources.CLEARML)
aim_folder = _written(sources.AIM, "aim")


@pytest.fixture(scope="session")
def trackio_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See `sources.TRACKIO`."""
    folder = tmp_path_factory.mktemp("source")
    shutil.unpack_archive(Path(__file__).parent / "recorded" / "trackio.zip", folder, "zip")
    return folder / "trackio"
