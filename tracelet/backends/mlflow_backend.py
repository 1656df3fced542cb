"""MLflow: metrics, parameters, tags and artifacts, to a server or straight into a database.

Every call comes on the thread `tracelet-mlflow`, in the order that `tracelet.core.plugins` tells, but for
`handle_artifact`, which comes on `tracelet-mlflow-artifacts` and shares nothing that changes. Guarantee: what
`handle_batch` has returned for is in MLflow's database, and the same batch again changes nothing: metrics keep the
record's own time, and files have its step and time in their names.

The user's own MLflow is left alone: no active run, no tracking address and no environment variable is set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, final

from tracelet.backends._base import RunFacts
from tracelet.backends._mlflow.api import (
    ENDED,
    FEATURE,
    MlflowApi,
    Point,
    RefusalError,
    RemoteRun,
    connect,
    without_credentials,
)
from tracelet.backends._mlflow.artifacts import Artifacts
from tracelet.backends._mlflow.lane import ArtifactStore
from tracelet.backends._mlflow.mapped import Mapped
from tracelet.backends._mlflow.records import mapped
from tracelet.backends._mlflow.request import KnownRun, Request
from tracelet.backends._mlflow.run import get_active_run, open_run, page_of, place_of, read_series
from tracelet.backends._mlflow.settings import MLflowSettings, choose_tracking_uri
from tracelet.core.changes import Change, StoredPoint
from tracelet.core.plugins import BackendPlugin, PluginMetadata, PluginType
from tracelet.core.records import MetricData
from tracelet.delivery.state import RemoteState
from tracelet.errors import PartialDeliveryError
from tracelet.utils.imports import require


@final
class MLflowBackend(BackendPlugin):
    """One run of ours is one run of MLflow's, found by the tag `tracelet.run_uuid`."""

    max_batch: ClassVar[int] = 1000  # What one request may hold.
    uploads_aside: ClassVar[bool] = True

    _settings = MLflowSettings()
    _facts: RunFacts
    _state: RemoteState
    _uri: str | None = None
    _api: MlflowApi | None = None
    _run: RemoteRun | None = None
    _known: KnownRun
    _artifacts: Artifacts
    _lane: ArtifactStore
    _status = "RUNNING"
    _earlier_end: tuple[str, int | None] | None = None

    @classmethod
    def get_metadata(cls) -> PluginMetadata:
        """Needs `mlflow`."""
        return PluginMetadata(
            name="mlflow",
            version="1.0.0",
            type=PluginType.BACKEND,
            description="An MLflow server or database",
            author="Tracelet",
            dependencies=["mlflow>=3.10"],
            capabilities={"metrics", "parameters", "artifacts", "tags", "timestamps", "idempotent"},
        )

    @classmethod
    def validate_config(cls, config: Mapping[str, Any]) -> None:
        """Check names and types; nothing is connected to."""
        MLflowSettings.parse("mlflow", config)

    def initialize(self, config: dict[str, Any]) -> None:
        """Choose the address, and open the database where it is one."""
        require("mlflow", FEATURE)
        self._settings = MLflowSettings.parse("mlflow", config)
        self._facts = RunFacts.of(config)
        self._state = RemoteState(self._facts.state_dir)
        self._uri = choose_tracking_uri(self._settings, self._state["tracking_uri"])
        self._api = connect(self._uri, self._settings.timeout_s)
        if without_credentials(self._uri) == self._uri:
            self._state.update({"tracking_uri": self._uri})

    def start(self) -> None:
        """Find or make the run, and show it as running."""
        assert self._api is not None
        assert self._uri is not None
        run = open_run(self._api, self._facts, self._state, self._settings.experiment)
        self._known = KnownRun(run)
        self._artifacts = Artifacts(run.artifact_uri, self._uri, self._settings.timeout_s)
        self._lane = ArtifactStore(run, self._facts, self._uri, self._settings.timeout_s)
        self._earlier_end = (run.status, run.end_ms) if run.status in ENDED else None
        self._run = run
        self._set_status("RUNNING", None)

    def stop(self) -> None:
        """Let go. A run that had ended, and of which nothing more came, is shown as it was."""
        if self._api is not None and self._earlier_end is not None:
            self._set_status(*self._earlier_end)
        self._api = self._earlier_end = None

    def get_status(self) -> dict[str, Any]:
        """Where the run is."""
        return place_of(self._run, self._uri)

    def get_url(self) -> str | None:
        """The run's page; None without a server."""
        return page_of(self._run, self._uri)

    def plan(self, metric: MetricData) -> Sequence[Change]:
        """What MLflow can't hold as it is."""
        found = mapped(metric)
        return () if isinstance(found, Point) else found.changes

    def read_back(self, name: str) -> Sequence[StoredPoint] | None:
        """All pages of a metric's history."""
        if self._api is None or self._run is None:
            return None
        return read_series(self._api, self._run.run_id, name)

    def handle_metric(self, metric: MetricData) -> None:
        """Store one record."""
        self.handle_batch([metric])

    def handle_batch(self, metrics: Sequence[MetricData]) -> None:
        """Store some records: files one by one, all else in as few requests as MLflow's limits allow."""
        if not metrics:
            return
        self._earlier_end = None
        if self._status != "RUNNING":  # The run had ended in this very journal, and was resumed.
            self._set_status("RUNNING", None)
        request = Request(self._known, 0)
        end = None
        for index, record in enumerate(metrics):
            try:
                found = mapped(record)
                if isinstance(found, Mapped):
                    for upload in found.uploads:
                        self._artifacts.store(upload)
            except Exception as error:
                self._send(request)
                raise PartialDeliveryError(index) from error
            if not request.add(found):
                self._send(request)
                request = Request(self._known, index)
                request.add(found)
            end = found.status if isinstance(found, Mapped) else None
        self._send(request)
        if end is not None:  # The last record: a status before others was that of an earlier attempt.
            try:
                self._set_status(*end)
            except Exception as error:
                raise PartialDeliveryError(len(metrics) - 1) from error

    def handle_artifact(self, metric: MetricData) -> None:
        """Store an artifact's files, and what describes it."""
        self._lane.store(metric)

    def _send(self, request: Request) -> None:
        """Send what is gathered.

        Raises:
            PartialDeliveryError: None of it has arrived; all before it has.
        """
        api, run = self._opened
        try:
            try:
                request.send(api, run.run_id)
            except RefusalError:
                if not request.give_way(self._active_run()):
                    raise
                request.send(api, run.run_id)
        except Exception as error:
            raise PartialDeliveryError(request.first) from error

    def _set_status(self, status: str, end_ms: int | None) -> None:
        api, run = self._opened
        try:
            api.update_run(run.run_id, status, end_ms)
        except RefusalError:
            self._active_run()
            raise
        self._status = status

    def _active_run(self) -> RemoteRun:
        """The run as it is now; refused records are no fault of theirs where it was deleted."""
        api, run = self._opened
        return get_active_run(api, run.run_id, self._facts.state_dir)

    @property
    def _opened(self) -> tuple[MlflowApi, RemoteRun]:
        assert self._api is not None
        assert self._run is not None
        return self._api, self._run
