"""Gathers what goes to MLflow in one request, and knows what the run there has already. On the backend's thread only.

A parameter of MLflow's can't be changed: the first value stays, and a later one goes to the tag
`tracelet.param_drift.<name>`, which is its newest.
"""

from __future__ import annotations

import json
from typing import Any, Final, final

from tracelet.backends._mlflow.api import MlflowApi, Point, RemoteRun
from tracelet.backends._mlflow.mapped import Mapped, Show
from tracelet.backends._mlflow.names import KEYS, MAX_TAG_CHARS, mark

_MAX_THINGS: Final = 1_000
_MAX_PARAMS_AND_TAGS: Final = 100  # Of each; together, so that a parameter may become a tag.
_MAX_MARKS: Final = 10_000
_DRIFT: Final = "tracelet.param_drift."
_TABLES: Final = "mlflow.loggedArtifacts"


@final
class KnownRun:
    """What is known of the run in MLflow; what is on its way is not."""

    def __init__(self, run: RemoteRun) -> None:
        self.params: dict[str, str] = {}  # The newest values.
        self.marks: dict[str, str] = {}
        self.tables: list[Any] = []
        self.learn(run)

    def learn(self, run: RemoteRun) -> None:
        """Take over what a run of MLflow's has; other processes may have put it there."""
        self.params = dict(run.params)
        for key, value in run.tags.items():
            if key.startswith(_DRIFT) and (name := KEYS.unescape(key)) is not None:
                self.params[KEYS.escape(name.removeprefix(_DRIFT))] = value
        try:
            self.tables = list(json.loads(run.tags.get(_TABLES, "[]")))
        except (ValueError, TypeError):  # Somebody else's; then there is no room for ours.
            self.tables = []


@final
class Request:
    """The records of a batch from `first` on, as far as they fit into one request.

    Args:
        first: The index in the batch of the first record in it.
    """

    def __init__(self, known: KnownRun, first: int) -> None:
        self.first = first
        self.metrics: list[Point] = []
        self.params: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self._known = known
        self._newest: dict[str, str] = {}
        self._names: dict[str, str] = {}
        self._marks: dict[str, str] = {}
        self._tables = list(known.tables)

    def add(self, found: Point | Mapped) -> bool:
        """Add a record whose files have been stored; False where it does not fit."""
        if isinstance(found, Point):
            has_room = len(self.metrics) + len(self.params) + len(self.tags) < _MAX_THINGS
            if has_room:
                self.metrics.append(found)
            return has_room
        others = len(self.params) + len(self.tags) + len(found.tags) + len(found.marks) + 2
        if others > _MAX_PARAMS_AND_TAGS or len(self.metrics) + others > _MAX_THINGS:
            return False
        if found.metric is not None:
            self.metrics.append(found.metric)
        if found.param is not None:
            self._add_param(*found.param)
        self.tags.update(found.tags)
        for key, value in found.marks.items():
            if self._known.marks.get(key) != value:
                self._marks[key] = self.tags[key] = value
        for upload in found.uploads:
            if upload.show is Show.AS_TABLE:
                self._add_table({"path": upload.path, "type": "table"})
        return True

    def give_way(self, run: RemoteRun) -> bool:
        """Turn the parameters that another process has set meanwhile into tags; whether there were any."""
        taken = self.params.keys() & run.params.keys()
        for key in taken:
            value = self.params.pop(key)
            if value != run.params[key]:
                self.tags.setdefault(mark(_DRIFT, self._names[key]), value)
        return bool(taken)

    def send(self, api: MlflowApi, run_id: str) -> None:
        """Send it, unless there is nothing in it; what has arrived is then known."""
        if self.metrics or self.params or self.tags:
            api.log_batch(run_id, self.metrics, self.params, self.tags)
        if len(self._known.marks) > _MAX_MARKS:  # A run with a name for each step keeps no memory here.
            self._known.marks.clear()
        self._known.marks |= self._marks
        self._known.params |= self._newest
        self._known.tables = self._tables

    def _add_param(self, name: str, key: str, value: str) -> None:
        newest = self._newest.get(key, self._known.params.get(key))
        if newest is None:
            self.params[key] = value
            self._names[key] = name
        elif newest != value:
            self.tags[mark(_DRIFT, name)] = value
        self._newest[key] = value

    def _add_table(self, entry: dict[str, str]) -> None:
        text = json.dumps([*self._tables, entry])
        if entry not in self._tables and len(text) <= MAX_TAG_CHARS:
            self._tables.append(entry)
            self.tags[_TABLES] = text
