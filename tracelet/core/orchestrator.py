"""Joins sources, the journal and sinks.

    sources ──emit_metric──> Intake ──> journal ──> one DeliveryWorker a backend ──> backends
                                           routing rules and processors apply here ──┘

Threads: `emit_metric` on any thread, as cheap as the journal; everything else on the experiment's thread. A record is
routed when it is delivered, not when it is logged: so the journal has everything, and rules cost the training nothing.
"""

from __future__ import annotations

import concurrent.futures
import copy
import fnmatch
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, Final, Self, final

from tracelet.core.alerting import Alerting, OnAlert
from tracelet.core.alerts import ALERT_NAME
from tracelet.core.collecting import CollectorThread
from tracelet.core.draining import Delivery
from tracelet.core.intake import Intake
from tracelet.core.plugins import BackendPlugin, ManagedPlugin, PluginManager, PluginType, TakesExperiment
from tracelet.core.records import PLUGIN_ERRORS_NAME, MetricData, MetricSink, MetricSource, MetricType
from tracelet.core.sidecar import DeliveryOrder, Sidecar
from tracelet.delivery.processing import PluginSink, ProcessorChain
from tracelet.delivery.worker import DRAIN_ATTEMPTS, DeliveryWorker
from tracelet.errors import PluginContractError, SettingsError, TraceletError, UsageError
from tracelet.journal.directory import RunDirectory, delivery_directory
from tracelet.journal.reader import first_lines
from tracelet.utils.redaction import Redactor
from tracelet.utils.text import did_you_mean

logger = logging.getLogger(__name__)

_COLLECTOR_STOP_S: Final = 2.0

Steps = Callable[[str], Sequence[tuple[str, Mapping[str, Any]]]]
"""Gives the names and configurations of the processors that the settings put in front of a backend."""


@final
@dataclass(frozen=True, slots=True)
class RoutingRule:
    """Which records reach which backends.

    A backend that no rule names gets everything. One that a rule names gets the records that match at least one of its
    rules, less those that match an `exclude` rule; with `exclude` rules alone it gets everything else.

    Attributes:
        sinks: Names of backends.
        pattern: Names of records, as `fnmatch` has it: `train/*`.
        types: Only records of these types; None means all.
        source: Sources, as `fnmatch` has it. A record without a source has the source `""`.
        filter: Only records for which this is true. Called on the backends' threads; an exception lets the record
            through.
        exclude: Keep the matching records from the sinks.
    """

    sinks: tuple[str, ...]
    pattern: str = "*"
    types: frozenset[MetricType] | None = None
    source: str = "*"
    filter: Callable[[MetricData], bool] | None = None
    exclude: bool = False

    def fields(self) -> dict[str, Any]:
        """The rule as JSON-like fields, for another process.

        Raises:
            UsageError: It has a filter, which is code of this process.
        """
        if self.filter is not None:
            raise UsageError(
                'a routing rule with a filter works where delivery runs in this process: set delivery="thread"'
            )
        types = None if self.types is None else sorted(kind.value for kind in self.types)
        sinks, pattern, source, exclude = list(self.sinks), self.pattern, self.source, self.exclude
        return {"sinks": sinks, "pattern": pattern, "types": types, "source": source, "exclude": exclude}

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Self:
        """Read `fields()` back."""
        types = None if fields["types"] is None else frozenset(map(MetricType, fields["types"]))
        return cls(tuple(fields["sinks"]), fields["pattern"], types, fields["source"], None, fields["exclude"])

    def matches(self, metric: MetricData) -> bool:
        """Whether the rule is about this record."""
        if self.types is not None and metric.type not in self.types:
            return False
        if not fnmatch.fnmatchcase(metric.name, self.pattern):
            return False
        if not fnmatch.fnmatchcase(metric.source or "", self.source):
            return False
        return self.filter is None or self.filter(metric)


@final
class DataFlowOrchestrator:
    """See the module docstring."""

    def __init__(
        self,
        intake: Intake,
        run: RunDirectory,
        plugins: PluginManager,
        *,
        steps: Steps = lambda _: (),
        is_live: bool = True,
    ) -> None:
        """Make an orchestrator without sources and rules.

        Args:
            intake: Where records go.
            run: Where workers read them.
            plugins: What is started by `start`.
            steps: The processors of the settings; those that are registered come after them.
            is_live: Whether the run is being recorded at this time.
        """
        self._intake = intake
        self._is_live = is_live
        self._run = run
        self._plugins = plugins
        self._steps = steps
        self._alerting = Alerting()
        self._sources: dict[str, MetricSource] = {}
        self._rules: tuple[RoutingRule, ...] = ()
        self._workers: dict[str, DeliveryWorker] = {}
        self._sidecar: Sidecar | None = None
        self._collectors: list[CollectorThread] = []
        self._errors: dict[str, int] = {}
        self._filter_failed = False
        self._draining = False  # A record that came now might miss the backends that have ended.

    # -- any thread ----------------------------------------------------------------------------------------------------

    def emit_metric(self, metric: MetricData) -> None:
        """Record what a plug-in hands over. On the disk when this returns; dropped where the run's end is recorded.

        Raises:
            InvalidNameError: The record's name is no string.
        """
        if metric.name == ALERT_NAME and (tag := self._alerting.take(metric)) is not None and not self._draining:
            self._intake.emit(tag)
        if not self._draining:
            self._intake.emit(metric)

    @property
    def alert_callbacks(self) -> Sequence[OnAlert]:
        """The functions that are called with alerts."""
        return tuple(self._alerting.callbacks)

    def on_alert(self, callback: OnAlert) -> None:
        """Have a function called with each alert of this run, once, on the thread that brings it."""
        self._alerting.callbacks.append(callback)

    def count_error(self, plugin: str, error: BaseException) -> None:
        """Count an error of a plug-in, here and in the run."""
        self._errors[plugin] = self._errors.get(plugin, 0) + 1
        # Its class only: texts of errors often hold a time or an id, and each would be a record of its own size.
        details = {"plugin": plugin, "error": type(error).__name__}
        self.emit_metric(MetricData(PLUGIN_ERRORS_NAME, 1.0, MetricType.SYSTEM, source=plugin, metadata=details))

    # -- the experiment's thread ---------------------------------------------------------------------------------------

    def add_source(self, source: MetricSource) -> None:
        """Make a source known, for `get_stats`."""
        self._sources[source.get_source_id()] = source

    @property
    def rules(self) -> Sequence[RoutingRule]:
        """The routing rules, in the order in which they were added."""
        return self._rules

    def add_routing_rule(self, rule: RoutingRule) -> None:
        """Add a rule; it holds for the records that are delivered from now on.

        Raises:
            UsageError: It has a filter, and delivery runs in a process of its own already.
        """
        if self._sidecar is not None:
            self._sidecar.add_rule(rule.fields())
        self._rules = (*self._rules, rule)

    def check(self) -> None:
        """Look for what would fail before anything is started.

        Raises:
            MissingDependencyError: A plug-in needs a package that is not installed.
            SettingsError: A plug-in's configuration is wrong.
            PluginContractError: A processor can't be copied.
            UsageError: A routing rule names a backend that is not there.
        """
        for managed in self._plugins:
            managed.check_dependencies()
            if isinstance(managed.plugin, BackendPlugin):
                _validate(managed)
                for step in self._made_steps(managed.name):
                    step.check_dependencies()
                    _validate(step)
            elif managed.metadata.type is PluginType.COLLECTOR:
                _interval_s(managed, 1.0)
            elif managed.metadata.type is PluginType.PROCESSOR:
                _validate(_copy(managed))
        backends = {managed.name for managed in self._plugins.of_type(PluginType.BACKEND)}
        unknown = {sink for rule in self._rules for sink in rule.sinks} - backends
        if unknown:
            raise UsageError(
                f"a routing rule names {', '.join(sorted(unknown))}, which is no backend of this experiment; "
                f"it has {', '.join(sorted(backends)) or 'none'}"
            )

    def start(
        self,
        sink: MetricSink,
        collect_interval_s: float,
        order: DeliveryOrder | None = None,
        redactor: Redactor | None = None,
    ) -> None:
        """Start what was registered. Nothing here waits for a backend, and no plug-in's error comes out.

        Args:
            sink: The experiment, for the framework plug-ins.
            collect_interval_s: For collectors whose own configuration has no `interval`.
            order: For a delivery process, without the backends and rules; None: all delivery runs in this process.
            redactor: For the files that collectors write.
        """
        for managed in self._plugins.of_type(PluginType.FRAMEWORK):
            self._start_framework(managed, sink)
        backends = self._plugins.of_type(PluginType.BACKEND)
        handed = [] if order is None else self._hand_over(backends, order)
        for managed in backends:
            if managed in handed:
                continue
            worker = self._make_worker(managed)
            self._workers[managed.name] = worker
            worker.start()
        for managed in self._plugins.of_type(PluginType.COLLECTOR):
            managed.plugin.attach(self)
            collector = CollectorThread(
                managed,
                facts={**facts_of(self._run, managed.name), "run_redactor": redactor or Redactor()},
                interval_s=_interval_s(managed, collect_interval_s),
                emit=self.emit_metric,
                on_error=self.count_error,
            )
            self._collectors.append(collector)
            collector.start()

    def stop_sources(self) -> None:
        """End the collectors and the framework plug-ins: no record of theirs comes after this."""
        for collector in self._collectors:
            collector.request_stop()
        for collector in self._collectors:
            if not collector.join(_COLLECTOR_STOP_S):
                logger.warning("the collector %r does not end; it is left behind", collector.name)
        for managed in self._plugins.of_type(PluginType.FRAMEWORK):
            self._stop_framework(managed)

    def request_stop(
        self,
        timeout_s: float,
        ending: Callable[[], MetricData | None] | None = None,
        attempts: float = DRAIN_ATTEMPTS,
    ) -> Sequence[Delivery]:
        """Have every backend get what the journal holds, and end; see `DeliveryWorker.request_stop`.

        Returns:
            The deliveries, to wait for.
        """
        self._draining = True
        for worker in self._workers.values():
            worker.request_stop(timeout_s, ending, attempts)
        if self._sidecar is not None:
            self._sidecar.request_stop(ending() if ending is not None else None)
        return tuple(self._deliveries())

    def request_flush(self) -> list[Future[bool]]:
        """Have every backend get what is in the journal now; the results say whether they have."""
        flushes = [worker.flush() for worker in self._workers.values()]
        return flushes if self._sidecar is None else [*flushes, self._sidecar.flush()]

    def flush(self, timeout_s: float) -> bool:
        """The same, and wait for it; whether it was so in time."""
        flushed, late = concurrent.futures.wait(self.request_flush(), timeout_s)
        return not late and all(future.result() for future in flushed)

    def get_stats(self) -> dict[str, Any]:
        """Counts by backend, collector, source and plug-in error."""
        return {
            "sources": sorted(self._sources),
            "backends": {delivery.name: delivery.get_stats() for delivery in self._deliveries()},
            "rules": len(self._rules),
            "errors": dict(self._errors),
            "plugins": self._plugins.get_status(),
        }

    def url(self, backend: str) -> str | None:
        """Where a browser finds the run in a backend; None where that has no such place, or not yet.

        Raises:
            UsageError: There is no such backend.
        """
        known = [managed.name for managed in self._plugins.of_type(PluginType.BACKEND)]
        if backend not in known:
            raise UsageError(f"there is no backend {backend!r}{did_you_mean(backend, known)} in this experiment")
        return next((found.get_stats().url for found in self._deliveries() if found.name == backend), None)

    # -- inside --------------------------------------------------------------------------------------------------------

    def _deliveries(self) -> list[Delivery]:
        return [*self._workers.values(), *(self._sidecar.deliveries if self._sidecar is not None else ())]

    def _hand_over(self, backends: Sequence[ManagedPlugin], order: DeliveryOrder) -> Sequence[ManagedPlugin]:
        """Start a delivery process for the backends that it can have; gives these."""
        installed = [managed for managed in backends if managed.is_installed]
        processors = self._plugins.of_type(PluginType.PROCESSOR)
        if not installed:
            return ()
        if processors or any(rule.filter is not None for rule in self._rules):
            logger.info("delivery runs in threads: registered processors and filters are objects of this process")
            return ()
        try:
            configs = {managed.name: managed.config for managed in installed}
            rules = [rule.fields() for rule in self._rules]
            steps = {managed.name: list(self._steps(managed.name)) for managed in installed}
            sidecar = Sidecar(
                self._run, replace(order, backends=configs, processors=steps, rules=rules), self._alerting.notify
            )
            sidecar.start()
        except (OSError, TypeError) as error:  # No memory or no space for a process; a setting that is no JSON.
            logger.warning("no delivery process can be started, delivery runs in threads: %s", error)
            return ()
        self._sidecar = sidecar
        return installed

    def _start_framework(self, managed: ManagedPlugin, sink: MetricSink) -> None:
        try:
            plugin = managed.plugin
            if isinstance(plugin, TakesExperiment):
                plugin.set_experiment(sink)
            if isinstance(plugin, MetricSource):
                self.add_source(plugin)
            managed.initialize(facts_of(self._run, managed.name))
            managed.start()
        except Exception as error:
            managed.fail(error)
            self.count_error(managed.name, error)
            logger.warning("the framework plug-in %r can't start: %s", managed.name, error, exc_info=True)
            self._stop_framework(managed)

    def _stop_framework(self, managed: ManagedPlugin) -> None:
        try:
            managed.stop()
        except Exception as error:
            self.count_error(managed.name, error)
            logger.warning("stop() of the framework plug-in %r failed: %s", managed.name, error, exc_info=True)

    def _make_worker(self, managed: ManagedPlugin) -> DeliveryWorker:
        return DeliveryWorker(
            managed,
            self._run,
            facts=facts_of(self._run, managed.name),
            accepts=lambda metric: self._routes(metric, managed.name),
            processors=self._processors_of(managed.name),
            emit=self.emit_metric,
            on_error=self.count_error,
            is_live=self._is_live,
        )

    def steps(self, backend: str) -> list[ProcessorChain]:
        """The processors in front of a backend one by one, for a look at what they do; what they say is not kept."""
        sink, facts = PluginSink(_unheard, _unheard), facts_of(self._run, backend)
        chains = [ProcessorChain([managed], backend, sink) for managed in self._processors_of(backend)]
        for chain in chains:
            chain.start(facts)
        return chains

    def _processors_of(self, backend: str) -> list[ManagedPlugin]:
        """New processors for one backend: those of the settings, then copies of those that are registered."""
        registered = self._plugins.of_type(PluginType.PROCESSOR)
        chosen = [managed for managed in registered if managed.backends is None or backend in managed.backends]
        return [*self._made_steps(backend), *map(_copy, chosen)]

    def _made_steps(self, backend: str) -> list[ManagedPlugin]:
        made = [self._plugins.make(name, config) for name, config in self._steps(backend)]
        for managed in made:
            if managed.metadata.type is not PluginType.PROCESSOR:
                kind = managed.metadata.type.value
                raise PluginContractError(f"the plug-in {managed.name!r} is a {kind}, and no processor")
        return made

    def _routes(self, metric: MetricData, sink: str) -> bool:
        """Whether a backend gets a record. Called on the backend's thread."""
        rules = [rule for rule in self._rules if sink in rule.sinks]
        if any(self._matches(rule, metric) for rule in rules if rule.exclude):
            return False
        includes = [rule for rule in rules if not rule.exclude]
        return not includes or any(self._matches(rule, metric) for rule in includes)

    def _matches(self, rule: RoutingRule, metric: MetricData) -> bool:
        try:
            return rule.matches(metric)
        except Exception as error:  # The user's filter: its fault loses no record.
            if not self._filter_failed:
                self._filter_failed = True
                logger.warning("a routing rule's filter failed at %r: %s", metric.name, error, exc_info=True)
            return not rule.exclude


def _unheard(*_: object) -> None:
    """Takes what nobody wants to know."""


def facts_of(run: RunDirectory, plugin: str) -> dict[str, Any]:
    """What the run is, for the `initialize` of a plug-in."""
    identity = run.identity
    programs = [line.get("program") for line in first_lines(run.path) if line.get("role") == "main"]
    return {
        "run_name": identity.name,
        "run_id": identity.run_id,
        "run_uuid": identity.uuid,
        "run_project": identity.project,
        "run_created_s": identity.created_ns / 1e9,
        "run_program": programs[-1] if programs else None,
        "run_dir": run.path,
        "state_dir": delivery_directory(run.path, plugin),
    }


def _validate(managed: ManagedPlugin) -> None:
    try:
        managed.plugin.validate_config(managed.config)
    except TraceletError:
        raise
    except Exception as error:
        kind = managed.metadata.type.value
        raise SettingsError(f"the settings of the {kind} {managed.name!r} are wrong: {error}") from error


def _interval_s(managed: ManagedPlugin, default_s: float) -> float:
    given = managed.config.get("interval", default_s)
    try:
        interval_s = float(given)
    except (TypeError, ValueError):
        interval_s = math.nan
    if not 0 < interval_s < math.inf:
        raise SettingsError(f"the interval of the collector {managed.name!r} is no number of seconds: {given!r}")
    return interval_s


def _copy(processor: ManagedPlugin) -> ManagedPlugin:
    """A processor for one backend alone."""
    try:
        return ManagedPlugin(copy.deepcopy(processor.plugin), processor.config)
    except Exception as error:
        raise PluginContractError(
            f"the processor {processor.name!r} can't be copied, and each backend needs a copy of its own: {error}. "
            "Make what can't be copied in initialize(), not before"
        ) from error
