"""What the MLflow backend asks of MLflow, and what an error of MLflow's means. On the backend's thread only.

`connect` gives one of two ways: `RestApi` to a server, `StoreApi` to a database without one (`sqlite:///…`). Each call
is one try; delivery does the retries.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol, final
from urllib.parse import urlsplit

from tracelet.errors import DeliveryError, PermanentError, RejectedError, RetryableError

FEATURE: Final = "The MLflow backend"
RUN_UUID_TAG: Final = "tracelet.run_uuid"
MODEL_TAG: Final = "tracelet.model"
"""Of a logged model: which artifact of which run of ours it is."""
ENDED: Final = frozenset({"FINISHED", "FAILED", "KILLED"})
HISTORY_PAGE: Final = 5_000
MAX_FLOAT: Final = 1.7976931348623157e308  # MLflow's infinity.

_BUSY: Final = frozenset({408, 409, 425, 429, 499})
_TOO_LARGE: Final = 413  # Most often a proxy's answer. Half of it may pass.
_DATABASE: Final = "BAD_REQUEST"  # MLflow's code for all errors of its database but SQLAlchemy's `OperationalError`.
_OF_VALUES: Final = re.compile(  # In the text, after the driver's module; the first two are those of Python's DB-API.
    r"\((?:\w+\.)+(?:DataError|IntegrityError|OverflowError|\w+(?:Violation|OutOfRange|Truncation|Character|Repertoire))\)"
)


class Point(NamedTuple):
    """A metric's value, as MLflow has it."""

    key: str
    value: float
    timestamp_ms: int
    step: int


@final
@dataclass(frozen=True, slots=True)
class RemoteRun:
    """A run, as MLflow has it; `end_ms` is Unix time in ms."""

    run_id: str
    experiment_id: str
    status: str
    end_ms: int | None
    is_deleted: bool
    artifact_uri: str
    params: Mapping[str, str]
    tags: Mapping[str, str]


class RemoteModel(NamedTuple):
    """A logged model, as MLflow has it."""

    model_id: str
    artifact_uri: str


class MlflowApi(Protocol):
    """Each method raises `RefusalError`, or as a backend does."""

    def find_experiment(self, name: str) -> str | None:
        """The id of the experiment of this name, a deleted one included."""

    def create_experiment(self, name: str) -> str:
        """A new experiment's id."""

    def find_run(self, experiment_id: str, run_uuid: str) -> RemoteRun | None:
        """The run that has this uuid in its tag, if it is not deleted."""

    def create_run(self, experiment_id: str, name: str, start_ms: int, tags: Mapping[str, str]) -> RemoteRun:
        """A new run."""

    def get_run(self, run_id: str) -> RemoteRun:
        """A run by its id, a deleted one included."""

    def update_run(self, run_id: str, status: str, end_ms: int | None) -> None:
        """Set a run's status, and its end unless that is None."""

    def has_models(self) -> bool:
        """Whether there are logged models: they came with MLflow 3."""

    def find_model(self, experiment_id: str, identity: str) -> RemoteModel | None:
        """The logged model that has this identity in its tag."""

    def create_model(self, experiment_id: str, run_id: str, name: str, tags: Mapping[str, str]) -> RemoteModel:
        """A new logged model of a run, which is pending."""

    def finish_model(self, model_id: str) -> None:
        """Show a logged model as ready."""

    def log_batch(
        self, run_id: str, metrics: Collection[Point], params: Mapping[str, str], tags: Mapping[str, str]
    ) -> None:
        """Store 1000 things at once at most, 100 parameters and 100 tags among them."""

    def history(self, run_id: str, key: str, page: str | None) -> tuple[Sequence[Point], str | None]:
        """The points of a metric from a page on, and the next page."""


@final
class RefusalError(RejectedError):
    """MLflow understood, and says no.

    Args:
        code: MLflow's own name for the reason: `RESOURCE_DOES_NOT_EXIST`.
    """

    def __init__(self, message: str, code: str | None) -> None:
        super().__init__(message)
        self.code = code


@final
class ServerFaultError(RetryableError):
    """The server answers, and can't do it now."""


def failure(status: int, message: str, code: str | None) -> DeliveryError:
    """The error for an HTTP status, or for the one that MLflow's store would have answered with.

    Only what carries MLflow's own code is taken for its judgement of the records: a proxy's error page is an outage. So
    is a database that takes no writes (after a failover, say), for which MLflow answers 400.
    """
    if status in (401, 403):
        return PermanentError(
            f"MLflow does not let us in ({status}): {message.strip()}. Set MLFLOW_TRACKING_TOKEN, or "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
    if status >= 500 or (code == _DATABASE and not _OF_VALUES.search(message)):
        return ServerFaultError(f"{message} ({status})")
    if status in _BUSY or (code is None and status != _TOO_LARGE):
        return RetryableError(f"{message} ({status})")
    return RefusalError(message, code)


def failure_of(error: Any) -> DeliveryError:
    """The error for one of MLflow's own, an `MlflowException`."""
    return failure(error.get_http_status_code(), str(error)[:2000], error.error_code)


def without_credentials(uri: str) -> str:
    """The address for people: without user, password and query."""
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl() if parts.netloc else uri


def is_server(uri: str) -> bool:
    """Whether an address is that of a server; else it is a database's, or one that a plug-in of MLflow's knows."""
    return urlsplit(uri).scheme in ("http", "https")


def connect(uri: str, timeout_s: float) -> MlflowApi:
    """The way to MLflow.

    Args:
        uri: As MLflow's users write it, with an absolute path where it is a file's.
        timeout_s: How long a server may be silent.
    """
    from tracelet.backends._mlflow.rest import RestApi
    from tracelet.backends._mlflow.store import StoreApi

    return RestApi(uri, timeout_s) if is_server(uri) else StoreApi(uri)
