"""What can be set for ClearML, and which server that and ClearML's own configuration come to.

Called by the backend: `parse` on the user's thread, `connection` on the backend's own. Guarantee: ClearML's
configuration is read as its users have it (`clearml.conf`, `CLEARML_*`), and nothing of it is changed or kept in
ClearML's own globals.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, final

from pydantic import SecretStr

from tracelet.backends._base import BackendSettings
from tracelet.errors import PermanentError
from tracelet.utils.imports import require

TaskType = Literal[
    "training",
    "testing",
    "inference",
    "data_processing",
    "application",
    "monitor",
    "controller",
    "optimizer",
    "service",
    "qc",
    "custom",
]


@final
class ClearMLSettings(BackendSettings):
    """See docs/backends/clearml.md."""

    mode: Literal["online", "offline"] | None = None
    project: str | None = None
    task_type: TaskType = "training"
    output_uri: str | None = None
    api_host: str | None = None
    web_host: str | None = None
    files_host: str | None = None
    access_key: SecretStr | None = None
    secret_key: SecretStr | None = None
    offline_dir: Path | None = None


@final
@dataclass(frozen=True, slots=True)
class Connection:
    """A ClearML server, and how to log in.

    Attributes:
        verify: Whether its certificate is checked, or the file of the authority to check it by.
        token: Stands in for the keys where it is set (`CLEARML_AUTH_TOKEN`, as an agent gives it).
    """

    api_host: str
    web_host: str
    files_host: str
    output_uri: str
    verify: bool | str
    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    token: str = field(repr=False)


def connection(settings: ClearMLSettings) -> Connection | None:
    """The server to speak to; None for an offline session.

    Raises:
        MissingDependencyError: ClearML is not installed; an offline session does without it.
        PermanentError: The mode is `online`, and there are no keys.
    """
    if settings.mode == "offline":
        return None
    with warnings.catch_warnings():  # Pandas and urllib3, which it imports, add filters to the user's.
        warnings.simplefilter("ignore", DeprecationWarning)  # Its parser has one for each file.
        api = require("clearml.backend_api", "The ClearML backend")
        names = require("clearml.backend_api.session.defs", "The ClearML backend")
        folder = require("clearml.config", "The ClearML backend").__file__
        config = api.load_config(Path(str(folder)).parent)
    if settings.mode is None and names.ENV_OFFLINE_MODE.get():
        return None
    access_key, secret_key = (
        secret.get_secret_value() if secret else entry.get(default=None) or config.get(f"api.credentials.{key}", None)
        for secret, entry, key in [
            (settings.access_key, names.ENV_ACCESS_KEY, "access_key"),
            (settings.secret_key, names.ENV_SECRET_KEY, "secret_key"),
        ]
    )
    token = None if settings.access_key else names.ENV_AUTH_TOKEN.get(default=None)
    if not token and not (access_key and secret_key):
        if settings.mode is None:
            return None
        raise PermanentError(
            "the mode of the ClearML backend is 'online', and there are no keys: run 'clearml-init', set "
            "CLEARML_API_ACCESS_KEY and CLEARML_API_SECRET_KEY, or give the settings 'access_key' and 'secret_key'"
        )
    api_host = settings.api_host or api.Session.get_api_server_host(config)
    try:
        web_host = settings.web_host or api.Session.get_app_server_host(config)
        files_host = settings.files_host or api.Session.get_files_server_host(config)
    except ValueError as error:  # It derives them from the address of the API, where that is as usual.
        raise PermanentError(
            f"{error}: set CLEARML_WEB_HOST and CLEARML_FILES_HOST, or the settings 'web_host' and 'files_host'"
        ) from error
    output_uri = settings.output_uri or config.get("sdk.development.default_output_uri", None)
    return Connection(
        api_host=api_host.rstrip("/"),
        web_host=web_host.rstrip("/"),
        files_host=files_host.rstrip("/"),
        output_uri=str(output_uri or files_host).rstrip("/"),
        verify=_verification(names.ENV_HOST_VERIFY_CERT.get(default=config.get("api.verify_certificate", True))),
        access_key=access_key or "",
        secret_key=secret_key or "",
        token=token or "",
    )


def _verification(value: object) -> bool | str:
    text = str(value).lower()
    if text in {"false", "0", "no", "off", "f", "n"}:
        return False
    return True if text in {"true", "1", "yes", "on", "t", "y", ""} else str(value)
