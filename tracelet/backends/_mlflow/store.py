"""MLflow's own stores, in this process: SQLite, PostgreSQL, and what plug-ins of MLflow's bring.

On the backend's thread only. The store is the one that MLflow's registry has for the address, so that a user's own
`mlflow` calls on the same database share its connections. Nothing of MLflow's global state (the tracking address, the
active run) is read or set.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, final
from urllib.parse import urlsplit

from tracelet.backends._mlflow.api import (
    FEATURE,
    HISTORY_PAGE,
    MODEL_TAG,
    RUN_UUID_TAG,
    Point,
    RemoteModel,
    RemoteRun,
    failure_of,
    without_credentials,
)
from tracelet.backends._mlflow.database import prepare
from tracelet.errors import PermanentError, RetryableError
from tracelet.utils.imports import require

_SQLITE: Final = "sqlite:///"


@final
class StoreApi:
    """See the module docstring, and `MlflowApi`."""

    def __init__(self, uri: str) -> None:
        """Open the database; an empty one gets MLflow's tables.

        Raises:
            RetryableError: It can't be reached.
            PermanentError: MLflow has no store for this address, or the database is of another version of MLflow's.
        """
        from mlflow.exceptions import MlflowException
        from mlflow.store.db.db_types import DATABASE_ENGINES
        from sqlalchemy.exc import ArgumentError, SQLAlchemyError

        # Beside the database, as where MLflow itself is started there.
        artifacts = str(Path(uri.removeprefix(_SQLITE)).parent / "mlruns") if uri.startswith(_SQLITE) else None
        registry = require("mlflow.tracking._tracking_service.utils", FEATURE)
        try:
            if urlsplit(uri).scheme.partition("+")[0] in DATABASE_ENGINES:
                prepare(uri)
            self._store = registry._get_store(uri, artifacts)  # noqa: SLF001  there is no public way to it
        except (MlflowException, ArgumentError) as error:
            raise PermanentError(f"MLflow can't use {without_credentials(uri)}: {error}") from error
        except SQLAlchemyError as error:
            raise RetryableError(f"the database {without_credentials(uri)} can't be opened: {error}") from error

    def find_experiment(self, name: str) -> str | None:
        with _judged():
            found = self._store.get_experiment_by_name(name)
        return None if found is None else str(found.experiment_id)

    def create_experiment(self, name: str) -> str:
        with _judged():
            return str(self._store.create_experiment(name))

    def find_run(self, experiment_id: str, run_uuid: str) -> RemoteRun | None:
        from mlflow.entities import ViewType

        wanted = f"tags.`{RUN_UUID_TAG}` = '{run_uuid}'"
        with _judged():
            found = self._store.search_runs([experiment_id], wanted, ViewType.ACTIVE_ONLY, max_results=1)
        return next(map(_run, found), None)

    def create_run(self, experiment_id: str, name: str, start_ms: int, tags: Mapping[str, str]) -> RemoteRun:
        from mlflow.entities import RunTag

        with _judged():
            user = tags.get("mlflow.user", "")
            pairs = [RunTag(key, value) for key, value in tags.items()]
            return _run(self._store.create_run(experiment_id, user, start_ms, pairs, name))

    def get_run(self, run_id: str) -> RemoteRun:
        with _judged():
            return _run(self._store.get_run(run_id))

    def update_run(self, run_id: str, status: str, end_ms: int | None) -> None:
        from mlflow.entities import RunStatus

        with _judged():
            self._store.update_run_info(run_id, RunStatus.from_string(status), end_ms, None)

    def has_models(self) -> bool:
        return int(require("mlflow", FEATURE).__version__.partition(".")[0]) >= 3

    def find_model(self, experiment_id: str, identity: str) -> RemoteModel | None:
        with _judged():
            found = self._store.search_logged_models([experiment_id], f"tags.`{MODEL_TAG}` = '{identity}'")
        return next((RemoteModel(model.model_id, model.artifact_location) for model in found), None)

    def create_model(self, experiment_id: str, run_id: str, name: str, tags: Mapping[str, str]) -> RemoteModel:
        from mlflow.entities import LoggedModelTag

        pairs = [LoggedModelTag(key, value) for key, value in tags.items()]
        with _judged():
            model = self._store.create_logged_model(experiment_id, name, run_id, pairs)
        return RemoteModel(model.model_id, model.artifact_location)

    def finish_model(self, model_id: str) -> None:
        from mlflow.entities import LoggedModelStatus

        with _judged():
            self._store.finalize_logged_model(model_id, LoggedModelStatus.READY)

    def log_batch(
        self, run_id: str, metrics: Collection[Point], params: Mapping[str, str], tags: Mapping[str, str]
    ) -> None:
        from mlflow.entities import Metric, Param, RunTag

        with _judged():
            self._store.log_batch(
                run_id,
                [Metric(*point) for point in metrics],
                [Param(key, value) for key, value in params.items()],
                [RunTag(key, value) for key, value in tags.items()],
            )

    def history(self, run_id: str, key: str, page: str | None) -> tuple[Sequence[Point], str | None]:
        with _judged():
            found = self._store.get_metric_history(run_id, key, HISTORY_PAGE, page)
        return [Point(key, metric.value, metric.timestamp, metric.step) for metric in found], found.token or None


@contextmanager
def _judged() -> Iterator[None]:
    """Turn MLflow's errors into ours. A database that is locked or away is 503 among its codes."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        raise failure_of(error) from error


def _run(found: Any) -> RemoteRun:
    info = found.info
    return RemoteRun(
        info.run_id,
        str(info.experiment_id),
        info.status,
        info.end_time,
        info.lifecycle_stage == "deleted",
        info.artifact_uri,
        found.data.params,
        found.data.tags,
    )
