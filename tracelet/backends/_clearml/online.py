"""A task on a ClearML server, over its REST API. For one thread; `beside` gives one for another.

Guarantee: one task a run. Its id is kept in `RemoteState`, and its user property `tracelet:run` finds it where a kill
came between the two. No background thread, no exit hook, nothing of the user's own `Task` is touched.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, final

from tracelet.backends._base import RunFacts
from tracelet.backends._clearml.api import ApiError, ClearMLApi
from tracelet.backends._clearml.artifacts import Artifact, Model
from tracelet.backends._clearml.models import OutputModels
from tracelet.backends._clearml.names import PROPERTIES
from tracelet.backends._clearml.settings import ClearMLSettings, Connection
from tracelet.backends._clearml.storage import upload
from tracelet.backends._clearml.task import RUN_PROPERTY, ClearMLTask
from tracelet.core.changes import StoredPoint
from tracelet.delivery.state import RemoteState
from tracelet.errors import PermanentError

TASK_ID: Final = "task_id"
_NO_SUCH_TASK: Final = {10, 101, 130}  # ClearML's numbers within HTTP 400.
_WRONG_STATUS: Final = range(110, 115)
_ENDS: Final = {"finished": "completed", "failed": "failed", "killed": "stopped"}
_PAGE: Final = 10_000  # Points that the server gives at once.
_POINTS_VERSION: Final = "2.22"  # The first in which the points of one curve can be asked for.


@final
class OnlineTask(ClearMLTask):
    """See the module docstring."""

    def __init__(
        self, facts: RunFacts, settings: ClearMLSettings, connection: Connection, remembered: RemoteState
    ) -> None:
        super().__init__(facts, settings)
        self._api = ClearMLApi(connection)
        self._remembered = remembered
        self._project_id = ""
        self._tags: set[str] = set()

    @property
    def url(self) -> str | None:
        """The page of its curves and samples."""
        host = self._api.connection.web_host
        return f"{host}/projects/{self._project_id or '*'}/experiments/{self.id}/output/log" if self.id else None

    def open(self) -> None:
        """Find the task by its kept id, or by the run's uuid; or make it.

        Raises:
            PermanentError: It was deleted, or published: then ClearML takes nothing more.
        """
        kept = self._remembered[TASK_ID]
        query = {"id": [kept]} if kept else {f"hyperparams.{PROPERTIES}.{RUN_PROPERTY}.value": [self.facts.run_uuid]}
        wanted = {"only_fields": ["id", "status", "project", "tags"], "order_by": ["created"], "search_hidden": True}
        found = self._api.call("tasks.get_all", {**query, **wanted})["tasks"]
        if kept and not found:
            raise PermanentError(
                f"the ClearML task {kept} of this run is gone. To send the run to a new one, remove the directory "
                f"{self.facts.state_dir} and use 'tracelet sync'"
            )
        if found and found[0].get("status") in ("published", "publishing"):
            raise PermanentError(f"the ClearML task {found[0]['id']} is published, and takes nothing more")
        if found:
            self.id, self._project_id = found[0]["id"], found[0].get("project") or ""
            self._tags = set(found[0].get("tags") or ())
        else:
            self._project_id = self._find_project()
            self.id = self._create()
        self._remembered.update({TASK_ID: self.id})

    def set_running(self) -> None:
        """Also after it had ended."""
        self._call("tasks.started", force=True, status_reason="Tracelet")

    def set_status(self, status: str, error: str) -> None:
        """`killed` is ClearML's `stopped`, which its pages call aborted; the reason has our word."""
        message = error.strip().rpartition("\n")[2]
        action = f"tasks.{_ENDS.get(status, 'stopped')}"
        self._call(action, force=True, status_reason=status, status_message=message)

    def add_events(self, events: Sequence[dict[str, Any]]) -> None:
        """The server knows a point by task, iteration, title and series: it keeps one of each, the last."""
        try:
            self._api.add_events([{"worker": self._api.worker, **event, "task": self.id} for event in events])
        except ApiError as error:
            if f"Invalid task id {self.id}" in str(error) or error.subcode in _NO_SUCH_TASK:
                raise PermanentError(f"the ClearML task {self.id} was deleted or published: {error}") from error
            raise

    def edit_params(self, params: Sequence[Mapping[str, str]]) -> None:
        """The others stay."""
        self._while_running(lambda: self._call("tasks.edit_hyper_params", hyperparams=params, force=True))

    def edit(self, fields: Mapping[str, Any]) -> None:
        """In any status."""
        self._call("tasks.edit", force=True, **fields)

    def add_tags(self, words: Sequence[str]) -> None:
        """Those that somebody gave it on ClearML's pages stay."""
        if self._tags.issuperset(words):
            return
        (task,) = self._api.call("tasks.get_all", {"id": [self.id], "only_fields": ["tags"]})["tasks"]
        tags = list(dict.fromkeys([*(task.get("tags") or ()), *words]))
        self.edit({"tags": tags})
        self._tags = set(tags)

    def add_artifact(self, artifact: Mapping[str, Any]) -> None:
        """The server knows it by its key."""
        self._while_running(lambda: self._call("tasks.add_or_update_artifacts", artifacts=[artifact], force=True))

    def add_model(self, artifact: Artifact, model: Model) -> None:
        """See `OutputModels`."""
        models = OutputModels(self._call, self.id, self._project_id)
        self._while_running(lambda: models.add(artifact, model, lambda: self.store_weights(artifact)))

    def store(self, key: str, source: Path | bytes) -> str:
        """On ClearML's files server, or where `output_uri` says."""
        destination = self._api.connection.output_uri
        if destination == self._api.connection.files_host:
            return self._api.upload(key, source)
        return upload(destination, key, source, self.facts.state_dir)

    def points(self, title: str, series: str) -> list[StoredPoint] | None:
        """By pages, each iteration once; None of a server before API 2.22."""
        query = {"task": self.id, "event_type": "training_stats_scalar", "batch_size": _PAGE, "order": "asc"}
        query["metrics"] = [{"metric": title, "variants": [series]}]
        points: dict[int, StoredPoint] = {}
        while True:
            try:
                page = self._api.call("events.get_task_events", query, _POINTS_VERSION)
            except ApiError as error:
                if error.subcode == 2:  # The version is unknown.
                    return None
                raise
            known = len(points)
            for event in page["events"]:
                points[event["iter"]] = StoredPoint(event["iter"], event["value"], event["timestamp"] / 1000)
            if len(points) == known:  # Nothing new: the last page may be given again and again.
                return sorted(points.values())
            query["scroll_id"] = page.get("scroll_id")

    def beside(self) -> OnlineTask:
        """With connections of its own."""
        other = copy.copy(self)
        other._api = ClearMLApi(self._api.connection)  # noqa: SLF001 - of its own class
        return other

    def close(self) -> None:
        """The task goes on running, for somebody else or for later."""
        self._api.close()

    def _call(self, endpoint: str, **body: Any) -> dict[str, Any]:
        try:
            return self._api.call(endpoint, {"task": self.id, **body})
        except ApiError as error:
            if error.subcode in _NO_SUCH_TASK:
                raise PermanentError(f"the ClearML task {self.id} is gone: {error}") from error
            raise

    def _while_running(self, call: Callable[[], object]) -> None:
        """The server takes these for a running task only, and stops one that says nothing for two hours."""
        try:
            call()
        except ApiError as error:
            if error.subcode not in _WRONG_STATUS:
                raise
            self.set_running()
            call()

    def _find_project(self) -> str:
        pattern = f"^{re.escape(self.project)}$"
        query = {"name": pattern, "only_fields": ["id", "name"], "search_hidden": True}
        for project in self._api.call("projects.get_all", query)["projects"]:
            if project["name"] == self.project:
                return str(project["id"])
        return str(self._api.call("projects.create", {"name": self.project, "description": ""})["id"])

    def _create(self) -> str:
        body = {
            "name": self.name,
            "project": self._project_id,
            "type": self.settings.task_type,
            "hyperparams": {PROPERTIES: self.properties()},
            "output_dest": self.settings.output_uri or "",
        }
        return str(self._api.call("tasks.create", body)["id"])
