"""Delivers to Weights & Biases: to its service, or to files that `wandb sync` brings there.

Every call comes on the thread `tracelet-wandb`, in the order that `tracelet.core.plugins` tells, but for
`handle_artifact`, which comes on `tracelet-wandb-artifacts`. The SDK itself runs in a process of its own; this class
starts it, hands it the records, and starts it again where it died. The guarantee: when `handle_batch` returns, the
records are in the run's `.wandb` file, and so in the kernel's hands; online, wandb-core brings them to the service, and
what it could not bring is sent at the next start of the run. When `handle_artifact` returns, the artifact is with the
service, or offline in the file.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final, final

from tracelet.backends._base import RunFacts
from tracelet.backends._wandb import mapping
from tracelet.backends._wandb.process import Channel, WandbProcess
from tracelet.backends._wandb.settings import WandbSettings
from tracelet.core.changes import Change, StoredPoint
from tracelet.core.plugins import BackendPlugin, PluginMetadata, PluginType
from tracelet.core.records import MetricData
from tracelet.errors import DeliveryError, MissingDependencyError, PartialDeliveryError, RejectedError, RetryableError

_PART: Final = 1_000  # Records that the SDK's process works on while the next ones are made ready.


@final
class WandbBackend(BackendPlugin):
    """Delivers to Weights & Biases; see the page "Weights & Biases" of the documentation."""

    # wandb-core writes to its file every 10 ms, and each batch waits for that: 512 records came to half of this rate.
    max_batch: ClassVar[int] = 10_000
    uploads_aside: ClassVar[bool] = True

    def __init__(self) -> None:
        self._given: Mapping[str, Any] = {}  # What the SDK's process is given: facts and settings.
        self._process: WandbProcess | None = None
        self._remote: Mapping[str, Any] = {}  # What the SDK's process tells of the run.
        self._is_started = False
        self._lock = threading.Lock()  # Held by who opens the process, ends it, or uses its main channel.

    @classmethod
    def get_metadata(cls) -> PluginMetadata:
        """Needs `wandb`."""
        return PluginMetadata(
            name="wandb",
            version="1.0.0",
            type=PluginType.BACKEND,
            description="Weights & Biases, online or offline",
            author="Tracelet",
            dependencies=["wandb>=0.31"],  # Before it, wandb-core could not be told when to write.
            capabilities={"metrics", "parameters", "artifacts", "media", "tags", "timestamps", "offline"},
        )

    @classmethod
    def validate_config(cls, config: Mapping[str, Any]) -> None:
        """See `WandbSettings`."""
        WandbSettings.parse("wandb", config)

    def initialize(self, config: dict[str, Any]) -> None:
        """Take the settings. Nothing is started or connected yet."""
        settings, facts = WandbSettings.parse("wandb", config), RunFacts.of(config)
        names = ("run_name", "run_uuid", "run_project", "state_dir")
        told = {name: str(getattr(facts, name)) for name in names}
        program = Path(facts.run_program).name if facts.run_program else None  # Else it would be the SDK's process.
        self._given = {"facts": {**told, "program": program}, "settings": settings.revealed()}

    def start(self) -> None:
        """Start the SDK's process, and open the run: the one that has the id of ours, if there is one.

        Raises:
            PermanentError: W&B refuses it, or is switched off.
            RetryableError: The service can't be reached.
        """
        with self._lock:
            self._opened()
            self._is_started = True

    def stop(self) -> None:
        """End the run as its status says; without a status it stays open.

        Raises:
            RetryableError: The service has not got everything yet.
        """
        with self._lock:
            self._is_started = False
            process, self._process = self._process, None
            if process is not None:
                try:
                    process.main.call("close")
                finally:
                    process.end()

    def get_status(self) -> dict[str, Any]:
        """Mode, where the run is, and the `.wandb` files; those of offline mode wait for `wandb sync`."""
        return dict(self._remote)

    def get_url(self) -> str | None:
        """The run's page; None offline."""
        return self._remote.get("url")

    def handle_metric(self, metric: MetricData) -> None:
        """Take one record."""
        self.handle_batch([metric])

    def handle_batch(self, metrics: Sequence[MetricData]) -> None:
        """Take some records. Where the SDK or its wandb-core has died, the next call starts them again.

        Raises:
            PartialDeliveryError: The first ones are stored, and W&B can't take the next one.
            RetryableError: How far it came is not known.
        """
        with self._lock:
            process = self._opened()
            try:
                answer = _taken(process.main, metrics)
            except (DeliveryError, MissingDependencyError):
                self._abandon(process)
                raise
        if answer["rejected"] is not None:
            raise PartialDeliveryError(answer["arrived"]) from RejectedError(answer["rejected"])

    def handle_artifact(self, metric: MetricData) -> None:
        """Bring an artifact to the service, or offline into the file, while other records are taken.

        Raises:
            RejectedError: The file is gone, or W&B can't have it.
            RetryableError: It has not arrived.
        """
        with self._lock:
            if not self._is_started:
                raise RetryableError("the delivery to W&B was stopped")
            process = self._opened()
        try:
            answer = process.artifacts.call("upload", record=_fields(metric))
        except (DeliveryError, MissingDependencyError):
            with self._lock:
                self._abandon(process)
            raise
        if "rejected" in answer:
            raise RejectedError(answer["rejected"])
        if "failed" in answer:
            raise RetryableError(f"W&B has not got the artifact {metric.name!r}: {answer['failed']}")

    def plan(self, metric: MetricData) -> Sequence[Change]:
        """What W&B holds otherwise than it was logged."""
        return mapping.changes(metric)

    def read_back(self, name: str) -> Sequence[StoredPoint]:
        """The points of a series: of the service, or of a run that is offline those in all its `.wandb` files."""
        with self._lock:
            process = self._process or WandbProcess(self._given["facts"]["state_dir"])
            try:
                return [StoredPoint(*point) for point in process.main.call("read_back", **self._given, series=name)]
            finally:
                if process is not self._process:
                    process.end()

    def _opened(self) -> WandbProcess:
        """The process with the run open in it."""
        if self._process is None:
            process = WandbProcess(self._given["facts"]["state_dir"])
            try:
                self._remote = process.main.call("open", **self._given)
            except BaseException:
                process.kill()
                raise
            self._process = process
        return self._process

    def _abandon(self, process: WandbProcess) -> None:
        """Whatever went wrong, a new one begins with a clean slate. The other thread may have seen to that."""
        if self._process is process:
            self._process = None
            process.kill()


def _taken(channel: Channel, metrics: Sequence[MetricData]) -> dict[str, Any]:
    """Hand records over: how many have `arrived`, and why the next one is `rejected`, or None."""
    parts = range(0, len(metrics), _PART)
    for begin in parts:
        channel.begin("take", records=[_fields(metric) for metric in metrics[begin : begin + _PART]])
    channel.begin("store")
    for _ in parts:
        channel.result()
    answer: dict[str, Any] = channel.result()
    return answer


def _fields(metric: MetricData) -> list[Any]:
    """A record for `_wandb.serve`, which makes a `MetricData` of it again."""
    value = os.fspath(metric.value) if isinstance(metric.value, os.PathLike) else metric.value
    details = None if metric.metadata is None else dict(metric.metadata)
    return [metric.name, value, metric.type.value, metric.iteration, metric.timestamp, metric.source, details]
