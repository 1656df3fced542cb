"""MLflow's REST interface: one try a request, with a timeout of our own. On the backend's thread only.

`MlflowClient` would retry for minutes, as settings say that hold for the whole process. This goes by MLflow's own
`http_request`, so that its environment variables, its login and its plug-ins for headers count as its users know it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, final

from tracelet.backends._mlflow.api import (
    FEATURE,
    HISTORY_PAGE,
    MODEL_TAG,
    RUN_UUID_TAG,
    Point,
    RefusalError,
    RemoteModel,
    RemoteRun,
    failure,
    failure_of,
    without_credentials,
)
from tracelet.errors import PermanentError, RetryableError
from tracelet.utils.imports import require

_API: Final = "/api/2.0/mlflow"
_NO_NUMBERS: Final = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}  # As Protocol Buffers write them in JSON.


@final
class RestApi:
    """See the module docstring, and `MlflowApi`."""

    def __init__(self, uri: str, timeout_s: float) -> None:
        self._uri = uri
        self._timeout_s = timeout_s
        self._rest = require("mlflow.utils.rest_utils", FEATURE)
        self._credentials = require("mlflow.utils.credentials", FEATURE)

    def find_experiment(self, name: str) -> str | None:
        try:
            found = self.call("GET", f"{_API}/experiments/get-by-name", {"experiment_name": name})
        except RefusalError as refusal:
            if refusal.code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        return str(found["experiment"]["experiment_id"])

    def create_experiment(self, name: str) -> str:
        return str(self.call("POST", f"{_API}/experiments/create", {"name": name})["experiment_id"])

    def find_run(self, experiment_id: str, run_uuid: str) -> RemoteRun | None:
        query = {"filter": f"tags.`{RUN_UUID_TAG}` = '{run_uuid}'", "run_view_type": "ACTIVE_ONLY", "max_results": 1}
        found = self.call("POST", f"{_API}/runs/search", {"experiment_ids": [experiment_id], **query})
        return next(map(_run, found.get("runs", [])), None)

    def create_run(self, experiment_id: str, name: str, start_ms: int, tags: Mapping[str, str]) -> RemoteRun:
        body = {"experiment_id": experiment_id, "run_name": name, "start_time": start_ms, "tags": _pairs(tags)}
        return _run(self.call("POST", f"{_API}/runs/create", body)["run"])

    def get_run(self, run_id: str) -> RemoteRun:
        return _run(self.call("GET", f"{_API}/runs/get", {"run_id": run_id})["run"])

    def update_run(self, run_id: str, status: str, end_ms: int | None) -> None:
        end = {} if end_ms is None else {"end_time": end_ms}
        self.call("POST", f"{_API}/runs/update", {"run_id": run_id, "status": status, **end})

    def has_models(self) -> bool:
        return int(self._send("GET", "/version").partition(".")[0]) >= 3

    def find_model(self, experiment_id: str, identity: str) -> RemoteModel | None:
        wanted = {"experiment_ids": [experiment_id], "filter": f"tags.`{MODEL_TAG}` = '{identity}'", "max_results": 1}
        found = self.call("POST", f"{_API}/logged-models/search", wanted)
        return next(map(_model, found.get("models", [])), None)

    def create_model(self, experiment_id: str, run_id: str, name: str, tags: Mapping[str, str]) -> RemoteModel:
        body = {"experiment_id": experiment_id, "source_run_id": run_id, "name": name, "tags": _pairs(tags)}
        return _model(self.call("POST", f"{_API}/logged-models", body)["model"])

    def finish_model(self, model_id: str) -> None:
        body = {"model_id": model_id, "status": "LOGGED_MODEL_READY"}
        self.call("PATCH", f"{_API}/logged-models/{model_id}", body)

    def log_batch(
        self, run_id: str, metrics: Collection[Point], params: Mapping[str, str], tags: Mapping[str, str]
    ) -> None:
        points = [
            {
                "key": key,
                "value": value if math.isfinite(value) else _NO_NUMBERS[str(value)],
                "timestamp": timestamp_ms,
                "step": step,
            }
            for key, value, timestamp_ms, step in metrics
        ]
        body = {"run_id": run_id, "metrics": points, "params": _pairs(params), "tags": _pairs(tags)}
        self.call("POST", f"{_API}/runs/log-batch", body)

    def history(self, run_id: str, key: str, page: str | None) -> tuple[Sequence[Point], str | None]:
        query = {"run_id": run_id, "metric_key": key, "max_results": HISTORY_PAGE}
        found = self.call("GET", f"{_API}/metrics/get-history", query | ({"page_token": page} if page else {}))
        points = [
            Point(key, float(metric.get("value", 0)), int(metric["timestamp"]), int(metric.get("step", 0)))
            for metric in found.get("metrics", [])
        ]
        return points, found.get("next_page_token") or None

    def call(self, method: str, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Send a request, and give what the JSON of its answer holds."""
        text = self._send(method, path, **{"params" if method == "GET" else "json": body})
        try:
            found = json.loads(text)
        except ValueError as error:
            raise RetryableError(f"MLflow's answer at {path} is no JSON: {text[:200]!r}") from error
        if not isinstance(found, dict):
            raise RetryableError(f"MLflow's answer at {path} is not as expected: {text[:200]!r}")
        return found

    def put(self, path: str, source: Path) -> None:
        """Send a file, in pieces."""
        with source.open("rb") as file:
            # A file without content would be announced as one of unknown length. A server that refuses a file without
            # reading it cuts the connection: no other request may come on it.
            content = file if source.stat().st_size else b""
            self._send("PUT", path, data=content, extra_headers={"Connection": "close"})

    def _send(self, method: str, path: str, **content: Any) -> str:
        from mlflow.exceptions import InvalidUrlException, MlflowException

        try:
            answer = self._rest.http_request(
                self._credentials.get_default_host_creds(self._uri),  # Each time: a token may be renewed.
                path,
                method,
                max_retries=0,
                retry_codes=frozenset(),
                raise_on_status=False,
                timeout=self._timeout_s,
                **content,
            )
        except MlflowException as error:  # Whatever went wrong before there was an answer.
            message = str(error).replace(self._uri, without_credentials(self._uri))
            if isinstance(error, InvalidUrlException) or isinstance(failure_of(error), PermanentError):
                raise PermanentError(message) from error
            raise RetryableError(message) from error
        if answer.status_code == 200:
            return str(answer.text)
        try:
            reason = dict(answer.json())
        except (ValueError, TypeError):
            reason = {}
        raise failure(answer.status_code, str(reason.get("message", answer.text))[:2000], reason.get("error_code"))


def _pairs(values: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in values.items()]


def _model(found: Mapping[str, Any]) -> RemoteModel:
    return RemoteModel(found["info"]["model_id"], found["info"]["artifact_uri"])


def _run(found: Mapping[str, Any]) -> RemoteRun:
    info, data = found["info"], found.get("data", {})
    return RemoteRun(
        info["run_id"],
        str(info["experiment_id"]),
        info["status"],
        int(info["end_time"]) if info.get("end_time") else None,
        info.get("lifecycle_stage") == "deleted",
        info["artifact_uri"],
        *({pair["key"]: pair.get("value", "") for pair in data.get(kind, [])} for kind in ("params", "tags")),
    )
