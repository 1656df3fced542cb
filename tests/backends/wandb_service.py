"""Stands in for the service of Weights & Biases on the loopback: the real SDK and the real `wandb sync` talk to it."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import sys
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tracelet.backends.wandb_backend import WandbBackend

_WAIT_S = 60.0
KEY = "0123456789abcdef0123456789abcdef01234567"


def core_of(backend: WandbBackend) -> int:
    """The process id of the wandb-core of a backend that runs."""
    assert backend._process is not None
    parent = backend._process.pid
    (core,) = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return int(core)


def kill_core(backend: WandbBackend) -> None:
    """As the kernel does where memory is short."""
    if backend._process is not None:
        os.kill(core_of(backend), signal.SIGKILL)


@dataclass
class ServedRun:
    """What the service has of one run."""

    lines: dict[int, dict[str, Any]] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    exits: list[int] = field(default_factory=list)

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [self.lines[offset] for offset in sorted(self.lines)]


class WandbService:
    """A context manager.

    `refuse` is a status that every request is answered with; `loses_rows` one for rows alone. `fails` is the operation
    of the API that gives an error. `held` are the uploads of artifacts that wait until `uploads_pass` is set.
    """

    def __init__(self) -> None:
        self.runs: dict[str, ServedRun] = {}
        self.artifacts: list[dict[str, Any]] = []
        self.uses: list[dict[str, Any]] = []
        self.uploads: dict[str, bytes] = {}
        self.operations: Counter[str] = Counter()
        self.refuse: int | None = None
        self.loses_rows: int | None = None
        self.fails: str | None = None
        self.lock = threading.Lock()
        self.held: list[str] = []
        self.uploads_pass = threading.Event()
        self.uploads_pass.set()

    def __enter__(self) -> WandbService:
        handler = type("Handler", (_Handler,), {"service": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.uploads_pass.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def take_lines(self, run_id: str, body: dict[str, Any]) -> None:
        run = self.runs.setdefault(run_id, ServedRun())
        for name, chunk in (body.get("files") or {}).items():
            if name == "wandb-history.jsonl":
                for index, line in enumerate(chunk["content"]):
                    run.lines[chunk["offset"] + index] = json.loads(line)
            elif name == "wandb-summary.json":
                run.summary = json.loads(chunk["content"][-1])
        if body.get("complete"):
            run.exits.append(body["exitcode"])

    # -- operations of the GraphQL API, each with the variables that it comes with -------------------------------------

    def UpsertBucket(self, given: dict[str, Any]) -> dict[str, Any]:
        is_new = given["name"] not in self.runs
        run = self.runs.setdefault(given["name"], ServedRun())
        run.facts.update({name: value for name, value in given.items() if value is not None})
        if given.get("config"):
            run.config.update({key: entry["value"] for key, entry in json.loads(given["config"]).items()})
        run.tags = given.get("tags") or run.tags
        return {"upsertBucket": {"bucket": self._bucket(given["name"]), "inserted": is_new}}

    def RunResumeStatus(self, given: dict[str, Any]) -> dict[str, Any]:
        bucket = self._bucket(given["name"]) if given["name"] in self.runs else None
        return {"model": {**self._project(given), "bucket": bucket}}

    def CreateRunFiles(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"createRunFiles": {"runID": "cnVu", "uploadHeaders": [], "files": self._places(given["files"])}}

    def Viewer(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"viewer": {"id": "dQ==", "entity": "team", "username": "u", "flags": "{}", "teams": {"edges": []}}}

    def GetDefaultEntity(self, given: dict[str, Any]) -> dict[str, Any]:
        return self.Viewer(given)

    def Run(self, given: dict[str, Any]) -> dict[str, Any]:
        run = self.runs[given["name"]]
        last_step = max((row["_step"] for row in run.rows), default=-1)
        keys = {"lastStep": last_step, "sets": [], "keys": {}}
        rest = dict.fromkeys(("group", "jobType", "commit", "description", "notes", "systemMetrics", "sweepName"))
        times = {"createdAt": "2026-01-01T00:00:00Z", "heartbeatAt": "2026-01-01T00:00:00Z", "state": "finished"}
        user = {"name": "u", "username": "u"}
        bucket = {**self._bucket(given["name"]), **rest, **times, "projectId": "1", "readOnly": False, "user": user}
        return {"project": {"run": {**bucket, "historyKeys": keys}}}

    def RunHistoryKeys(self, given: dict[str, Any]) -> dict[str, Any]:
        return self.Run(given)

    def RunParquetHistory(self, given: dict[str, Any]) -> dict[str, Any]:
        steps = [{"_step": row["_step"]} for row in self.runs[given["runName"]].rows]
        return {"project": {"run": {"parquetHistory": {"parquetUrls": [], "liveData": steps}}}}

    def HistoryPage(self, given: dict[str, Any]) -> dict[str, Any]:
        rows = self.runs[given["run"]].rows
        wanted = [json.dumps(row) for row in rows if given["minStep"] <= row["_step"] < given["maxStep"]]
        return {"project": {"run": {"history": wanted}}}

    def ArtifactType(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"project": {"artifact": None}}

    def CreateArtifact(self, given: dict[str, Any]) -> dict[str, Any]:
        self.artifacts.append(given)
        artifact = {"id": f"artifact-{len(self.artifacts)}", "state": "PENDING", "artifactSequence": None}
        return {"createArtifact": {"artifact": artifact}}

    def ArtifactMembershipByName(self, given: dict[str, Any]) -> dict[str, Any]:
        name, _, alias = given["name"].partition(":")
        found = None
        for number, made in enumerate(self.artifacts, 1):
            if made["artifactCollectionName"] == name and alias in {one["alias"] for one in made["aliases"]}:
                found = (number, made)  # The alias is at the last one that was given it.
        place = {"name": name, "project": {**self._project(given), "internalId": "p"}}
        return {"project": {"artifactCollectionMembership": found and self._membership(place, *found)}}

    def UseArtifact(self, given: dict[str, Any]) -> dict[str, Any]:
        self.uses.append(given)
        return {"useArtifact": {"artifact": {"id": given["artifactID"]}}}

    def _membership(self, place: dict[str, Any], number: int, made: dict[str, Any]) -> dict[str, Any]:
        common = {"versionIndex": number, "createdAt": "2026-01-01T00:00:00Z"}
        empty = dict.fromkeys(("description", "historyStep", "commitHash", "updatedAt"))
        sizes = {"size": 1, "fileCount": 1, "ttlDurationSeconds": 0, "ttlIsInherited": False}
        facts = {"state": "COMMITTED", "digest": made["digest"], "metadata": made["metadata"], "tags": []}
        kind = {"name": made["artifactTypeName"]}
        collection = {"__typename": "ArtifactSequence", **place}
        artifact = {"id": f"artifact-{number}", "artifactSequence": collection, "artifactType": kind}
        artifact |= {"__typename": "Artifact", **common, **empty, **sizes, **facts}
        return {"id": "membership", **common, "aliases": [], "artifactCollection": collection, "artifact": artifact}

    def CreateArtifactManifest(self, given: dict[str, Any]) -> dict[str, Any]:
        file = {"id": "f", "name": given["name"], "displayName": given["name"], "uploadHeaders": []}
        place = {"uploadUrl": f"{self.url}/upload/manifest-{given['artifactID']}"}
        return {"createArtifactManifest": {"artifactManifest": {"id": "m", "file": {**file, **place}}}}

    def UpdateArtifactManifest(self, given: dict[str, Any]) -> dict[str, Any]:
        file = {"id": "f", "name": "m", "displayName": "m", "uploadHeaders": []}
        place = {"uploadUrl": f"{self.url}/upload/manifest-{given['artifactID']}"}
        return {"updateArtifactManifest": {"artifactManifest": {"id": "m", "file": {**file, **place}}}}

    def CreateArtifactFiles(self, given: dict[str, Any]) -> dict[str, Any]:
        nodes = []
        for spec in given["artifactFiles"]:
            place = {"uploadUrl": f"{self.url}/upload/artifact/{spec['name']}", "storagePath": "s", "uploadHeaders": []}
            nodes.append({"node": {**place, "uploadMultipartUrls": None, "artifact": {"id": spec["artifactID"]}}})
        return {"createArtifactFiles": {"files": {"edges": nodes}}}

    def ArtifactByID(self, given: dict[str, Any]) -> dict[str, Any]:
        number = int(given["id"].removeprefix("artifact-"))
        made = self.artifacts[number - 1]
        project = {**self._project({"project": made["projectName"]}), "internalId": "p"}
        place = {"name": made["artifactCollectionName"], "project": project}
        return {"artifact": {**self._membership(place, number, made)["artifact"], "aliases": []}}

    def CommitArtifact(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"commitArtifact": {"artifact": {"id": given["artifactID"], "digest": "d"}}}

    def _places(self, names: list[str]) -> list[dict[str, str]]:
        return [{"name": name, "uploadUrl": f"{self.url}/upload/{name}"} for name in names]

    def _project(self, given: Mapping[str, Any]) -> dict[str, Any]:
        return {"id": "cA==", "name": given["project"], "entity": {"id": "ZQ==", "name": "team"}}

    def _bucket(self, run_id: str) -> dict[str, Any]:
        run = self.runs[run_id]
        tail = [json.dumps(run.rows[-1])] if run.lines else []
        counts = {"historyLineCount": len(run.lines), "eventsLineCount": 0, "logLineCount": 0}
        texts = {"historyTail": json.dumps(tail), "eventsTail": "[]", "summaryMetrics": json.dumps(run.summary)}
        texts["config"] = json.dumps({key: {"value": value} for key, value in run.config.items()})
        names = {"id": "cnVu", "name": run_id, "displayName": run.facts.get("displayName") or run_id}
        return {
            **names,
            **counts,
            **texts,
            "tags": run.tags,
            "wandbConfig": '{"t": 1}',
            "project": self._project(run.facts),
        }


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # A client that has gone is no error.
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    service: WandbService
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        self._answer(404, {})

    def do_PUT(self) -> None:
        body = self._body()
        if self.path.startswith("/upload/artifact/") and not self.service.uploads_pass.is_set():
            self.service.held.append(self.path)
            self.service.uploads_pass.wait(_WAIT_S)
        with self.service.lock:
            self.service.uploads[self.path.removeprefix("/upload/")] = body
        self._answer(200, {})

    def do_POST(self) -> None:
        body = self._body()
        service = self.service
        stream = re.fullmatch(r"/files/[^/]*/[^/]*/([^/]*)/file_stream", self.path)
        refused = service.refuse or (service.loses_rows if stream else None)
        if refused:
            self._answer(refused, {"errors": [{"message": "refused by the test"}]})
        elif stream:
            with service.lock:
                service.take_lines(stream[1], json.loads(body))
            self._answer(200, {})
        elif self.path.startswith("/graphql"):
            request = json.loads(body)
            name = re.search(r"(?:query|mutation)\s+(\w+)", request["query"])
            with service.lock:
                service.operations[name[1] if name else "?"] += 1
                operation = getattr(service, name[1], None) if name else None
                variables = request.get("variables") or {}
                answer = operation(variables.get("input", variables)) if operation else {}
            is_failure = name is not None and name[1] == service.fails
            self._answer(200, {"errors": [{"message": "failed by the test"}]} if is_failure else {"data": answer})
        else:
            self._answer(404, {})

    def _body(self) -> bytes:
        data = self.rfile.read(int(self.headers.get("content-length") or 0))
        return gzip.decompress(data) if self.headers.get("content-encoding") == "gzip" else data

    def _answer(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
