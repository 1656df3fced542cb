"""A ClearML server on loopback, for the real client and for ours, and a reader of offline sessions.

It answers what both ask for, with the rules of the real server (its source, version 2.3): an event is known by the MD5
of `task-iteration-metric-variant-key`, a later one replaces it; a value that 32 bits can't hold fails its batch with
500; names have three characters; artifacts and hyperparameters want a running task; a published task takes nothing;
two models may have one name.
"""

from __future__ import annotations

import base64
import contextlib
import email
import hashlib
import http.server
import json
import re
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ACCESS_KEY, SECRET_KEY = "the access key", "the secret key"
LARGEST_FLOAT32 = 3.4028235677973366e38
_WAIT_S = 60.0
ENDS = {"completed": "completed", "failed": "failed", "stopped": "stopped", "stop": "stopped", "close": "closed"}


class Refusal(Exception):
    """An answer other than 200."""

    def __init__(self, code: int, subcode: int, message: str) -> None:
        super().__init__(message)
        self.code, self.subcode, self.message = code, subcode, message


class ClearMLService:
    """The API, the files server and the pages under one address; `with` starts and ends it.

    `held` are the files that wait until `uploads_pass` is set.
    """

    def __init__(self) -> None:
        self.tasks: dict[str, dict[str, Any]] = {}
        self.projects: dict[str, str] = {}
        self.models: dict[str, dict[str, Any]] = {}
        self.events: dict[str, dict[str, Any]] = {}
        self.logs: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.calls: list[str] = []
        self.refusal: tuple[str, Refusal] | None = None
        self.tokens: set[str] = set()
        self.held: list[str] = []
        self.uploads_pass = threading.Event()
        self.uploads_pass.set()
        self._lock = threading.Lock()
        self._port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def settings(self) -> dict[str, Any]:
        """For the backend."""
        hosts = dict.fromkeys(("api_host", "web_host", "files_host"), self.url)
        return {"mode": "online", **hosts, "access_key": ACCESS_KEY, "secret_key": SECRET_KEY}

    @property
    def environment(self) -> dict[str, str]:
        """For ClearML's own client."""
        hosts = {f"CLEARML_{kind}_HOST": self.url for kind in ("API", "WEB", "FILES")}
        return {**hosts, "CLEARML_API_ACCESS_KEY": ACCESS_KEY, "CLEARML_API_SECRET_KEY": SECRET_KEY}

    def __enter__(self) -> ClearMLService:
        self._server = _Server(("127.0.0.1", self._port), _handler(self))
        self._port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.uploads_pass.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """Nobody listens at the address."""
        self.__exit__()
        yield
        self.__enter__()

    @contextlib.contextmanager
    def refusing(self, endpoint: str, code: int, subcode: int = 0) -> Iterator[None]:
        """One endpoint answers with an error."""
        self.refusal = (endpoint, Refusal(code, subcode, "refused by the test"))
        yield
        self.refusal = None

    def only_task(self) -> dict[str, Any]:
        (task,) = self.tasks.values()
        return task

    def stored(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events.values() if event["type"] == kind]

    # -- the API -------------------------------------------------------------------------------------------------------

    def answer(self, endpoint: str, body: bytes, authorization: str) -> Any:
        self.calls.append(endpoint)
        if self.refusal and self.refusal[0] == endpoint:
            raise self.refusal[1]
        if endpoint == "auth.login":
            return self._log_in(authorization)
        if authorization.removeprefix("Bearer ") not in self.tokens:
            raise Refusal(401, 30, "invalid token")
        if endpoint == "events.add_batch":
            return self._add_events([json.loads(line) for line in body.splitlines() if line.strip()])
        service, _, action = endpoint.partition(".")
        made = getattr(self, f"_{service}_{action}", None)
        return made(json.loads(body or b"{}")) if made else self._change_status(action, json.loads(body or b"{}"))

    def _log_in(self, authorization: str) -> dict[str, Any]:
        keys = base64.b64encode(f"{ACCESS_KEY}:{SECRET_KEY}".encode()).decode()
        if authorization != f"Basic {keys}":
            raise Refusal(401, 22, "invalid credentials")
        claims = {
            "exp": int(time.time()) + 86_400,
            "api_version": "2.30",
            "server_version": "2.3.0",
            "id": uuid.uuid4().hex,
        }
        parts = ({"alg": "HS256", "typ": "JWT"}, claims, "signature")
        token = ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts)
        self.tokens.add(token)
        return {"token": token}

    def _projects_get_all(self, query: dict[str, Any]) -> Any:
        found = [(name, key) for name, key in self.projects.items() if re.search(query.get("name", ""), name)]
        return {"projects": [{"id": key, "name": name} for name, key in found]}

    _projects_get_all_ex = _projects_get_all

    def _projects_create(self, body: dict[str, Any]) -> Any:
        _require_name(body["name"])
        self.projects[body["name"]] = uuid.uuid4().hex
        return {"id": self.projects[body["name"]]}

    def _projects_get_by_id(self, body: dict[str, Any]) -> Any:
        (name,) = (name for name, key in self.projects.items() if key == body["project"])
        return {"project": {"id": body["project"], "name": name}}

    def _tasks_create(self, body: dict[str, Any]) -> Any:
        _require_name(body["name"])
        key = uuid.uuid4().hex
        now = time.strftime("%Y-%m-%dT%H:%M:%S.000000+00:00", time.gmtime())
        self.tasks[key] = {**body, "id": key, "status": "created", "user": "u", "company": "c", "created": now}
        return {"id": key}

    def _tasks_get_by_id(self, body: dict[str, Any]) -> Any:
        return {"task": self._existing(body)}

    def _tasks_get_all(self, query: dict[str, Any]) -> Any:
        found = list(self.tasks.values())
        if "id" in query:
            found = [task for task in found if task["id"] in query["id"]]
        for path, values in query.items():
            if path.startswith("hyperparams."):
                _, section, name, _ = path.split(".")
                found = [
                    task
                    for task in found
                    if task.get("hyperparams", {}).get(section, {}).get(name, {}).get("value") in values
                ]
        return {"tasks": found}

    _tasks_get_all_ex = _tasks_get_all

    def _tasks_edit(self, body: dict[str, Any]) -> Any:
        task = self._existing(body)
        for name, value in body.items():
            if name == "output_dest":
                task["output"] = {"destination": value}
            elif name not in ("task", "force"):
                is_merged = name in ("script", "execution") and isinstance(task.get(name), dict)
                task[name] = {**task[name], **value} if is_merged else value
        return {"updated": 1, "fields": {}}

    _tasks_update = _tasks_edit

    def _tasks_edit_hyper_params(self, body: dict[str, Any]) -> Any:
        task = self._existing(body)
        if any(param["section"].lower() != "properties" for param in body["hyperparams"]):
            self._require_running(task)
        for param in body["hyperparams"]:
            if "__" in param["section"] or not param["name"] or not isinstance(param["value"], str):
                raise Refusal(500, 0, f"the database can't have {param}")
            task.setdefault("hyperparams", {}).setdefault(param["section"], {})[param["name"]] = param
        return {"updated": 1}

    def _tasks_add_or_update_artifacts(self, body: dict[str, Any]) -> Any:
        task = self._existing(body)
        self._require_running(task)
        kept = {artifact["key"]: artifact for artifact in task.setdefault("execution", {}).get("artifacts", [])}
        kept |= {artifact["key"]: artifact for artifact in body["artifacts"]}
        task["execution"]["artifacts"] = list(kept.values())
        return {"updated": 1}

    def _tasks_add_or_update_model(self, body: dict[str, Any]) -> Any:
        """The task knows its models by the names that they have there."""
        assert body["model"] in self.models
        outputs = self._existing(body).setdefault("models", {"input": [], "output": []})[body["type"]]
        entry = {"name": body["name"], "model": body["model"]}
        outputs[:] = [*(other for other in outputs if other["name"] != body["name"]), entry]
        return {"updated": 1}

    def _models_create(self, body: dict[str, Any]) -> Any:
        _require_name(body["name"])
        key = uuid.uuid4().hex
        self.models[key] = {"id": key, "labels": {}, "metadata": {}, "tags": [], "system_tags": []}
        self._models_edit({**body, "model": key})
        return {"id": key, "created": True}

    def _models_edit(self, body: dict[str, Any]) -> Any:
        """Metadata comes as a list, and is given as a dict."""
        fields = {name: value for name, value in body.items() if name != "model"}
        if "metadata" in fields:
            assert all(isinstance(item["value"], str) for item in fields["metadata"])
            fields["metadata"] = {item["key"]: item for item in fields["metadata"]}
        self.models[body["model"]].update(fields)
        return {"updated": 1, "fields": {}}

    def _models_get_by_id(self, body: dict[str, Any]) -> Any:
        return {"model": self.models[body["model"]]}

    def _models_get_all(self, query: dict[str, Any]) -> Any:
        found = [one for one in self.models.values() if re.search(query.get("name") or "", one["name"])]
        for name in ("id", "task"):
            if query.get(name):
                found = [one for one in found if one.get(name) in query[name]]
        if query.get("tags"):
            found = [one for one in found if set(query["tags"]) & set(one["tags"])]
        return {"models": found}

    def _tasks_started(self, body: dict[str, Any]) -> Any:
        return {**self._change_status("in_progress", body), "started": 1}

    def _events_get_task_events(self, query: dict[str, Any]) -> Any:
        """As the real server, the first page is given again where its last iteration is 0."""
        wanted = {(metric["metric"], variant) for metric in query["metrics"] for variant in metric["variants"]}
        found = [event for event in self.stored(query["event_type"]) if (event["metric"], event["variant"]) in wanted]
        after = int(query.get("scroll_id") or 0)
        page = sorted((event for event in found if not after or event["iter"] > after), key=lambda event: event["iter"])
        page = page[: query["batch_size"]]
        return {"events": page, "returned": len(page), "scroll_id": str(page[-1]["iter"] if page else after)}

    def _change_status(self, action: str, body: dict[str, Any]) -> dict[str, Any]:
        if "task" not in body:
            return {}
        status = ENDS.get(action, action)
        reasons = {name: body.get(name, "") for name in ("status_reason", "status_message")}
        self._existing(body).update({"status": status, **reasons} if status in {*ENDS.values(), "in_progress"} else {})
        return {"updated": 1, "fields": {"status": status}}

    def _add_events(self, events: list[dict[str, Any]]) -> dict[str, Any]:
        for event in events:
            task = self.tasks.get(event["task"])
            if task is None or task["status"] in ("published", "publishing"):
                raise Refusal(400, 131, f"Events not added: Invalid task id {event['task']}=1")
            if abs(event.get("value", 0.0)) >= LARGEST_FLOAT32:
                raise Refusal(500, 100, "[float] supports only finite values")
        with self._lock:
            self.logs += [event for event in events if event["type"] == "log"]
            for event in events:
                if event["type"] != "log":
                    self.events[event_id(event)] = event
        return {"added": len(events), "errors": 0, "errors_info": {}}

    def _existing(self, body: dict[str, Any]) -> dict[str, Any]:
        if body["task"] not in self.tasks:
            raise Refusal(400, 101, "Invalid task id")
        return self.tasks[body["task"]]

    def _require_running(self, task: dict[str, Any]) -> None:
        if task["status"] not in ("created", "queued", "in_progress"):
            raise Refusal(400, 110, "Invalid task status")

    # -- the files server ----------------------------------------------------------------------------------------------

    def keep_files(self, content_type: str, body: bytes) -> None:
        message = email.message_from_bytes(f"Content-Type: {content_type}\r\n\r\n".encode() + body)
        for part in message.get_payload():
            name = part.get_param("name", header="content-disposition")
            if not self.uploads_pass.is_set():
                self.held.append(name)
                self.uploads_pass.wait(_WAIT_S)
            self.files[f"{self.url}/{name.lstrip('/')}"] = part.get_payload(decode=True)


def event_id(event: dict[str, Any]) -> str:
    """The real server's rule."""
    fields = [str(event[name]) for name in ("task", "iter", "metric", "variant", "key") if name in event]
    return hashlib.md5("-".join(fields).encode()).hexdigest()


def session_events(folder: Path) -> list[dict[str, Any]]:
    """The events of an offline session, as a server has them after the import."""
    path = folder / "metrics.jsonl"
    lines = path.read_text("ascii").splitlines() if path.exists() else []
    return list({event_id(event): event for line in lines for event in json.loads(line)}.values())


@contextlib.contextmanager
def blocked(folder: Path) -> Iterator[None]:
    """A file stands where the sessions should be: an offline session can't be written."""
    aside = folder.with_name("aside")
    if folder.exists():
        folder.rename(aside)
    folder.write_text("a file")
    yield
    folder.unlink()
    if aside.exists():
        aside.rename(folder)


def _require_name(name: str) -> None:
    if len(name.strip()) < 3:
        raise Refusal(400, 12, f"the name {name!r} is too short")


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def shutdown(self) -> None:
        """Also the connections that clients keep open."""
        super().shutdown()
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(2)

    def __init__(self, *arguments: Any) -> None:
        self.connections: set[Any] = set()
        super().__init__(*arguments)


def _handler(service: ClearMLService) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # It would wait 40 ms for the client with the body of each answer.

        def setup(self) -> None:
            super().setup()
            self.server.connections.add(self.connection)

        def finish(self) -> None:
            self.server.connections.discard(self.connection)
            with contextlib.suppress(OSError):
                super().finish()

        def log_message(self, *arguments: Any) -> None:
            """Nothing."""

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = re.sub(r"^/v[\d.]+/", "/", self.path.split("?")[0])
            authorization = self.headers.get("Authorization") or ""
            code, subcode, message, data = 200, 0, "OK", None
            try:
                if path == "/":
                    if authorization.removeprefix("Bearer ") not in service.tokens:
                        raise Refusal(401, 30, "invalid token")
                    service.keep_files(self.headers["Content-Type"], body)
                else:
                    data = service.answer(path.strip("/"), body, authorization)
            except Refusal as refusal:
                code, subcode, message = refusal.code, refusal.subcode, refusal.message
            meta = {"result_code": code, "result_subcode": subcode, "result_msg": message, "error_stack": ""}
            meta |= {"id": "1", "trx": "1", "error_data": {}}
            meta["endpoint"] = {"name": path, "requested_version": "2.13", "actual_version": "2.13"}
            content = json.dumps({"meta": meta, "data": data}).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_GET(self) -> None:
            content = service.files.get(f"{service.url}{self.path}")
            if content is None:
                self.do_POST()
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_PUT = do_POST

    return Handler
