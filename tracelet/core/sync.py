"""Sends a run that has ended to backends: after an outage, or to one that was not there when the run was made.

Called on the thread of whoever asks; the backends run on threads of their own, as in a live run, from the same cursors:
what a backend has got is not sent again. Nothing is written to the journal: errors are in the log and in the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tracelet.core.draining import wait_for_workers
from tracelet.core.intake import Intake, NullJournal
from tracelet.core.orchestrator import DataFlowOrchestrator
from tracelet.core.plugins import PluginManager, PluginType
from tracelet.delivery.worker import WorkerStats
from tracelet.errors import PluginContractError, UsageError
from tracelet.journal.directory import RunDirectory
from tracelet.journal.load import Run
from tracelet.journal.status import RunStatus
from tracelet.settings import TraceletSettings

LONGEST_S: Final = 86_400.0


def sync_run(
    path: Path, backends: Sequence[str], settings: TraceletSettings, timeout_s: float = LONGEST_S
) -> dict[str, WorkerStats]:
    """Deliver what the backends have not got of a run.

    Args:
        path: The run directory.
        backends: Names of installed backends.
        settings: What is configured for them.
        timeout_s: How long to try, for all of them together.

    Returns:
        How each backend stands then; `waiting` is 0 for one that has everything.

    Raises:
        UsageError: The run is still running, and delivers itself.
        PluginNotFoundError, MissingDependencyError, SettingsError, PluginContractError: A backend can't be used.
        CorruptJournalError: There is no run, or it can't be read.
    """
    run = RunDirectory.open(path)
    identity = run.identity
    if Run(path).status is RunStatus.RUNNING:
        raise UsageError(f"the run {identity.run_id} is still running: its own process delivers it")
    plugins = PluginManager(
        allow=settings.plugins_allow, deny=settings.plugins_deny, configuration=settings.plugin_config
    )
    for name in backends:
        managed = plugins.load(name)
        if managed.metadata.type is not PluginType.BACKEND:
            raise PluginContractError(f"the plug-in {name!r} is a {managed.metadata.type.value}, and no backend")
    orchestrator = DataFlowOrchestrator(Intake(NullJournal(), run, keep_files=False), run, plugins)
    orchestrator.check()
    orchestrator.start(orchestrator, settings.collect_interval_s)
    workers = orchestrator.request_stop(timeout_s)
    wait_for_workers(workers, identity.run_id, timeout_s, settings.show_progress)
    return {worker.name: worker.get_stats() for worker in workers}
