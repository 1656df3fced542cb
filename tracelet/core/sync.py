"""Sends a run to backends from outside its process: after an outage, or to one that was not there when it was made.

Called on the thread of whoever asks; the backends run on threads of their own, as in a live run, from the same cursors:
what a backend has got is not sent again. Nothing is written to the journal: errors are in the log and in the result.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tracelet.core.draining import wait_for_workers
from tracelet.core.intake import Intake, NullJournal
from tracelet.core.orchestrator import DataFlowOrchestrator
from tracelet.core.plugins import PluginManager, PluginType
from tracelet.core.pruning import let_go
from tracelet.delivery.lease import is_leased
from tracelet.delivery.report import DeliveryReport, DeliveryStatus
from tracelet.delivery.worker import DRAIN_ATTEMPTS
from tracelet.errors import PluginContractError, UsageError
from tracelet.journal.directory import RunDirectory, delivery_directory
from tracelet.journal.manifests import Finisher
from tracelet.journal.watch import RunWatch
from tracelet.settings import TraceletSettings

_LONGEST_S: Final = 86_400.0
_POLL_S: Final = 0.5


def sync_run(
    path: Path,
    backends: Sequence[str],
    settings: TraceletSettings,
    *,
    timeout_s: float | None = None,
    follow: bool = False,
) -> dict[str, DeliveryStatus]:
    """Deliver what the backends have not got of a run.

    Args:
        path: The run directory.
        backends: Names of installed backends.
        settings: What is configured for them.
        timeout_s: How long to try where a backend is away, in seconds. None: a few attempts.
        follow: Go on until the run has ended. Else a run that is running is delivered as far as it has come.

    Returns:
        How each backend stands then; `waiting` is 0 for one that has everything.

    Raises:
        UsageError: Another process is delivering the run to one of the backends.
        PluginNotFoundError, MissingDependencyError, SettingsError, PluginContractError: A backend can't be used.
        CorruptJournalError: There is no run, or it can't be read.
    """
    run = RunDirectory.open(path)
    for name in backends:
        refuse_if_leased(run, name)
    make_orchestrator(path, backends, settings)[0].check()
    watch = RunWatch(run)
    end = watch.look()
    wanting = [name for name in backends if end is None or DeliveryStatus.of(run, name, end).waiting]
    orchestrator, _ = make_orchestrator(path, wanting, settings)
    orchestrator.start(orchestrator, settings.collect_interval_s)
    try:
        while follow and watch.look() is None:
            time.sleep(_POLL_S)
    finally:  # Also after Ctrl-C: what is under way is brought to an end.
        limit_s, attempts = (_LONGEST_S, DRAIN_ATTEMPTS) if timeout_s is None else (timeout_s, float("inf"))
        workers = orchestrator.request_stop(limit_s, lambda: RunWatch(run).look(), attempts)
        wait_for_workers(workers, run.identity.run_id, limit_s, settings.show_progress)
    end = watch.look()
    if end is not None:  # While a run is going on it hashes its artifacts itself.
        Finisher(path).finish_all()
    statuses = {name: DeliveryStatus.of(run, name, end) for name in backends}
    if end is not None:
        let_go(path, settings.keep_local, settings.backend)
    return statuses


def refuse_if_leased(run: RunDirectory, backend: str) -> None:
    """Say so where a process delivers the run to a backend already: its own one, or another `tracelet sync`.

    Raises:
        UsageError: It does.
    """
    directory = delivery_directory(run.path, backend)
    if is_leased(directory):
        pid = DeliveryReport.read(directory).pid
        raise UsageError(
            f"the run {run.identity.run_id} is being delivered to {backend!r} by process {pid} at this moment. "
            f"Wait for it, or look at it: tracelet status {run.identity.run_id}"
        )


def make_orchestrator(
    path: Path, backends: Sequence[str], settings: TraceletSettings
) -> tuple[DataFlowOrchestrator, PluginManager]:
    """An orchestrator that delivers a run from outside its process, and its plug-ins.

    Raises:
        PluginNotFoundError, MissingDependencyError, PluginContractError: A backend can't be used.
        CorruptJournalError: There is no run, or it can't be read.
    """
    run = RunDirectory.open(path)
    plugins = PluginManager(
        allow=settings.plugins_allow, deny=settings.plugins_deny, configuration=settings.plugin_config
    )
    for name in backends:
        managed = plugins.load(name)
        if managed.metadata.type is not PluginType.BACKEND:
            raise PluginContractError(f"the plug-in {name!r} is a {managed.metadata.type.value}, and no backend")
    intake = Intake(NullJournal(), run, keep_files=False)
    return DataFlowOrchestrator(intake, run, plugins, steps=settings.processors_of, is_live=False), plugins
