"""Waits for the backends at the end of a run, and says what is left. On the thread that stops the experiment."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence
from typing import Final, Protocol

from tracelet.delivery.stats import WorkerStats

logger = logging.getLogger(__name__)

_QUIET_S: Final = 0.5  # A run that is delivered in this time ends without a word.
_GRACE_S: Final = 1.0  # For a worker to notice its own deadline and say so, rather than be cut off.


class Delivery(Protocol):
    """The delivery to one backend, in this process or in another one."""

    name: str

    @property
    def gave_up(self) -> bool:
        """Whether nothing more will be delivered before the user acts."""

    @property
    def goes_on(self) -> str | None:
        """Who goes on with it when nobody waits any more; None where nobody does."""

    def join(self, timeout_s: float) -> bool:
        """Wait for the end; whether it has come."""

    def waiting(self) -> int:
        """Records in the journal that the backend has not got."""

    def get_stats(self) -> WorkerStats:
        """How it stands."""


def wait_for_workers(workers: Sequence[Delivery], run_id: str, timeout_s: float, show: bool | None) -> None:
    """Wait until all workers have ended, with a progress bar on a terminal; report what they could not deliver.

    Args:
        workers: Asked to stop already.
        run_id: The run, as the command in the report names it.
        timeout_s: For all of them together.
        show: Whether to show progress; None: on a terminal only.
    """
    deadline_s = time.monotonic() + timeout_s + _GRACE_S
    try:
        _join(workers, min(_QUIET_S, timeout_s))
        left = [worker for worker in workers if not worker.join(0)]
        if left and (_is_on_terminal() if show is None else show):
            _show_progress(left, deadline_s)
        else:
            _join(left, deadline_s - time.monotonic())
    finally:  # Also when Ctrl-C ended the waiting.
        for worker in workers:
            _report(worker, run_id)


def _join(workers: Sequence[Delivery], timeout_s: float) -> None:
    deadline_s = time.monotonic() + timeout_s
    for worker in workers:
        worker.join(max(0.0, deadline_s - time.monotonic()))


def _show_progress(workers: Sequence[Delivery], deadline_s: float) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("[progress.description]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    # Without a thread of its own, which could not be started any more when the interpreter is on its way out.
    with Progress(*columns, console=Console(stderr=True), transient=True, auto_refresh=False) as progress:
        bars = []
        for worker in workers:
            total = worker.waiting()
            bars.append((worker, total, progress.add_task(f"{worker.name}: delivering", total=total)))
        while time.monotonic() < deadline_s and not all(worker.join(0.05) for worker in workers):
            for worker, total, bar in bars:
                progress.update(bar, completed=total - worker.waiting())
            progress.refresh()


def _is_on_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()  # A program without a console has None.


def _report(worker: Delivery, run_id: str) -> None:
    waiting = worker.waiting()
    if worker.goes_on:
        logger.warning(
            "%d records are still on their way to %r: %s. See: tracelet status %s",
            waiting, worker.name, worker.goes_on, run_id,
        )  # fmt: skip
    elif waiting and not worker.gave_up:  # One that gave up has said so itself.
        logger.warning(
            "%d records have not reached %r. They are kept; send them with: tracelet sync %s --to %s",
            waiting, worker.name, run_id, worker.name,
        )  # fmt: skip
    elif not worker.join(0):
        logger.warning("%r has got everything, but it does not end; it is left behind", worker.name)
