"""Takes a run on to Neptune, through the API 1.x of its client.

Every call comes on the thread `tracelet-neptune`, in the order that `tracelet.core.plugins` tells; with a server,
artifacts on `tracelet-neptune-artifacts`. (Offline they are written as all else: no file is read.) Guarantee: when
`handle_batch` returns, its records are in the files of the client's queue (`offline`), or the server has acknowledged
them (`async`). A batch that comes again after a kill or an outage is written again, with the same steps; Neptune takes
ascending steps only, and so stores each point once.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from typing import Any, final

from tracelet.backends._base import RunFacts
from tracelet.backends._neptune.client import FEATURE, fork_guard
from tracelet.backends._neptune.fields import Field
from tracelet.backends._neptune.lane import NeptuneLane
from tracelet.backends._neptune.paths import NeptunePaths
from tracelet.backends._neptune.records import fields_of, status_fields
from tracelet.backends._neptune.session import NeptuneSession
from tracelet.backends._neptune.settings import NeptuneSettings
from tracelet.backends._neptune.writer import NeptuneWriter, delivered_fields
from tracelet.core.changes import Change
from tracelet.core.plugins import BackendPlugin, PluginMetadata, PluginType
from tracelet.core.records import DESCRIPTION_NAME, STATUS_NAME, MetricData
from tracelet.errors import RetryableError, SettingsError
from tracelet.utils.imports import missing, require


@final
class NeptuneBackend(BackendPlugin):
    """One run in Neptune, however often it is started. See `docs/backends/neptune.md`."""

    def __init__(self) -> None:
        self._run: Any = None  # The client's.
        self._session: NeptuneSession | None = None
        self._writer: NeptuneWriter | None = None
        self._paths: NeptunePaths | None = None
        self._lane: NeptuneLane | None = None  # With a server.
        self._lock = threading.Lock()  # Of all but the lane, for an artifact that was set aside for a server.
        self._has_ended = False  # As the last record said.
        self._unanswered: list[MetricData] = []  # In the client's queue; the server has not acknowledged them in time.

    @classmethod
    def get_metadata(cls) -> PluginMetadata:
        """Names no package: which one it needs is a setting, and `validate_config` looks for it."""
        return PluginMetadata(
            name="neptune",
            version="1.0.0",
            type=PluginType.BACKEND,
            description="Neptune, offline or with a server of its 1.x protocol",
            author="Tracelet",
            capabilities={"metrics", "parameters", "artifacts", "logging", "timestamps"},
        )

    @classmethod
    def validate_config(cls, config: Mapping[str, Any]) -> None:
        """Check the settings, and that the client is installed.

        Raises:
            SettingsError: A setting does not fit, or there is no key.
            MissingDependencyError: The client is not installed.
        """
        settings = NeptuneSettings.parse("neptune", config)
        if missing([settings.package]):
            require(settings.client, FEATURE)
        if settings.mode == "async" and not settings.token:
            raise SettingsError("the backend 'neptune' needs a key for mode = \"async\": set NEPTUNE_API_TOKEN")

    def initialize(self, config: dict[str, Any]) -> None:
        """Open the run in Neptune."""
        self.stop()  # After a failure, what has succeeded of it.
        settings, facts = NeptuneSettings.parse("neptune", config), RunFacts.of(config)
        self._session = session = NeptuneSession(settings, facts)
        self._run = session.run
        self._paths = paths = NeptunePaths(facts.state_dir)
        self.uploads_aside = settings.mode == "async"  # type: ignore[misc]  # each instance has its own
        self._lane = NeptuneLane(settings, facts, paths) if self.uploads_aside else None
        file_type = require(f"{settings.client}.types", FEATURE).File
        self._writer = NeptuneWriter(session.run, file_type, paths.place, paths, facts.state_dir / "files")

    def start(self) -> None:
        """Show the run as running."""
        self._has_ended = False
        self._write([(status_fields("running"), None)])
        self._active = True

    def stop(self) -> None:
        """Close the client's run. Whether the run has ended was the last record; without one it goes on some day."""
        with self._lock:
            session, self._session = self._session, None
            paths, self._paths = self._paths, None
            lane, self._lane = self._lane, None
            self._active = False
            self._run = self._writer = None
        try:
            if lane is not None:
                lane.close()
            if paths is not None:
                if not self._unanswered:
                    paths.commit()
                paths.close()
        finally:
            if session is not None:
                session.close()

    def get_status(self) -> dict[str, Any]:
        """The run's id in Neptune, and the folder of the client's queue."""
        session = self._session
        if session is None:
            return {"active": False, "run_id": None, "folder": None}
        return {"active": self._active, "run_id": session.remote_id, "folder": os.fspath(session.folder)}

    def get_url(self) -> str | None:
        """Where the server shows the run; None offline."""
        session = self._session
        return None if session is None else session.url

    def plan(self, metric: MetricData) -> Sequence[Change]:
        """What Neptune does not hold as it is; without what depends on other records: late steps, taken paths."""
        return fields_of(metric).changes

    def handle_metric(self, metric: MetricData) -> None:
        """Take one record."""
        self.handle_batch([metric])

    def handle_batch(self, metrics: Sequence[MetricData]) -> None:
        """Take some records.

        Raises:
            RejectedError: The file of a record is gone; none has been taken.
            RetryableError, OSError: The server is away, or the disk does not let us.
        """
        with self._lock:
            self._take(list(metrics))

    def handle_artifact(self, metric: MetricData) -> None:
        """Bring an artifact to the server, while other records are written. Raises as `handle_batch`."""
        lane = self._lane
        if lane is not None:
            lane.store(metric)
            return
        with self._lock:
            if self._session is None:
                raise RetryableError("the delivery to Neptune was stopped")
            self._take([metric])

    def _take(self, batch: list[MetricData]) -> None:
        if not batch:
            return
        assert self._session is not None
        assert self._paths is not None
        if batch != self._unanswered:
            # An end that is not the last record was that of an earlier attempt.
            entries = [(delivered_fields(one), one) for one in batch if one.name != STATUS_NAME or one is batch[-1]]
            ends = batch[-1].name == STATUS_NAME
            running = [(status_fields("running"), None)] if self._has_ended and not ends else []
            self._paths.commit()  # What came before has arrived, or it would have come again.
            self._write([*running, *entries])
            self._has_ended = ends
            for one in batch:
                if one.name == DESCRIPTION_NAME:
                    self._session.keep_description(str(one.value))
        self._unanswered = batch
        self._session.wait()
        self._unanswered = []

    def _write(self, entries: Sequence[tuple[Sequence[Field], MetricData | None]]) -> None:
        assert self._writer is not None
        assert self._paths is not None
        try:
            with fork_guard():
                self._writer.write(entries)
                self._run.wait(disk_only=True)
        except BaseException:
            self._paths.rollback()  # It comes again.
            raise
