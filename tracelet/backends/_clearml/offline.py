"""A task as an offline session of ClearML: a directory that `Task.import_offline_session` takes to a server.

Every call on the backend's thread; ClearML itself is not imported. Files, as its client writes them:

    task.json       the task: name, tags, hyperparameters, artifacts, models, …
    metrics.jsonl   points, plots and debug samples; a list of events a line
    log.jsonl       console lines, the same
    data/           the files of samples, artifacts and models

Guarantee: what a call brought is in the kernel's hands when it returns. A line that a kill or a full disk cut short is
removed before the next one is written, since it would end the import.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, final

from tracelet.backends._base import RunFacts
from tracelet.backends._clearml.artifacts import Artifact, Model
from tracelet.backends._clearml.names import PROPERTIES
from tracelet.backends._clearml.settings import ClearMLSettings
from tracelet.backends._clearml.task import STATUS_PROPERTY, ClearMLTask, weights_name
from tracelet.core.changes import StoredPoint
from tracelet.journal.directory import make_private_directory, write_atomically

TASK_FILE: Final = "task.json"
METRICS_FILE: Final = "metrics.jsonl"
LOG_FILE: Final = "log.jsonl"
_TAIL_BYTES: Final = 65_536


@final
class OfflineSession(ClearMLTask):
    """See the module docstring."""

    def __init__(self, facts: RunFacts, settings: ClearMLSettings) -> None:
        super().__init__(facts, settings)
        self.id = f"offline-{facts.run_uuid}"
        self.folder = Path(settings.offline_dir or facts.state_dir, self.id).absolute()
        self._task: dict[str, Any] = {}

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
        if self._task["hyperparams"][PROPERTIES].pop(STATUS_PROPERTY, None):
            self._save()

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
            _append(self.folder / METRICS_FILE, points)
        if lines:
            _append(self.folder / LOG_FILE, lines)

    def edit_params(self, params: Sequence[Mapping[str, str]]) -> None:
        """The others stay."""
        for param in params:
            self._task["hyperparams"].setdefault(param["section"], {})[param["name"]] = dict(param)
        self._save()

    def edit(self, fields: Mapping[str, Any]) -> None:
        """As a server does it."""
        for name, value in fields.items():
            self._task[name] = {**self._task.get(name, {}), **value} if isinstance(value, Mapping) else value
        self._save()

    def add_tags(self, words: Sequence[str]) -> None:
        """Each once."""
        if not set(words) <= set(self._task["tags"]):
            self._task["tags"] = list(dict.fromkeys([*self._task["tags"], *words]))
            self._save()

    def add_artifact(self, artifact: Mapping[str, Any]) -> None:
        """In the place of one with the same key."""
        artifacts = self._task["execution"]["artifacts"]
        artifacts[:] = [*(other for other in artifacts if other["key"] != artifact["key"]), artifact]
        self._save()

    def add_model(self, artifact: Artifact, model: Model) -> None:
        """As the import gives it to ClearML's `OutputModel` and its `update_weights`.

        That one uploads only where it is told to, and leaves the file on this disk else, while the import takes an
        artifact to the files server: so it is an artifact where no destination is known.
        """
        destination = self.settings.output_uri or self.settings.files_host
        if destination is None:
            self.add_artifact(self.store_artifact(artifact))
            return
        models = self._task["offline_output_models"]
        if any(other["init"]["name"] == artifact.key for other in models):
            return
        uri = self.store_weights(artifact)
        place = "register_uri" if isinstance(artifact.source, str) else "weights_filename"
        name = weights_name(artifact, Path(uri).suffix)
        for other in models:
            if other["family"] == model.family:  # An alias is at one version at a time.
                other["init"]["tags"] = [tag for tag in other["init"]["tags"] if tag not in model.tags]
        # ClearML guesses a framework that it is not told: TensorFlow for every zip.
        told = {"framework": model.framework or "Custom", "tags": model.tags, "comment": model.described()[0]}
        flags = {"is_package": artifact.is_directory, "update_comment": False, "async_enable": False}
        models.append(
            {
                "id": f"offline-{name}",
                "family": model.family,
                "init": {"name": artifact.key, **told},
                "weights": {place: uri, "target_filename": name, **flags},
                "output_uri": destination,
            }
        )
        self._task["output_dest"] = destination  # The import wants the task to have one.
        self._save()

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
        """Nothing is kept open."""

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

    def _save(self) -> None:
        task = {**self._task, "offline_folder": str(self.folder)}
        write_atomically(self.folder / TASK_FILE, json.dumps(task, indent=1, sort_keys=True) + "\n")


def _append(path: Path, events: Sequence[Mapping[str, Any]]) -> None:
    line = json.dumps(events, allow_nan=False) + "\n"
    with open(path, "a+b") as file:
        file.truncate(_end_of_lines(file.fileno(), file.seek(0, os.SEEK_END)))
        file.write(line.encode("ascii"))


def _end_of_lines(descriptor: int, size_bytes: int) -> int:
    """Where the last whole line ends."""
    end = size_bytes
    while end:
        start = max(0, end - _TAIL_BYTES)
        newline = os.pread(descriptor, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0
