"""A server on loopback that speaks enough of Neptune's 1.x protocol for the real client: runs, values and series.

The client learns the protocol from the server's Swagger pages. So they are here, with the operations that it calls.
"""

from __future__ import annotations

import base64
import json
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt

_WAIT_S = 60.0
_MODELS = {
    "ClientConfig": ["apiUrl", "applicationUrl"],
    "Tokens": ["accessToken", "refreshToken"],
    "Project": ["id", "name", "organizationName", "projectKey", "version"],
    "Experiment": ["id", "type", "shortId", "organizationName", "projectName", "trashed"],
    "Attribute": ["name", "type"],
    "Fault": ["errorDescription"],
}
_LISTS = {"getExperimentAttributes": "Attribute", "executeOperations": "Fault"}
# Operation: method, what it gives, and its arguments: (name, where).
_OPERATIONS: dict[str, dict[str, tuple[str, str | None, list[tuple[str, str]]]]] = {
    "backend": {
        "getClientConfig": ("get", "ClientConfig", [("X_Neptune_Api_Token", "header"), ("alpha", "query")]),
        "exchangeApiToken": ("get", "Tokens", [("X_Neptune_Api_Token", "header")]),
        "getProject": ("get", "Project", [("projectIdentifier", "query")]),
    },
    "leaderboard": {
        "createExperiment": (
            "post",
            "Experiment",
            [("experimentCreationParams", "body"), ("X-Neptune-CliVersion", "header")],
        ),
        "getExperiment": ("get", "Experiment", [("experimentId", "query")]),
        "getExperimentAttributes": ("get", "Attributes", [("experimentId", "query")]),
        "executeOperations": ("post", None, [("experimentId", "query"), ("operations", "body")]),
        "fileAtomUpload": ("post", "Fault", [("experimentIdentifier", "query"), ("attribute", "query")]),
        "fileAtomMultipartUploadStart": ("post", "Fault", []),
        "fileAtomMultipartUploadFinish": ("post", "Fault", []),
        "fileAtomMultipartUploadPart": ("put", "Fault", []),
        "ping": ("post", "Fault", [("experimentId", "query")]),
    },
}


def _swagger(part: str, address: str) -> dict[str, Any]:
    definitions: dict[str, Any] = {
        name: {"type": "object", "properties": {field: {} for field in fields}} for name, fields in _MODELS.items()
    }
    attributes = {"type": "array", "items": {"$ref": "#/definitions/Attribute"}}
    definitions["Attributes"] = {"type": "object", "properties": {"attributes": attributes}}
    paths = {}
    for name, (method, gives, arguments) in _OPERATIONS[part].items():
        schema = {"$ref": f"#/definitions/{gives}"}
        if gives is None:
            schema = {"type": "array", "items": {"$ref": "#/definitions/Fault"}}
        parameters = [
            {"name": argument, "in": place, **({"schema": {}} if place == "body" else {"type": "string"})}
            for argument, place in arguments
        ]
        answers = {"200": {"description": "ok", "schema": schema}}
        operation = {"operationId": name, "tags": ["api"], "parameters": parameters, "responses": answers}
        paths[f"/api/{part}/{name}"] = {method: operation}
    host = urlsplit(address).netloc
    head = {"swagger": "2.0", "info": {"title": part, "version": "1"}, "host": host, "schemes": ["http"]}
    return {**head, "produces": ["application/json"], "paths": paths, "definitions": definitions}


class NeptuneServer:
    """What the server holds.

    `runs` are by id; each has its custom id and its fields, a series of which is a list of (step, value, ms). `held`
    are the files that wait until `uploads_pass` is set.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.runs: dict[str, dict[str, Any]] = {}
        self.faults: list[str] = []
        self.is_away = threading.Event()
        self.is_closed_to_us = threading.Event()
        self.held: list[str] = []
        self.uploads_pass = threading.Event()
        self.uploads_pass.set()

    @property
    def token(self) -> str:
        """A key of this server."""
        return base64.b64encode(json.dumps({"api_address": self.address, "api_key": "k"}).encode()).decode()

    def answer(self, operation: str, query: dict[str, str], body: Any) -> Any:
        handlers: dict[str, Any] = {
            "getClientConfig": lambda: {"apiUrl": self.address, "applicationUrl": self.address},
            "exchangeApiToken": lambda: {"accessToken": self._jwt(), "refreshToken": "r"},
            "getProject": lambda: self._project(query["projectIdentifier"]),
            "createExperiment": lambda: self._create(body),
            "getExperiment": lambda: self._experiment(query["experimentId"].rpartition("/")[2]),
            "getExperimentAttributes": lambda: {"attributes": []},
            "executeOperations": lambda: self._execute(self.runs[query["experimentId"]]["fields"], body),
            "fileAtomUpload": lambda: self._upload(query, body),
            "ping": dict,
            "token": lambda: {"access_token": self._jwt(), "refresh_token": "r", "token_type": "bearer"},
        }
        return handlers[operation]()

    def _upload(self, query: dict[str, str], content: bytes) -> dict[str, list[str]]:
        if not self.uploads_pass.is_set():
            self.held.append(query["attribute"])
            self.uploads_pass.wait(_WAIT_S)
        self.runs[query["experimentIdentifier"]]["fields"][query["attribute"]] = content
        return {"errors": []}

    def _jwt(self) -> str:
        return jwt.encode({"exp": int(time.time()) + 3600, "azp": "cli", "iss": self.address}, "k" * 32)

    @staticmethod
    def _project(name: str) -> dict[str, Any]:
        workspace, _, project = name.partition("/")
        return {"id": name, "name": project, "organizationName": workspace, "projectKey": "VIS", "version": 2}

    def _create(self, params: dict[str, Any]) -> dict[str, Any]:
        custom_id = params["customId"]
        for run in self.runs.values():
            if run["custom_id"] == custom_id:
                return self._experiment(run["short_id"])
        short_id = f"VIS-{len(self.runs) + 1}"
        project = params["projectIdentifier"]
        run = {"custom_id": custom_id, "short_id": short_id, "project": project, "fields": {}}
        self.runs[str(uuid.uuid4())] = run
        return self._experiment(short_id)

    def _experiment(self, short_id: str) -> dict[str, Any]:
        ((run_id, run),) = ((key, run) for key, run in self.runs.items() if run["short_id"] == short_id)
        workspace, _, project = run["project"].partition("/")
        names = {"organizationName": workspace, "projectName": project}
        return {"id": run_id, "type": "run", "shortId": short_id, "trashed": False, **names}

    def _execute(self, fields: dict[str, Any], operations: list[dict[str, Any]]) -> list[dict[str, str]]:
        faults = []
        for operation in operations:
            path = operation.pop("path")
            ((kind, value),) = operation.items()
            if kind.startswith("assign"):
                (fields[path],) = value.values()
            elif kind == "logFloats":
                series = fields.setdefault(path, [])
                for entry in value["entries"]:
                    if series and entry["step"] <= series[-1][0]:
                        faults.append(f"X-coordinates (step) must be strictly increasing: {path}")
                    else:
                        series.append((entry["step"], entry["value"], entry["timestampMilliseconds"]))
        self.faults += faults
        return [{"errorDescription": fault} for fault in faults]


@contextmanager
def neptune_server() -> Iterator[NeptuneServer]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            url = urlsplit(self.path)
            length = int(self.headers.get("Content-Length") or 0)
            data = self.rfile.read(length)
            *_, part, name = url.path.split("/") if url.path.count("/") > 1 else ("", "", "")
            if neptune.is_away.is_set():
                status, answer = 503, {}
            elif neptune.is_closed_to_us.is_set() and name != "swagger.json":
                status, answer = 401, {}
            elif name == "swagger.json":
                status, answer = 200, _swagger(part, neptune.address)
            elif name and part in (*_OPERATIONS, "openid-connect"):
                is_json = name != "fileAtomUpload" and data.startswith((b"{", b"["))
                body = json.loads(data) if is_json else data or None
                query = {key: values[0] for key, values in parse_qs(url.query).items()}
                status, answer = 200, neptune.answer(name, query, body)
            else:
                status, answer = 404, {}
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = _handle

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        neptune = NeptuneServer(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield neptune
        finally:
            neptune.uploads_pass.set()
            server.shutdown()
            thread.join()
