"""The experiment: what users and adapters talk to.

Threads: `log_*` as `core.recorder` says; `start`, `stop` and `flush` on any one thread at a time. At the end of the
process an experiment that was not stopped is stopped: as `failed` if an exception ended the program. `sys.exit(3)` is
no exception there, for the interpreter does not tell its exit status; in a `with` block it makes the run `failed`.
"""

from __future__ import annotations

import atexit
import functools
import logging
import multiprocessing
import os
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.util import Finalize
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Self, final

from tracelet.collectors import register_defaults
from tracelet.core.alerts import Alert
from tracelet.core.arguments import Backends, Resume, listed_backends, resume_mode
from tracelet.core.draining import wait_for_workers
from tracelet.core.intake import Intake, Journal, NullJournal, check_name
from tracelet.core.orchestrator import DataFlowOrchestrator, RoutingRule
from tracelet.core.plugins import ManagedPlugin, PluginBase, PluginManager, PluginType
from tracelet.core.recorder import require_fields, tag_pairs
from tracelet.core.records import GIT_COMMIT_NAME, STATUS_NAME, MetricData, MetricSource, MetricType
from tracelet.core.resuming import Resumable, attempts_so_far, run_to_record
from tracelet.core.sidecar import DeliveryOrder
from tracelet.errors import ExperimentStateError, PluginContractError, RunExistsError, RunNotFoundError, UsageError
from tracelet.journal.directory import RunDirectory
from tracelet.journal.format import IDENTITY_FILE
from tracelet.journal.status import RunStatus
from tracelet.journal.summary import write_summary
from tracelet.journal.writer import JournalWriter, WriterRole
from tracelet.models.recorder import ModelRecorder
from tracelet.utils.git import head_commit
from tracelet.utils.interrupt import keep_interrupted

if TYPE_CHECKING:
    from tracelet.settings import TraceletSettings

__all__ = ["Backends", "Experiment", "Resume"]

logger = logging.getLogger(__name__)

_FINAL: Final = (RunStatus.FINISHED.value, RunStatus.FAILED.value)


@final
class Experiment(ModelRecorder, Resumable):
    """Records one run.

    ```python
    with Experiment("digits", config={"lr": 1e-3}) as experiment:
        for step in range(100):
            experiment.log_metric("train/loss", 1 / (step + 1), step)
    ```
    """

    _live: ClassVar[weakref.WeakValueDictionary[str, Experiment]] = weakref.WeakValueDictionary()
    _active: ClassVar[list[Experiment]] = []

    def __init__(
        self,
        name: str,
        backend: Backends | None = None,
        config: Any = None,
        tags: Mapping[str, str] | Sequence[str] | None = None,
        project: str | None = None,
        run_id: str | None = None,
        resume: Resume | bool | None = None,
        *,
        dir: str | os.PathLike[str] | None = None,
        collectors: Sequence[str] | None = None,
        settings: TraceletSettings | None = None,
        rank: int | None = None,
    ) -> None:
        """Prepare an experiment; nothing is written before `start()`.

        Args:
            name: For people; need not be unique.
            backend: Where the run goes besides the local disk: names, instances, or several. None: the setting
                `backend`.
            config: The hyper-parameters: a mapping, Namespace, dataclass or OmegaConf. Recorded as parameters at the
                start.
            tags: Key and value, or words.
            project: Groups runs. None: the setting `project`.
            run_id: Names the run, unique in its project. None: a new one is made.
            resume: What to do about `run_id`: `"allow"` (None) goes on with that run if it is there, `"must"` (True)
                demands that it is, `"never"` (False) that it is not. Or what `resume_state()` gave to a checkpoint:
                goes on with the checkpoint's run, unless `run_id` names another one.
            dir: Where runs are kept. None: the setting `dir`.
            collectors: Names of collectors. None: the setting `collectors`; without that, those that can run here.
            settings: In place of those of the environment and files; the other arguments win over them.
            rank: This process's rank, where several record one run.

        Raises:
            InvalidNameError: A name is no string.
            SettingsError: A setting is wrong.
            UsageError: `resume` is none of the above, or demands a run without naming it; or `config`, `tags` or
                `backend` is not what it should be.
            CorruptJournalError: `run_id` is there, and can't be read.
        """
        from tracelet.settings import TraceletSettings  # It imports pydantic, 0.2 s: not for `import tracelet`.

        for text in (name, *(given for given in (project, run_id) if given is not None)):
            check_name(text)
        self.name = name
        self._settings = settings or TraceletSettings.load()
        self._resume = resume_mode(resume, run_id)
        if config is not None:
            require_fields(config)
        root = Path(os.path.abspath(self._settings.dir if dir is None else dir))
        self._run = run_to_record(self._resume, run_id, project, root, name, self._settings.project)
        self.project = self._run.identity.project
        self._config, self._rank = config, rank
        self._tags = None if tags is None else dict(tag_pairs(tags))
        self._backends = listed_backends(self._settings.backend if backend is None else backend)
        self._collectors = self._settings.collectors if collectors is None else tuple(collectors)
        self._plugin_manager = PluginManager(
            allow=self._settings.plugins_allow,
            deny=self._settings.plugins_deny,
            configuration=self._settings.plugin_config,
        )
        self._prepare()

    def _prepare(self) -> None:
        """Make the parts of an experiment that has not been started."""
        self._journal: Journal = NullJournal()  # Until it is started, maybe in a forked child; and if it is disabled.
        self._intake = Intake(self._journal, self._run, keep_files=not self._settings.disabled)
        self._orchestrator = DataFlowOrchestrator(
            self._intake, self._run, self._plugin_manager, steps=self._settings.processors_of
        )
        self._role: WriterRole = "main"
        self._state: Literal["new", "running", "stopped"] = "new"
        self._pid = os.getpid()
        self._by_hand: tuple[ManagedPlugin, ...] = ()
        self._began_s = 0.0
        self._stopping = threading.Lock()
        self._at_exit = functools.partial(_stop_at_exit, weakref.ref(self))

    # -- what it is ----------------------------------------------------------------------------------------------------

    @property
    def run_id(self) -> str:
        """The run's id, unique in its project."""
        return self._run.identity.run_id

    @property
    def run_dir(self) -> Path:
        """Where the run is recorded."""
        return self._run.path

    @property
    def is_running(self) -> bool:
        """Whether records are taken."""
        return self._state == "running"

    def __repr__(self) -> str:
        return f"<Experiment {self.name!r}, run {self.run_id}: {self._state}>"

    # -- life cycle ----------------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Begin the run. What the user has to mend raises here; what only a backend suffers from does not.

        Raises:
            ExperimentStateError: It has been started before.
            RunNotFoundError: `resume="must"` and the run is not there.
            RunExistsError: `resume="never"` and it is.
            PluginNotFoundError: A backend or collector is not installed.
            MissingDependencyError: A package that one of them needs is not installed.
            SettingsError: A backend's configuration is wrong.
        """
        if self._state != "new":
            raise ExperimentStateError(
                f"the experiment {self.name!r} was started before. Make a new Experiment; with "
                f"run_id={self.run_id!r} it goes on with this run"
            )
        there = os.path.exists(self._run.path / IDENTITY_FILE)
        if self._resume == "must" and not there:
            raise RunNotFoundError(f"there is no run {self.run_id!r} in {self._run.path.parent} to resume")
        if self._resume == "never" and there:
            raise RunExistsError(f"the run {self.run_id!r} is there already: {self._run.path}")
        self._by_hand = tuple(self._plugin_manager)
        for backend in self._backends:
            self._load_plugin(backend, PluginType.BACKEND)
        for collector in self._collectors or ():
            self._load_plugin(collector, PluginType.COLLECTOR)
        if self._collectors is None:
            register_defaults(self._plugin_manager, self._settings)
        self._orchestrator.check()
        self._go("main", 1 + attempts_so_far(self._run.path))
        return self

    def _go(self, role: WriterRole, attempt: int) -> None:
        settings = self._settings
        if not settings.disabled:
            self._journal = self._intake.journal = JournalWriter(
                self._run,
                role=role,
                attempt=attempt,
                rank=self._rank,
                delivers=settings.deliver_ranks,
                mode=settings.journal_mode,
                max_segment_bytes=settings.segment_bytes,
                sync_interval_s=settings.sync_interval_s,
                heartbeat_s=settings.heartbeat_s,
                redactor=settings.redactor(),
            )
        self._role, self._pid = role, os.getpid()
        self._state, self._began_s = "running", time.monotonic()
        Experiment._active.append(self)
        Experiment._live[os.fspath(self._run.path)] = self
        before = getattr(sys, "last_value", None)
        atexit.register(self._at_exit, before)
        if multiprocessing.parent_process() is not None:  # A forked child of that package ends without `atexit`.
            Finalize(None, self._at_exit, (before,), exitpriority=0)
        if role != "main":  # Its files come with its first record: a rank that logs nothing leaves none.
            return
        self._journal.open()
        self._go_back()
        if self._config is not None:
            self.log_params(self._config)
        if self._tags:
            self.set_tags(self._tags)
        if commit := head_commit():
            self._intake.record(GIT_COMMIT_NAME, commit, MetricType.CUSTOM)
        if not settings.disabled:
            self._intake.hashing.put_all()
            self._orchestrator.start(self, settings.collect_interval_s, self._order(), settings.redactor())

    def stop(self, status: str | RunStatus = "finished", error: str | None = None) -> None:
        """End the run, and give the backends what they have not got yet, for up to the setting `stop_timeout_s`.

        What is left then stays in the journal; a warning says which command sends it. A second call does nothing, and
        in a forked child or an attached process the call ends that process's part only.

        Args:
            status: `finished` or `failed`.
            error: What happened, for a run that failed.

        Raises:
            UsageError: `status` is neither.
        """
        value = status.value if isinstance(status, RunStatus) else status
        if value not in _FINAL:
            raise UsageError(f"a run ends as 'finished' or 'failed', not as {status!r}")
        if self._state != "running" or not self._stopping.acquire(blocking=False):
            return
        atexit.unregister(self._at_exit)
        stop_by_s = time.monotonic() + self._settings.stop_timeout_s
        main = self._role == "main" and os.getpid() == self._pid
        if main:
            self._orchestrator.stop_sources()
        self._intake.resolver.drain(max(self._settings.stop_timeout_s, 10.0))  # The run's last values can't wait.
        if main:
            details = {"duration_s": time.monotonic() - self._began_s, **({} if error is None else {"error": error})}
            end = MetricData(STATUS_NAME, value, MetricType.CUSTOM, None, time.time(), metadata=details)
            self._intake.emit(end)
        self._state = "stopped"
        self._journal.series.clear()  # What the fast path of `log_metric` goes by.
        self._intake.resolver.close()
        if self in Experiment._active:
            Experiment._active.remove(self)
        try:
            if main:  # Ctrl-C ends the waiting; nothing is lost by it.
                timeout_s = self._settings.stop_timeout_s
                workers = self._orchestrator.request_stop(timeout_s, lambda: end)
                wait_for_workers(workers, self.run_id, timeout_s, self._settings.show_progress)
        finally:
            self._intake.hashing.close(stop_by_s - time.monotonic())
            self._journal.close()
            write_summary(self._run.path)
            self._journal.series.clear()  # Once more: a call that was under way may have come with a new series.
        if self._journal.lost:
            logger.warning("The run %s: %d records could not be kept", self.run_dir, self._journal.lost)

    def reopen(self) -> Experiment:
        """The experiment that records this run now: for an adapter, which may outlive the one that it began with.

        Returns:
            This one while it runs, or another one of this process that records the run. Else one that is started here:
            this one if it is new, or its successor, the run's next attempt, with the same backends, collectors,
            plug-ins and routing rules.

        Raises:
            CorruptJournalError: The run is there, and can't be read.
            TraceletError: What `start()` raises.
        """
        known = Experiment._live.get(os.fspath(self._run.path), self)
        if known.is_running:
            return known
        if self._state == "new":
            return self.start()
        if self._role == "attached" or os.getpid() != self._pid:  # Another process leads the run.
            return Experiment._attach(self._run, self._settings, self._rank)
        successor = self._successor()()
        for managed in self._by_hand:
            successor.register_plugin(managed.plugin, managed.config, managed.backends)
        for rule in self._orchestrator.rules:
            successor.add_routing_rule(rule)
        for callback in self._orchestrator.alert_callbacks:
            successor.on_alert(callback)
        return successor.start()

    def __enter__(self) -> Self:
        if self._state == "new":
            self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(error)

    def _end(self, error: BaseException | None) -> None:
        """Stop, after `error`. `sys.exit()` and `sys.exit(0)` are no failures."""
        if error is None or (isinstance(error, SystemExit) and error.code in (None, 0)):
            self.stop()
        else:
            self.stop("failed", error="".join(traceback.format_exception(error)))

    def flush(self, timeout: float = 60.0) -> bool:
        """Wait until devices have computed what has been logged so far, and every backend has got it.

        Args:
            timeout: In seconds.

        Returns:
            Whether that was so in time.
        """
        deadline_s = time.monotonic() + timeout
        computed = self._intake.resolver.drain(timeout)
        # A forked child has no workers: its records go the way of the run.
        delivered = os.getpid() != self._pid or self._orchestrator.flush(deadline_s - time.monotonic())
        return self._intake.hashing.drain(deadline_s - time.monotonic()) and computed and delivered

    @classmethod
    def active(cls) -> Experiment | None:
        """The experiment that was started last in this process and is still running."""
        return cls._active[-1] if cls._active else None

    # -- how it stands -------------------------------------------------------------------------------------------------

    def url(self, backend: str) -> str | None:
        """Where a browser finds the run in a backend; None where that has no such place, or not yet.

        Raises:
            UsageError: The experiment has no such backend.
        """
        return self._orchestrator.url(backend)

    def status(self) -> dict[str, Any]:
        """How the run and its deliveries stand. `pending`: values that devices still compute."""
        facts = {"state": self._state, "run_id": self.run_id, "run_dir": os.fspath(self.run_dir)}
        values = {"lost": self._journal.lost, **self._intake.resolver.get_stats()}
        return {**facts, **values, **self._orchestrator.get_stats()}

    # -- parts ---------------------------------------------------------------------------------------------------------

    def register_plugin(
        self, plugin: PluginBase, config: Mapping[str, Any] | None = None, backends: Sequence[str] | None = None
    ) -> None:
        """Add a plug-in of your own, before `start()`.

        Args:
            plugin: An instance that nothing has been called of.
            config: Wins over the plug-in's settings.
            backends: Of a processor: the backends that it is for. None: all of them.

        Raises:
            PluginContractError: It is no valid plug-in, or its name is taken.
            ExperimentStateError: The experiment has been started.
        """
        if self._state != "new":
            raise ExperimentStateError("plug-ins are registered before start()")
        self._plugin_manager.register_plugin(plugin, config).backends = backends

    def on_alert(self, callback: Callable[[Alert], object]) -> None:
        """Have a function called with each `Alert` of a processor, on a thread of Tracelet's; an error of it is logged.

        It comes when the record is delivered, so some tenths of a second after it was logged.
        """
        self._orchestrator.on_alert(callback)

    def add_routing_rule(self, rule: RoutingRule) -> None:
        """Say which records reach which backends; see `RoutingRule`."""
        self._orchestrator.add_routing_rule(rule)

    def add_source(self, source: MetricSource) -> None:
        """Make a source known, so that `status()` names it."""
        self._orchestrator.add_source(source)

    # -- copies --------------------------------------------------------------------------------------------------------

    def __reduce__(self) -> tuple[Callable[..., Experiment], tuple[Any, ...]]:
        """A copy is the same experiment: in this process the same object, in another one a part of the same run.

        Of an experiment that is not running it is one that can be started.
        """
        if self._state == "running":
            return _joined, (os.fspath(self._run.path), self._run.identity, self._settings, self._rank)
        return self._successor(), ()

    def _successor(self) -> functools.partial[Experiment]:
        """Makes an experiment that begins this run, or goes on with it."""
        is_new = self._state == "new"
        config, tags, resume = (self._config, self._tags, self._resume) if is_new else (None, None, None)
        return functools.partial(
            Experiment, self.name, self._backends, config, tags, self.project, self.run_id, resume,
            dir=self._run.path.parent.parent, collectors=self._collectors, settings=self._settings, rank=self._rank,
        )  # fmt: skip

    def __deepcopy__(self, memo: dict[int, Any]) -> Experiment:
        return self

    @classmethod
    def attach(cls, run_dir: str | os.PathLike[str], *, rank: int | None = None) -> Experiment:
        """Join a run from another process: what is logged here becomes part of it.

        Delivery and the status stay with the process that started the run.

        Raises:
            CorruptJournalError: There is no run, or it can't be read.
        """
        from tracelet.settings import TraceletSettings

        run = RunDirectory.open(Path(os.path.abspath(run_dir)))
        return cls._attach(run, TraceletSettings.load(), rank)

    @classmethod
    def _attach(cls, run: RunDirectory, settings: TraceletSettings, rank: int | None) -> Experiment:
        known = cls._live.get(os.fspath(run.path))
        if known is not None and known.is_running:
            return known
        joined = cls.__new__(cls)
        joined._become_part_of(run, settings, rank)  # noqa: SLF001  It is one of us.
        return joined

    def _become_part_of(self, run: RunDirectory, settings: TraceletSettings, rank: int | None) -> None:
        """What `__init__` and `start` are to a new experiment."""
        self.name, self.project = run.identity.name, run.identity.project
        self._settings, self._resume, self._run, self._rank = settings, "allow", run, rank
        self._config = self._tags = None
        self._backends, self._collectors = (), ()
        self._plugin_manager = PluginManager()
        self._prepare()
        self._go("attached", max(attempts_so_far(run.path), 1))

    # -- inside --------------------------------------------------------------------------------------------------------

    def _require_running(self) -> None:
        if self._state == "running":
            return
        remedy = "call start() first" if self._state == "new" else "make a new one; with the same run_id it goes on"
        raise ExperimentStateError(f"the experiment {self.name!r} is {self._state}: {remedy}")

    def _order(self) -> DeliveryOrder | None:
        """For a delivery process, where one is wanted and there is an interpreter to run it."""
        if self._settings.delivery == "thread" or not sys.executable or getattr(sys, "frozen", False):
            return None
        return DeliveryOrder(
            os.fspath(self.run_dir),
            allow=self._settings.plugins_allow,
            deny=self._settings.plugins_deny,
            linger_s=self._settings.delivery_linger_s,
            keep_local=self._settings.keep_local,
        )

    def _load_plugin(self, plugin: str | PluginBase, kind: PluginType) -> None:
        manager = self._plugin_manager
        managed = manager.load(plugin) if isinstance(plugin, str) else manager.register_plugin(plugin)
        if managed.metadata.type is not kind:
            raise PluginContractError(
                f"the plug-in {managed.name!r} is a {managed.metadata.type.value}, and no {kind.value}"
            )


def _joined(path: str, identity: Any, settings: TraceletSettings, rank: int | None) -> Experiment:
    """What a pickled experiment becomes that was running."""
    run = RunDirectory(Path(path), identity)
    return Experiment._attach(run, settings, rank)  # noqa: SLF001  A part of the class, for pickle.


def _stop_at_exit(reference: weakref.ref[Experiment], before: BaseException | None) -> None:
    """Stop an experiment that the program did not stop itself. `before`: what had been noted when it was started."""
    # The former in a child process. The latter is noted when the exception is printed that the interpreter ends with.
    experiment, error = reference(), sys.exception() or getattr(sys, "last_value", None)
    if experiment is not None:
        experiment._end(None if error is before else error)  # noqa: SLF001  A part of the class, for `atexit`.
        keep_interrupted(error)
