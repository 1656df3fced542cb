"""The database behind a live MLflow server goes away, and comes back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import psycopg2
import pytest

from tests.backends.mlflow_server import MlflowServer, PostgresServer
from tests.backends.mlflow_support import QUIET
from tests.outages.conftest import Start
from tests.outages.support import BOTH, assert_complete, assert_undisturbed

pytestmark = QUIET


@pytest.fixture(scope="module")
def database() -> Iterator[PostgresServer]:
    with PostgresServer() as database:
        yield database


@pytest.fixture(scope="module")
def server(database: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    with MlflowServer(tmp_path_factory.mktemp("mlflow-on-postgres"), database.uri) as server:
        yield server


@contextlib.contextmanager
def read_only(database: PostgresServer) -> Iterator[None]:
    """It takes no writes, as after a failover to a standby; connections of before are closed."""

    def choose(state: str) -> None:
        with contextlib.closing(psycopg2.connect(database.uri.replace("+psycopg2", ""))) as connection:
            connection.autocommit = True
            cursor = connection.cursor()
            cursor.execute("SET default_transaction_read_only = off")
            cursor.execute(f"ALTER DATABASE mlflow SET default_transaction_read_only = {state}")
            cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")

    choose("on")
    try:
        yield
    finally:
        choose("off")


@pytest.mark.parametrize("outage", [PostgresServer.down, PostgresServer.paused, read_only])
def test_database_that_is_away_for_a_while_has_everything_once(database, server, start: Start, outage):
    trainings = [start(mlflow__tracking_uri=server.uri, delivery=delivery, mlflow__timeout_s=5) for delivery in BOTH]
    for training in trainings:
        training.wait_for_more(500)
    before = [training.report.errors for training in trainings]
    with outage(database):
        for training, errors in zip(trainings, before, strict=True):
            training.wait_for_trouble(errors)
    for training in trainings:
        costs = training.finish()
        assert_undisturbed(costs)
        assert_complete(server.uri, training.run_dir, steps=costs.steps)
