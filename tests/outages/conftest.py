from __future__ import annotations

import itertools
import multiprocessing
from collections.abc import Callable, Iterator
from multiprocessing import forkserver
from pathlib import Path

import pytest

from tests.backends.mlflow_server import MlflowServer, mlflow_on_sqlite  # noqa: F401  a fixture
from tests.outages.support import ROOT, Training

Start = Callable[..., Training]


@pytest.fixture(scope="session")
def trainings() -> Iterator[None]:
    """The process that others come from, with MLflow imported: that takes 3 s of CPU time, and it is done once."""
    forkserver._forkserver._stop()  # type: ignore[attr-defined]  # Another test's, which has nothing of this loaded.
    multiprocessing.get_context("forkserver").set_forkserver_preload(
        ["pytest", "tests.outages.training", "tests.outages.syncing", "tracelet.settings", "tracelet.delivery.worker",
         "tracelet.backends.mlflow_backend", "mlflow.utils.rest_utils", "mlflow.utils.credentials"]
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        yield


@pytest.fixture
def start(trainings: None, tmp_path: Path) -> Iterator[Start]:
    """Starts a training; at the end none is left."""
    made: list[Training] = []
    number = itertools.count(1)

    def begin(backend: str = "mlflow", **settings: object) -> Training:
        made.append(Training(tmp_path, f"run{next(number)}", backend, **settings))
        return made[-1]

    yield begin
    for training in made:
        training.kill()
        training.end_delivery()


@pytest.fixture
def server(mlflow_on_sqlite: MlflowServer) -> MlflowServer:  # noqa: F811  it is the imported one
    return mlflow_on_sqlite
