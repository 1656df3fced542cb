"""Brings a run to a task of ClearML, on a server or as an offline session to import.

Every call comes on the thread `tracelet-clearml`, in the order that `tracelet.core.plugins` tells; `handle_artifact` on
`tracelet-clearml-artifacts`; `plan` and `get_status` on any. Guarantee: what a batch holds is with the server, or in
the session's files, when `handle_batch` returns, and an artifact when `handle_artifact` does; what comes twice is there
once.

It speaks ClearML's REST API instead of using `Task.init`, which allows one task a process, is the user's own, makes
0.0 of a NaN, stamps the time of the call on each point, sends when it likes from threads of its own, and takes 10 s
and more to close. So there is no thread, no subprocess and no exit hook, an error is known where it happens, and
`Task.current_task()` stays what it was.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, final

from tracelet.backends._base import RunFacts
from tracelet.backends._clearml.names import NAMES, curve
from tracelet.backends._clearml.offline import OfflineSession
from tracelet.backends._clearml.online import OnlineTask
from tracelet.backends._clearml.records import Parcel
from tracelet.backends._clearml.settings import ClearMLSettings, connection
from tracelet.backends._clearml.task import ClearMLTask
from tracelet.core.changes import Change, StoredPoint
from tracelet.core.plugins import BackendPlugin, PluginMetadata, PluginType
from tracelet.core.records import STATUS_NAME, MetricData, MetricType
from tracelet.delivery.state import RemoteState
from tracelet.errors import PermanentError

_MODE: Final = "mode"
_MAX_NAMES: Final = 1000  # Escaped names whose true ones are kept beside them: a task's document holds 16 MiB.
_SILENCE_S: Final = 3600.0  # After two hours the server takes a task for dead, and stops it.


@final
class ClearMLBackend(BackendPlugin):
    """See the module docstring, and docs/backends/clearml.md for the settings."""

    uploads_aside: ClassVar[bool] = True

    _task: ClearMLTask | None = None
    _lane: ClearMLTask | None = None  # The same task, for artifacts.
    _mode: str | None = None

    def __init__(self) -> None:
        self._is_running = False  # As the server has it.
        self._last_batch_s = 0.0  # By the monotonic clock.
        self._names: set[str] = set()

    @classmethod
    def get_metadata(cls) -> PluginMetadata:
        """Needs ClearML's own package, for its configuration and its storage."""
        return PluginMetadata(
            name="clearml",
            version="1.0.0",
            type=PluginType.BACKEND,
            description="A task of ClearML, on a server or offline",
            author="Tracelet",
            dependencies=["clearml>=2.1"],
            capabilities={"metrics", "parameters", "artifacts", "timestamps", "idempotent", "one_value_a_step"},
        )

    @classmethod
    def validate_config(cls, config: Mapping[str, Any]) -> None:
        """Check the settings; whether there are keys is seen by `initialize`."""
        ClearMLSettings.parse("clearml", config)

    def initialize(self, config: dict[str, Any]) -> None:
        """Choose between a server and an offline session, and find or make the run's task.

        Raises:
            PermanentError: The server refuses the keys, or the run has begun in the other mode.
        """
        self.stop()
        settings, facts = ClearMLSettings.parse("clearml", config), RunFacts.of(config)
        remembered = RemoteState(facts.state_dir)
        began_as = remembered[_MODE]
        if settings.mode is None and began_as == "offline":  # Not half here and half there.
            settings = settings.model_copy(update={_MODE: began_as})
        server = connection(settings)
        mode = "offline" if server is None else "online"
        if began_as not in (None, mode):
            raise PermanentError(
                f"the ClearML task of this run is {began_as}, and the mode is {mode} now. Set the mode "
                f"'{began_as}'; or remove the directory {facts.state_dir} and use 'tracelet sync' to send all of the "
                "run once more"
            )
        task: ClearMLTask = OfflineSession(facts, settings)
        if server is not None:
            task = OnlineTask(facts, settings, server, remembered)
        task.open()
        remembered.update({_MODE: mode})
        self._task, self._lane, self._mode = task, task.beside(), mode
        self._names.clear()

    def start(self) -> None:
        """Show the task as running."""
        assert self._task is not None
        self._task.set_running()
        self._is_running, self._last_batch_s = True, time.monotonic()

    def stop(self) -> None:
        """Close the connections. The task's status came with its last record, if the run has ended."""
        for task in filter(None, (self._task, self._lane)):
            task.close()

    def get_status(self) -> dict[str, Any]:
        """Where the task is."""
        task = self._task
        return {"mode": self._mode, "task_id": task and task.id, "url": task and task.url}

    def get_url(self) -> str | None:
        """The page of the task, or the directory of the offline session."""
        return None if self._task is None else self._task.url

    def plan(self, metric: MetricData) -> Sequence[Change]:
        """From the same code that makes what is sent."""
        parcel = Parcel()
        parcel.add(metric)
        return parcel.changes

    def read_back(self, name: str) -> Sequence[StoredPoint] | None:
        """From a server; an offline session is not read."""
        return None if self._task is None else self._task.points(*curve(name))

    def handle_metric(self, metric: MetricData) -> None:
        """Take one record."""
        self.handle_batch([metric])

    def handle_batch(self, metrics: Sequence[MetricData]) -> None:
        """Send what the records become; files first, since events and artifacts name their places.

        Raises:
            RetryableError, OSError: The server is away; all of it may come again.
            RejectedError: A file is gone, or the server refuses a value.
            PermanentError: The server refuses the keys; the task was deleted or published.
        """
        assert self._task is not None
        if not metrics:
            return
        now_s = time.monotonic()
        if not self._is_running or now_s - self._last_batch_s > _SILENCE_S:
            self._task.set_running()
        self._is_running, self._last_batch_s = True, now_s
        parcel = Parcel()
        for metric in metrics:
            parcel.add(metric)
        self._send(self._task, parcel)
        self._end(self._task, metrics[-1])

    def handle_artifact(self, metric: MetricData) -> None:
        """Store one artifact, while other records are sent. Raises as `handle_batch`."""
        assert self._lane is not None
        parcel = Parcel()
        parcel.add(metric)
        _store(self._lane, parcel)

    def _send(self, task: ClearMLTask, parcel: Parcel) -> None:
        samples = [task.store_sample(sample) for sample in parcel.samples]
        if events := parcel.events + samples:
            task.add_events(events)
        # Of each name once, the last value; and no true name that is there already.
        params = {(param["section"], param["name"]): param for param in parcel.params}
        names = {name for section, name in params if section == NAMES}
        for name in names & self._names if len(self._names) < _MAX_NAMES else names:
            del params[NAMES, name]
        if params:
            task.edit_params(list(params.values()))
            self._names |= names
        if parcel.tags:
            task.add_tags(parcel.tags)
        if parcel.fields:
            task.edit(parcel.fields)
        _store(task, parcel)

    def _end(self, task: ClearMLTask, last: MetricData) -> None:
        """A status that ends a batch may be the run's: sent at once, so that an outage is waited for.

        Should records come after it (a resumed run has one for each attempt), the task is shown as running again.
        """
        if last.type is MetricType.CUSTOM and last.name == STATUS_NAME:
            task.set_status(str(last.value), str((last.metadata or {}).get("error") or ""))
            self._is_running = False


def _store(task: ClearMLTask, parcel: Parcel) -> None:
    for artifact in parcel.artifacts:
        if artifact.model is None:
            task.add_artifact(task.store_artifact(artifact))
        else:
            task.add_model(artifact, artifact.model)
