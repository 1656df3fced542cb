"""Plug-ins: what they must have, how they are found, and where each stands in its life.

    PluginBase
    ├── BackendPlugin      takes records on to a tracker          all calls on the thread `tracelet-<name>`
    ├── CollectorPlugin    gives records about the machine, …     all calls on the thread `tracelet-<name>`
    ├── FrameworkPlugin    gives records out of a framework       life cycle on the thread of `Experiment.start/stop`
    └── ProcessorPlugin    changes records on their way to one backend: on that backend's thread, one copy a backend

The order is `initialize(config)`, `start()`, then the work, then `stop()`; `get_status()` may be called at any time,
from any thread. A plug-in that inherits from `PluginBase` alone and says its kind in its metadata is as good: what its
kind must have is checked when it is registered. An exception of a plug-in is counted and logged; it never reaches the
training.
"""

from __future__ import annotations

import importlib.metadata
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Protocol, final, runtime_checkable

from tracelet.core.changes import Change, StoredPoint
from tracelet.core.plugin_facts import PluginMetadata, PluginState, PluginType
from tracelet.core.records import MetricData, MetricSink, MetricSource
from tracelet.errors import (
    MissingDependencyError,
    PartialDeliveryError,
    PluginContractError,
    PluginError,
    PluginNotFoundError,
)
from tracelet.utils.imports import missing
from tracelet.utils.text import did_you_mean

__all__ = [
    "ENTRY_POINT_GROUPS",
    "IMPORTER_GROUP",
    "BackendPlugin",
    "CollectorPlugin",
    "Collects",
    "FoundPlugin",
    "FrameworkPlugin",
    "ManagedPlugin",
    "PluginBase",
    "PluginManager",
    "PluginMetadata",
    "PluginState",
    "PluginType",
    "ProcessorPlugin",
    "TakesExperiment",
]

logger = logging.getLogger(__name__)

IMPORTER_GROUP: Final = "tracelet.importers"  # Of their own: `wandb` is also the name of a backend.
ENTRY_POINT_GROUPS: Final = ("tracelet.backends", "tracelet.plugins", IMPORTER_GROUP)


class PluginBase(ABC):
    """What every plug-in has. A subclass need not call `super().__init__()`."""

    _active: bool = False
    _config: Mapping[str, Any] = {}
    _sink: MetricSink | None = None

    @classmethod
    @abstractmethod
    def get_metadata(cls) -> PluginMetadata:
        """Who the plug-in is. Called before anything is imported or initialised."""

    @classmethod  # noqa: B027  most have nothing to check
    def validate_config(cls, config: Mapping[str, Any]) -> None:
        """Check the configuration of a backend or a processor before the training starts, without connecting.

        Raises:
            SettingsError: It is wrong. `Experiment.start()` raises it on.
        """

    @abstractmethod
    def initialize(self, config: dict[str, Any]) -> None:
        """Take the configuration, and connect. Called again after it has failed.

        Args:
            config: The plug-in's own settings (`[tool.tracelet.plugins.<name>]`), and what the run is: `run_name`,
                `run_id`, `run_uuid`, `run_project`, `run_created_s`, `run_program` (the script, or None), `run_dir`,
                `state_dir` (a directory of its own, kept with the run); for a collector `interval` too, in seconds, and
                `run_redactor`, the run's own `Redactor`, for files that it writes.
        """

    @abstractmethod
    def start(self) -> None:
        """Begin to work."""

    @abstractmethod
    def stop(self) -> None:
        """End, and let go of everything. Called once, after the last record; a second call does nothing."""

    @abstractmethod
    def get_status(self) -> dict[str, Any]:
        """Facts for `tracelet status`. Callable in every state and from any thread."""

    def attach(self, sink: MetricSink | None) -> None:
        """Give the plug-in a place for records of its own (its errors, say). Called before `initialize`."""
        self._sink = sink

    def emit_metric(self, metric: MetricData) -> None:
        """Record something about the plug-in itself; nothing happens where it belongs to no experiment."""
        if self._sink is not None:
            self._sink.emit_metric(metric)


class BackendPlugin(PluginBase):
    """Takes records on to a tracker. Every call comes on this backend's own thread, in the order of the journal.

    The one exception is `handle_artifact`, for a backend that asks for it by `uploads_aside`.
    """

    max_batch: ClassVar[int] = 512
    """The most records that `handle_batch` is given at once."""

    uploads_aside: ClassVar[bool] = False
    """Whether artifacts come by `handle_artifact`, beside all else, so that a large one holds back no metric."""

    @abstractmethod
    def handle_metric(self, metric: MetricData) -> None:
        """Take one record.

        Raises:
            RetryableError: Later it may work: the same record comes again.
            RejectedError: It never will: the record goes to `rejected.jsonl`.
            PermanentError: No record will go through before the user acts.
        """

    def handle_batch(self, metrics: Sequence[MetricData]) -> None:
        """Take some records, `max_batch` at most. Override it where the tracker can take many at once.

        Raises:
            PartialDeliveryError: The first ones arrived, then the error that is its cause came.
            RetryableError, RejectedError, PermanentError: As `handle_metric`; none has arrived.
        """
        for index, metric in enumerate(metrics):
            try:
                self.handle_metric(metric)
            except Exception as error:
                raise PartialDeliveryError(index) from error

    def handle_artifact(self, metric: MetricData) -> None:
        """Take one artifact, where `uploads_aside` is true. Raises as `handle_metric`.

        Called after `start`, on a thread that hands over one after the other, while other methods may be under way on
        the backend's own thread. The run's end comes when all artifacts have arrived. Where there is no time for that,
        `stop` may come while this is under way; the artifact then comes again with a later delivery.
        """
        self.handle_metric(metric)

    def flush(self) -> None:
        """Bring to the tracker what the SDK holds back. Called for `Experiment.flush()` when all has been handled."""

    def get_url(self) -> str | None:
        """Where a browser finds the run; None where there is no such place."""
        return None

    def plan(self, metric: MetricData) -> Sequence[Change]:
        """What the tracker would not hold of a record as it was logged. Without a connection, before `initialize`."""
        return ()

    def read_back(self, name: str) -> Sequence[StoredPoint] | None:
        """The points of a series that the tracker holds; None where it can't be asked. Raises as `handle_metric`."""
        return None


class CollectorPlugin(PluginBase):
    """Gives records about something outside (the machine, the container, the repository), at an interval."""

    @abstractmethod
    def collect(self) -> Sequence[MetricData]:
        """What there is to record now. May take its time: nobody waits for it."""


class FrameworkPlugin(PluginBase, MetricSource):
    """Gives records out of a framework, through the framework's own hooks."""

    def get_source_id(self) -> str:
        """The plug-in's name."""
        return self.get_metadata().name

    def set_experiment(self, experiment: MetricSink) -> None:
        """The experiment that its records go to. Called before `initialize`."""
        self.attach(experiment)


class ProcessorPlugin(PluginBase):
    """Changes records on their way to a backend, which has its own copy (`copy.deepcopy`): state needs no lock."""

    has_memory: ClassVar[bool] = True
    """Whether earlier records matter to it: a delivery that begins again then shows it first what was delivered."""

    @abstractmethod
    def process(self, metric: MetricData) -> MetricData | Iterable[MetricData] | None:
        """The record, another one, several, or None to drop it. It must not change `metric` itself."""

    def finish(self) -> Iterable[MetricData]:
        """What it still holds back; it begins anew then. Called where an attempt of the run has ended."""
        return ()


@runtime_checkable
class Collects(Protocol):
    """What a collector has, whatever it inherits from."""

    def collect(self) -> Sequence[MetricData]:
        """As `CollectorPlugin.collect`."""


@runtime_checkable
class TakesExperiment(Protocol):
    """What a framework plug-in has, whatever it inherits from."""

    def set_experiment(self, experiment: MetricSink) -> None:
        """As `FrameworkPlugin.set_experiment`."""


@runtime_checkable
class ReadsRuns(Protocol):
    """What an importer has, whatever it inherits from."""

    def runs(self, source: str) -> Iterator[Any]:
        """As `core.importer.ImporterPlugin.runs`."""


_CONTRACTS: Final[Mapping[PluginType, tuple[type, str]]] = {
    PluginType.BACKEND: (BackendPlugin, "does not inherit from BackendPlugin"),
    PluginType.COLLECTOR: (Collects, "has no collect()"),
    PluginType.FRAMEWORK: (TakesExperiment, "has no set_experiment(experiment)"),
    PluginType.IMPORTER: (ReadsRuns, "has no runs(source)"),
    PluginType.PROCESSOR: (ProcessorPlugin, "does not inherit from ProcessorPlugin"),
}


def _checked(metadata: object, owner: str) -> PluginMetadata:
    """What a stranger's `get_metadata()` gave, looked at."""
    if not isinstance(metadata, PluginMetadata):
        raise PluginContractError(f"{owner}.get_metadata() must give a PluginMetadata, not {metadata!r}")
    if metadata.type not in _CONTRACTS or not metadata.name:
        raise PluginContractError(f"{owner}.get_metadata() has no valid name and type: {metadata!r}")
    return metadata


@final
class ManagedPlugin:
    """A plug-in and where it stands. Its life-cycle methods are called by the one thread that owns the plug-in."""

    def __init__(self, plugin: PluginBase, config: Mapping[str, Any]) -> None:
        """Check the plug-in against its contract.

        Raises:
            PluginContractError: Its metadata is wrong, or it lacks the method of its kind.
        """
        metadata = _checked(plugin.get_metadata(), type(plugin).__name__)
        contract, lack = _CONTRACTS[metadata.type]
        if not isinstance(plugin, contract):
            kind = metadata.type.value
            raise PluginContractError(f"the plug-in {metadata.name!r} says that it is a {kind}, but it {lack}")
        self.plugin = plugin
        self.metadata = metadata
        self.config = dict(config)
        self.state = PluginState.REGISTERED
        self.error: str | None = None
        self.is_installed = False
        """Whether it was found by its name, so that another process finds it too."""
        self.backends: Sequence[str] | None = None  # Of a processor: those that it is for; None: all of them.
        self._has_to_stop = False

    @property
    def name(self) -> str:
        """The plug-in's name."""
        return self.metadata.name

    def check_dependencies(self) -> None:
        """Look the required packages up, without importing them.

        Raises:
            MissingDependencyError: Some are missing; the text has the line to install them.
        """
        absent = missing(self.metadata.dependencies)
        if absent:
            packages = " ".join(repr(package) for package in absent)
            raise MissingDependencyError(
                f"the plug-in {self.name!r} needs {', '.join(absent)}, which is not installed. Install it with: "
                f"pip install {packages}"
            )

    def initialize(self, facts: Mapping[str, Any]) -> None:
        """`plugin.initialize`, with its configuration over the run's facts."""
        self.plugin.initialize({**facts, **self.config})
        self.state, self._has_to_stop = PluginState.INITIALIZED, True

    def start(self) -> None:
        """`plugin.start`."""
        self.plugin.start()
        self.state, self.error = PluginState.RUNNING, None

    def stop(self) -> None:
        """`plugin.stop`, where it was initialised and has not been stopped; also where it has failed since."""
        if self._has_to_stop:
            self._has_to_stop = False
            if self.state is not PluginState.FAILED:
                self.state = PluginState.STOPPED
            self.plugin.stop()

    def fail(self, error: BaseException) -> None:
        """Nothing more is asked of the plug-in but to stop."""
        self.state, self.error = PluginState.FAILED, f"{type(error).__name__}: {error}"

    def get_status(self) -> dict[str, Any]:
        """State, last error, and what the plug-in itself says."""
        status: dict[str, Any] = {"type": self.metadata.type.value, "state": self.state.value, "error": self.error}
        try:
            return {**self.plugin.get_status(), **status}
        except Exception as error:
            logger.warning("get_status() of the plug-in %r failed: %s", self.name, error, exc_info=True)
            return {**status, "status_error": f"{type(error).__name__}: {error}"}


@final
@dataclass(frozen=True, slots=True)
class FoundPlugin:
    """An installed plug-in, as its entry point says; nothing of it has been imported.

    Attributes:
        name: The entry point's name.
        group: One of `ENTRY_POINT_GROUPS`.
        target: `module:class`.
        package: The distribution that brings it, with its version.
    """

    name: str
    group: str
    target: str
    package: str
    entry_point: importlib.metadata.EntryPoint

    def load(self) -> PluginBase:
        """Import it and make an instance.

        Raises:
            MissingDependencyError: A package that it imports is not installed.
            PluginError: It can't be imported or made, or is no plug-in.
        """
        try:
            made = self.entry_point.load()()
        except MissingDependencyError:
            raise
        except ImportError as error:
            raise MissingDependencyError(
                f"the plug-in {self.name!r} of {self.package} can't be imported: {error}"
            ) from error
        except Exception as error:
            raise PluginError(
                f"the plug-in {self.name!r} of {self.package} can't be loaded from {self.target}: "
                f"{type(error).__name__}: {error}"
            ) from error
        if not isinstance(made, PluginBase):
            raise PluginContractError(
                f"{self.target} of {self.package} is no plug-in: it does not inherit from PluginBase"
            )
        return made


@final
class PluginManager:
    """The registry: which plug-ins are installed, and which ones an experiment uses.

    Called on the thread that makes and starts the experiment. Listing imports nothing; only what is asked for is
    loaded.
    """

    _installed: ClassVar[tuple[FoundPlugin, ...] | None] = None  # The installed packages don't change under a process.

    def __init__(
        self,
        *,
        allow: Sequence[str] | None = None,
        deny: Sequence[str] = (),
        configuration: Callable[[str], Mapping[str, Any]] | None = None,
    ) -> None:
        """Make an empty registry.

        Args:
            allow: Only entry points of these names may be loaded; None allows all.
            deny: Entry points of these names may not.
            configuration: Gives the settings of a plug-in, by its name; None where there are none.
        """
        self._allow = allow
        self._deny = deny
        self._configuration = configuration
        self._plugins: dict[str, ManagedPlugin] = {}

    def register_plugin(self, plugin: PluginBase, config: Mapping[str, Any] | None = None) -> ManagedPlugin:
        """Add an instance. It takes part from `Experiment.start()` on.

        Args:
            plugin: An instance that nothing has been called of.
            config: Wins over the plug-in's settings.

        Raises:
            PluginContractError: It is no valid plug-in, or its name is taken.
        """
        if not isinstance(plugin, PluginBase):
            raise PluginContractError(f"register_plugin() takes an instance of a plug-in, not {plugin!r}")
        managed = ManagedPlugin(plugin, config or {})
        known = self._plugins.get(managed.name)
        if known is not None and known.plugin is plugin:  # A start that failed is tried again.
            return known
        if known is not None:
            raise PluginContractError(f"a plug-in named {managed.name!r} is registered already")
        if self._configuration is not None:
            managed.config = {**self._configuration(managed.name), **managed.config}
        self._plugins[managed.name] = managed
        return managed

    def load(self, name: str) -> ManagedPlugin:
        """The plug-in of this name: the registered one, or the installed one, which is then registered.

        Raises:
            PluginNotFoundError: There is none, or it is not allowed; the text names near ones.
            MissingDependencyError: A package that it needs is not installed.
            PluginError: It can't be loaded.
        """
        if name in self._plugins:
            return self._plugins[name]
        managed = self.register_plugin(self._loaded(name))
        managed.is_installed = True
        return managed

    def make(self, name: str, config: Mapping[str, Any]) -> ManagedPlugin:
        """One more instance of an installed plug-in, which is not registered: a processor. Raises as `load`."""
        return ManagedPlugin(self._loaded(name), config)

    def _loaded(self, name: str) -> PluginBase:
        found = [plugin for plugin in self.installed() if plugin.name == name and plugin.group != IMPORTER_GROUP]
        if not found:
            known = sorted({plugin.name for plugin in self.installed()})
            raise PluginNotFoundError(
                f"no plug-in {name!r}{did_you_mean(name, known)} is installed. Installed: {', '.join(known) or 'none'}"
            )
        if name in self._deny or (self._allow is not None and name not in self._allow):
            raise PluginNotFoundError(f"the plug-in {name!r} is installed, but the settings do not allow it")
        # One that the user installed wins over ours of the same name.
        chosen = sorted(found, key=lambda plugin: plugin.package.startswith("tracelet "))[0]
        if packages := {plugin.package for plugin in found} - {chosen.package}:
            others = ", ".join(sorted(packages))
            logger.warning("%s brings the plug-in %r; that of %s is not used", chosen.package, name, others)
        plugin = chosen.load()
        itself = _checked(plugin.get_metadata(), type(plugin).__name__).name
        if itself != name:  # Settings and routing rules would go by another name than `backend=[…]`.
            raise PluginContractError(f"the plug-in {name!r} of {chosen.package} calls itself {itself!r}")
        return plugin

    @classmethod
    def installed(cls) -> tuple[FoundPlugin, ...]:
        """All installed plug-ins, by their entry points."""
        if cls._installed is None:
            cls._installed = tuple(_entry_points())
        return cls._installed

    def of_type(self, kind: PluginType) -> list[ManagedPlugin]:
        """The registered plug-ins of a kind, in the order of their registration."""
        return [managed for managed in self._plugins.values() if managed.metadata.type is kind]

    def __iter__(self) -> Iterator[ManagedPlugin]:
        return iter(tuple(self._plugins.values()))

    def __contains__(self, name: object) -> bool:
        return name in self._plugins

    def get_status(self) -> dict[str, dict[str, Any]]:
        """The state of each registered plug-in, by name."""
        return {managed.name: managed.get_status() for managed in self}


def _entry_points() -> Iterator[FoundPlugin]:
    """Package by package: `importlib.metadata.entry_points()` fails as a whole where one package is damaged."""
    seen = set()
    for distribution in importlib.metadata.distributions():
        try:
            points = [point for point in distribution.entry_points if point.group in ENTRY_POINT_GROUPS]
        except Exception as error:  # noqa: BLE001  whatever the parser makes of it; it is said
            logger.warning("the entry points of %s are damaged, and left out: %r", distribution.name, error)
            continue
        for point in points:
            if (distribution.name, point) not in seen:  # A package that is on the path twice counts once.
                seen.add((distribution.name, point))
                package = f"{distribution.name} {distribution.version}"
                yield FoundPlugin(point.name, point.group, point.value, package, point)
