"""Delivers to Weights & Biases: to its service, or to files that `wandb sync` brings there.

Every call comes on the thread `tracelet-wandb`, in the order that `tracelet.core.plugins` tells. The SDK itself runs in
a process of its own; this class starts it, hands it the records, and starts it again where it died. The guarantee: when
`handle_batch` returns, the records are in the run's `.wandb` file, and so in the kernel's hands; online, wandb-core
brings them to the service, and what it could not bring is sent at the next start of the run.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, final

from pydantic import Field, SecretStr

from tracelet.backends._base import BackendSettings, RunFacts
from tracelet.backends._wandb import mapping
from tracelet.backends._wandb.process import WandbProcess
from tracelet.core.changes import Change, StoredPoint
from tracelet.core.plugins import BackendPlugin, PluginMetadata, PluginType
from tracelet.core.records import MetricData
from tracelet.errors import DeliveryError, MissingDependencyError, PartialDeliveryError, RejectedError

_PART: Final = 1_000  # Records that the SDK's process works on while the next ones are made ready.


@final
class WandbSettings(BackendSettings):
    """What can be set. None: W&B's own settings decide (`WANDB_…` variables, `wandb login`, its settings files).

    Attributes:
        mode: None: as `WANDB_MODE` says, else online where W&B has a key, else offline.
        project: None: `WANDB_PROJECT`, else the run's project.
        dir: Where the directory `wandb` is made. None: `WANDB_DIR`, else the working directory.
        api_key: None: the one that W&B finds. It reaches no file and no environment.
        timeout_s: How long an attempt to reach the service may take.
        finish_timeout_s: How long the end of a run may take to bring the last records to the service.
    """

    mode: Literal["online", "offline"] | None = None
    project: str | None = None
    entity: str | None = None
    dir: str | None = None
    group: str | None = None
    job_type: str | None = None
    notes: str | None = None
    api_key: SecretStr | None = None
    base_url: str | None = None
    timeout_s: float = Field(30.0, gt=0)
    finish_timeout_s: float = Field(300.0, gt=0)

    def revealed(self) -> dict[str, Any]:
        """The values with the key in plain, for the SDK's process alone."""
        return {**self.model_dump(), "api_key": self.api_key and self.api_key.get_secret_value()}


@final
class WandbBackend(BackendPlugin):
    """Delivers to Weights & Biases; see the page "Weights & Biases" of the documentation."""

    # wandb-core writes to its file every 10 ms, and each batch waits for that: 512 records came to half of this rate.
    max_batch: ClassVar[int] = 10_000

    _given: Mapping[str, Any] = {}  # What the SDK's process is given: facts and settings.
    _process: WandbProcess | None = None
    _remote: Mapping[str, Any] = {}  # What the SDK's process tells of the run.

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
        self._opened()

    def stop(self) -> None:
        """End the run as its status says; without a status it stays open.

        Raises:
            RetryableError: The service has not got everything yet.
        """
        process, self._process = self._process, None
        if process is not None:
            try:
                process.call("close")
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
        process = self._opened()
        try:
            parts = range(0, len(metrics), _PART)
            for begin in parts:
                process.begin("take", records=[_fields(metric) for metric in metrics[begin : begin + _PART]])
            process.begin("store")
            for _ in parts:
                process.result()
            answer = process.result()
        except (DeliveryError, MissingDependencyError):
            self._process = None  # Whatever it was, a new one begins with a clean slate.
            process.kill()
            raise
        if answer["rejected"] is not None:
            raise PartialDeliveryError(answer["arrived"]) from RejectedError(answer["rejected"])

    def plan(self, metric: MetricData) -> Sequence[Change]:
        """What W&B holds otherwise than it was logged."""
        return mapping.changes(metric)

    def read_back(self, name: str) -> Sequence[StoredPoint]:
        """The points of a series: of the service, or of a run that is offline those in all its `.wandb` files."""
        process = self._process or WandbProcess(self._given["facts"]["state_dir"])
        try:
            return [StoredPoint(*point) for point in process.call("read_back", **self._given, series=name)]
        finally:
            if process is not self._process:
                process.end()

    def _opened(self) -> WandbProcess:
        """The process with the run open in it."""
        if self._process is None:
            process = WandbProcess(self._given["facts"]["state_dir"])
            try:
                self._remote = process.call("open", **self._given)
            except BaseException:
                process.kill()
                raise
            self._process = process
        return self._process


def _fields(metric: MetricData) -> list[Any]:
    """A record for `_wandb.serve`, which makes a `MetricData` of it again."""
    value = os.fspath(metric.value) if isinstance(metric.value, os.PathLike) else metric.value
    details = None if metric.metadata is None else dict(metric.metadata)
    return [metric.name, value, metric.type.value, metric.iteration, metric.timestamp, metric.source, details]
