"""A task as an offline session of ClearML: a directory that `Task.import_offline_session` takes to a server.

For the backend's thread and that of its artifacts; ClearML itself is not imported. Files, as its client writes them:

    task.json       the task: name, tags, hyperparameters, artifacts, models, …
    metrics.jsonl   points, plots and debug samples; a list of events a line
    log.jsonl       console lines, the same
    data/           the files of samples, artifacts and models

Guarantee: what a call brought is in the kernel's hands when it returns. A line that a kill or a full disk cut short is
removed before the next one is written, since it would end the import. After `close` the task stays as it is.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, final

from tracelet.backends._base import RunFacts
from tracelet.backends._clearml.artifacts import Artifact, Model
from tracelet.backends._clearml.lines import append_line
from tracelet.backends._clearml.names import PROPERTIES
from tracelet.backends._clearml.settings import ClearMLSettings
from tracelet.backends._clearml.task import STATUS_PROPERTY, ClearMLTask, weights_name
from tracelet.core.changes import StoredPoint
from tracelet.errors import RetryableError
from tracelet.journal.directory import make_private_directory, write_atomically

TASK_FILE: Final = "task.json"
METRICS_FILE: Final = "metrics.jsonl"
LOG_FILE: Final = "log.jsonl"


@final
class OfflineSession(ClearMLTask):
    """See the module docstring."""

    def __init__(self, facts: RunFacts, settings: ClearMLSettings) -> None:
        super().__init__(facts, settings)
        self.id = f"offline-{facts.run_uuid}"
        self.folder = Path(settings.offline_dir or facts.state_dir, self.id).absolute()
        self._task: dict[str, Any] = {}
        self._lock = threading.Lock()  # Of the task, and of its file.
        self._is_closed = False

    @property
    def url(self) -> str | None:
        """The directory."""
        return self.folder.as_uri()

    def open(self) -> None:
        """Go on with the session of the run, or begin it."""
        make_private_directory(self.folder / "data")
        file = self.folder / TASK_FILE
        self._task = json.loads(file.read_bytes()) if file.exists() else self._new_task()
        self._save()

    def set_running(self) -> None:
        """A session has no status of its own: the import makes the task a completed one."""
        with self._changing() as task:
            task["hyperparams"][PROPERTIES].pop(STATUS_PROPERTY, None)

    def set_status(self, status: str, error: str) -> None:
        """As a user property, which the import keeps."""
        value = ": ".join(filter(None, [status, error.strip().rpartition("\n")[2]]))
        self.edit_params([{"section": PROPERTIES, "name": STATUS_PROPERTY, "value": value, "type": "str"}])

    def add_events(self, events: Sequence[dict[str, Any]]) -> None:
        """The server drops repetitions at the import."""
        points = [{**event, "task": self.id} for event in events if event["type"] != "log"]
        lines = [
            {"timestamp": event["timestamp"], "level": event["level"], "msg": event["msg"], "worker": "tracelet"}
            for event in events
            if event["type"] == "log"
        ]
        if points:
            append_line(self.folder / METRICS_FILE, points)
        if lines:
            append_line(self.folder / LOG_FILE, lines)

    def edit_params(self, params: Sequence[Mapping[str, str]]) -> None:
        """The others stay."""
        with self._changing() as task:
            for param in params:
                task["hyperparams"].setdefault(param["section"], {})[param["name"]] = dict(param)

    def edit(self, fields: Mapping[str, Any]) -> None:
        """As a server does it."""
        with self._changing() as task:
            for name, value in fields.items():
                task[name] = {**task.get(name, {}), **value} if isinstance(value, Mapping) else value

    def add_tags(self, words: Sequence[str]) -> None:
        """Each once."""
        if not set(words) <= set(self._task["tags"]):
            with self._changing() as task:
                task["tags"] = list(dict.fromkeys([*task["tags"], *words]))

    def add_artifact(self, artifact: Mapping[str, Any]) -> None:
        """In the place of one with the same key."""
        with self._changing() as task:
            artifacts = task["execution"]["artifacts"]
            artifacts[:] = [*(other for other in artifacts if other["key"] != artifact["key"]), artifact]

    def add_model(self, artifact: Artifact, model: Model) -> None:
        """As the import gives it to ClearML's `OutputModel` and its `update_weights`.

        That one uploads only where it is told to, and leaves the file on this disk else, while the import takes an
        artifact to the files server: so it is an artifact where no destination is known.
        """
        destination = self.settings.output_uri or self.settings.files_host
        if destination is None:
            self.add_artifact(self.store_artifact(artifact))
            return
        if any(other["init"]["name"] == artifact.key for other in self._task["offline_output_models"]):
            return
        uri = self.store_weights(artifact)
        place = "register_uri" if isinstance(artifact.source, str) else "weights_filename"
        name = weights_name(artifact, Path(uri).suffix)
        # ClearML guesses a framework that it is not told: TensorFlow for every zip.
        told = {"framework": model.framework or "Custom", "tags": model.tags, "comment": model.described()[0]}
        flags = {"is_package": artifact.is_directory, "update_comment": False, "async_enable": False}
        entry = {
            "id": f"offline-{name}",
            "family": model.family,
            "init": {"name": artifact.key, **told},
            "weights": {place: uri, "target_filename": name, **flags},
            "output_uri": destination,
        }
        with self._changing() as task:
            for other in task["offline_output_models"]:
                if other["family"] == model.family:  # An alias is at one version at a time.
                    other["init"]["tags"] = [tag for tag in other["init"]["tags"] if tag not in model.tags]
            task["offline_output_models"].append(entry)
            task["output_dest"] = destination  # The import wants the task to have one.

    def store(self, key: str, source: Path | bytes) -> str:
        """As a hard link where the disk can, else as a copy."""
        import shutil

        target = self.folder / "data" / key
        make_private_directory(target.parent)
        with suppress(FileNotFoundError):
            target.unlink()
        if isinstance(source, bytes):
            target.write_bytes(source)
        else:
            try:
                os.link(source, target)
            except OSError:
                shutil.copyfile(source, target)
        return str(target)

    def points(self, title: str, series: str) -> list[StoredPoint] | None:
        """An offline session is read by its import alone."""
        return None

    def close(self) -> None:
        """Nothing is kept open; but what is still being stored belongs to a later delivery, maybe another process's."""
        with self._lock:
            self._is_closed = True

    def _new_task(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "name": self.name,
            "project_name": self.project,
            "type": self.settings.task_type,
            "tags": [],
            "hyperparams": {PROPERTIES: self.properties()},
            "execution": {"artifacts": []},
            "offline_output_models": [],
        }

    @contextmanager
    def _changing(self) -> Iterator[dict[str, Any]]:
        """The task, for one thread at a time; it is saved when the block ends."""
        with self._lock:
            if self._is_closed:
                raise RetryableError("the delivery to ClearML was stopped")
            yield self._task
            self._save()

    def _save(self) -> None:
        task = {**self._task, "offline_folder": str(self.folder)}
        write_atomically(self.folder / TASK_FILE, json.dumps(task, indent=1, sort_keys=True) + "\n")
