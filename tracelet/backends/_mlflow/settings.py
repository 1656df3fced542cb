"""The settings of the MLflow backend, and the address that they lead to."""

from __future__ import annotations

from pathlib import Path
from typing import Final, final

from pydantic import PositiveFloat, SecretStr

from tracelet.backends._base import BackendSettings
from tracelet.backends._mlflow.api import FEATURE
from tracelet.utils.imports import require

_SQLITE: Final = "sqlite:///"
_IN_MEMORY: Final = ("", ":memory:")


@final
class MLflowSettings(BackendSettings):
    """What can be set; docs/backends/mlflow.md says what each means."""

    tracking_uri: SecretStr | None = None  # A database's address may hold a password.
    experiment: str | None = None
    timeout_s: PositiveFloat = 20.0


def choose_tracking_uri(settings: MLflowSettings, kept: str | None) -> str:
    """Where to: the setting, MLflow's own, where the run went before, or a database in the working directory.

    The path of a file becomes absolute, so that it stays the same when the training changes its directory.
    """
    mlflow = require("mlflow", FEATURE)
    given = settings.tracking_uri and settings.tracking_uri.get_secret_value()
    uri = given or (mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else kept) or f"{_SQLITE}mlflow.db"
    path = uri.removeprefix(_SQLITE)
    is_file = path != uri and path not in _IN_MEMORY
    return f"{_SQLITE}{Path(path).absolute()}" if is_file else uri
