"""What the tests of the MLflow backend share."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from tracelet.backends.mlflow_backend import MLflowBackend
from tracelet.core.records import STATUS_NAME, TAG_PREFIX, MetricData, MetricType

TIME_S = 1_750_000_000.125
TIME_MS = 1_750_000_000_125

# MLflow 3.17's, with SQLAlchemy 2.1.
QUIET = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning")


def scalar(name: str, value: float, step: int | None = 0, time_s: float = TIME_S) -> MetricData:
    return MetricData(name, value, MetricType.SCALAR, step, time_s)


def param(name: str, value: Any) -> MetricData:
    return MetricData(name, value, MetricType.PARAMETER, None, TIME_S)


def tag(key: str, value: str) -> MetricData:
    return MetricData(TAG_PREFIX + key, value, MetricType.CUSTOM, None, TIME_S)


def end(status: str, time_s: float = TIME_S + 60, error: str | None = None) -> MetricData:
    return MetricData(STATUS_NAME, status, MetricType.CUSTOM, None, time_s, None, {"error": error} if error else None)


def file(name: str, path: Path, kind: MetricType, step: int | None = 3, **metadata: Any) -> MetricData:
    return MetricData(name, str(path), kind, step, TIME_S, None, metadata)


class Remote:
    """A run of ours, and what MLflow has of it."""

    def __init__(self, uri: str, folder: Path) -> None:
        self.config: dict[str, Any] = {
            "run_name": "digits",
            "run_id": "run1",
            "run_uuid": uuid.uuid4().hex,
            "run_project": "vision",
            "run_created_s": TIME_S,
            "run_program": "/home/me/train.py",
            "run_dir": folder / "run",
            "state_dir": folder / "run" / "delivery" / "mlflow",
            "tracking_uri": uri,
            "timeout_s": 120.0,
        }
        self._folder = folder
        self._started: list[MLflowBackend] = []

    @functools.cached_property
    def client(self) -> MlflowClient:
        return MlflowClient(str(self.config["tracking_uri"]))

    def start(self, **settings: Any) -> MLflowBackend:
        """A backend as in a new process."""
        backend = MLflowBackend()
        backend.initialize(self.config | settings)
        backend.start()
        self._started.append(backend)
        return backend

    def deliver(self, *records: MetricData) -> None:
        """Start, send, stop."""
        backend = self.start()
        backend.handle_batch(records)
        backend.stop()

    def stop(self) -> None:
        for backend in self._started:
            backend.stop()

    @property
    def run(self) -> Run:
        experiments = [experiment.experiment_id for experiment in self.client.search_experiments()]
        (found,) = self.client.search_runs(experiments, f"tags.`tracelet.run_uuid` = '{self.config['run_uuid']}'")
        return found

    def points(self, key: str) -> list[tuple[int, float]]:
        return [(point.step, point.value) for point in self.client.get_metric_history(self.run.info.run_id, key)]

    def artifacts(self) -> Sequence[str]:
        """The paths of all files."""

        def walk(path: str | None) -> Iterator[str]:
            for found in self.client.list_artifacts(self.run.info.run_id, path):
                if found.is_dir:
                    yield from walk(found.path)
                else:
                    yield found.path

        return sorted(walk(None))

    def read(self, path: str) -> bytes:
        (self._folder / "downloads").mkdir(exist_ok=True)
        return Path(
            self.client.download_artifacts(self.run.info.run_id, path, str(self._folder / "downloads"))
        ).read_bytes()


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"  # One for all: to make it takes 1 s.


@pytest.fixture
def make_remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Remote]]:
    """Makes a `Remote` for an address."""
    made: list[Remote] = []

    def make(uri: str) -> Remote:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)  # The client's artifacts go by the variable.
        made.append(Remote(uri, tmp_path))
        return made[-1]

    yield make
    for remote in made:
        remote.stop()


@pytest.fixture
def remote(database: str, make_remote: Callable[[str], Remote]) -> Remote:
    """A run that is delivered to a database without a server."""
    return make_remote(database)
