"""The MLflow backend under the suite for backends: on SQLite without a server, and on a server of each kind.

What is stored is read by MLflow's own client, but for the names, which only the backend can turn back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from tests.backends.mlflow_server import MlflowServer, Switch, mlflow_on_postgres, mlflow_on_sqlite  # noqa: F401 - imported fixtures
from tracelet.backends._mlflow.names import KEYS
from tracelet.backends.mlflow_backend import MLflowBackend
from tracelet.testing import BackendContract

# MLflow 3.17's, with SQLAlchemy 2.1.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning")


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"  # One for all: to make it takes 1 s.


class MlflowContract(BackendContract):
    subject = MLflowBackend

    @pytest.fixture
    def uri(self) -> str:
        pytest.fail("give the fixture `uri`")

    @pytest.fixture
    def backend(self) -> MLflowBackend:
        return MLflowBackend()

    @pytest.fixture
    def config(self, uri: str) -> dict[str, Any]:
        return {"tracking_uri": uri, "timeout_s": 120.0}

    @pytest.fixture
    def client(self, uri: str, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)  # Its artifacts go by the variable.
        return MlflowClient(uri)

    @pytest.fixture
    def run(self, client: MlflowClient, full_config: dict[str, Any]) -> Callable[[], Run]:
        """The one run of MLflow's that belongs to ours."""

        def find() -> Run:
            experiments = [experiment.experiment_id for experiment in client.search_experiments()]
            wanted = f"tags.`tracelet.run_uuid` = '{full_config['run_uuid']}'"
            (found,) = client.search_runs(experiments, wanted)
            return found

        return find

    @pytest.fixture
    def stored(self, client: MlflowClient, run: Callable[[], Run]):
        def read() -> list[tuple[Any, ...]]:
            found = run()
            marks = [value for tag, value in found.data.tags.items() if tag.startswith("tracelet.name.")]
            names = {KEYS.escape(name): name for name in marks}
            return [
                (names.get(key, key), point.step, point.value, point.timestamp / 1000)
                for key in found.data.metrics
                for point in client.get_metric_history(found.info.run_id, key)
            ]

        return read

    @pytest.fixture
    def stored_params(self, client: MlflowClient, run: Callable[[], Run], tmp_path: Path):
        def read() -> dict[str, str]:
            found = run()
            params = dict(found.data.params)
            for file in client.list_artifacts(found.info.run_id, "params"):
                name = Path(file.path).name.split(".")[0]
                params[name] = Path(client.download_artifacts(found.info.run_id, file.path, str(tmp_path))).read_text()
            return params

        return read

    def param_as_stored(self, value: Any) -> str:
        return str(value)

    @pytest.fixture
    def stored_texts(self, client: MlflowClient, run: Callable[[], Run], tmp_path: Path):
        def read() -> dict[str, str]:
            run_id = run().info.run_id
            found = {}
            for folder in client.list_artifacts(run_id, "texts"):
                (file,) = client.list_artifacts(run_id, folder.path)
                text = Path(client.download_artifacts(run_id, file.path, str(tmp_path))).read_text()
                found[folder.path.removeprefix("texts/")] = text
            return found

        return read

    @pytest.fixture
    def stored_tags(self, run: Callable[[], Run]):
        return lambda: run().data.tags


class TestMlflowInSqlite(MlflowContract):
    @pytest.fixture
    def uri(self, database: str) -> str:
        return database


class ServerContract(MlflowContract):
    @pytest.fixture
    def server(self) -> MlflowServer:
        pytest.fail("give the fixture `server`")

    @pytest.fixture
    def switch(self, server: MlflowServer) -> Iterator[Switch]:
        with Switch(server.port) as switch:
            yield switch

    @pytest.fixture
    def uri(self, switch: Switch) -> str:
        return switch.uri

    @pytest.fixture
    def outage(self, switch: Switch) -> Callable[[], AbstractContextManager[None]]:
        return switch.off


class TestMlflowServerOnSqlite(ServerContract):
    @pytest.fixture
    def server(self, mlflow_on_sqlite: MlflowServer) -> MlflowServer:  # noqa: F811  the fixture
        return mlflow_on_sqlite


class TestMlflowServerOnPostgres(ServerContract):
    @pytest.fixture
    def server(self, mlflow_on_postgres: MlflowServer) -> MlflowServer:  # noqa: F811  the fixture
        return mlflow_on_postgres
