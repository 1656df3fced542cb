"""What the commands about delivery share: which backends are meant, and how they stand. On the main thread."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from tracelet.cli._render import Column, clean, duration, print_table, texts
from tracelet.delivery.report import DeliveryStatus, known_backends
from tracelet.errors import UsageError
from tracelet.journal.load import Run

if TYPE_CHECKING:
    from tracelet.settings import TraceletSettings

ToOption = Annotated[
    list[str] | None,
    typer.Option(
        "--to",
        metavar="BACKEND",
        help="Which backend. Repeat it for more.  [default: where it went, or the setting `backend`]",
    ),
]


def chosen_backends(run: Run, to: Iterable[str] | None, settings: TraceletSettings) -> tuple[str, ...]:
    """The backends that a command means.

    Raises:
        UsageError: None is named, and the run has been sent nowhere.
    """
    given = [name.strip() for names in to or () for name in names.split(",") if name.strip()]
    backends = dict.fromkeys(given or known_backends(run.path) or settings.backend)
    if not backends:
        raise UsageError(f"the run {run.id} has been sent nowhere yet: say where with --to. See `tracelet plugins`")
    return tuple(backends)


def delivery_facts(status: DeliveryStatus) -> dict[str, Any]:
    """For JSON."""
    facts = asdict(status)
    report = facts.pop("report")
    return {**facts, "state": state_of(status), "error": report["last_error"], "url": report["url"], "worker": report}


def state_of(status: DeliveryStatus) -> str:
    """How the delivery stands, in a word that says whether anything is left to do."""
    if status.is_active:
        return status.report.state
    if status.waiting:
        return "stopped"
    return "complete" if status.closed else "up to date"


def print_deliveries(console: Console, rows: Sequence[tuple[str, DeliveryStatus]]) -> None:
    """A line for each run and backend, then what went wrong and where the runs are."""
    statuses = [status for _, status in rows]

    def counts(attribute: str, style: str) -> list[Text]:
        values = [getattr(status, attribute) for status in statuses]
        return [Text(f"{value:,}", style if value else "") for value in values]

    columns = [
        Column("RUN", texts(run for run, _ in rows)),
        Column("BACKEND", texts(status.backend for status in statuses)),
        Column("STATE", texts(map(state_of, statuses)), rank=1),
        Column("DELIVERED", counts("delivered", ""), right=True),
        Column("WAITING", counts("waiting", "yellow"), right=True),
        Column("REJECTED", counts("rejected", "red"), right=True),
    ]
    if any(status.is_active and status.waiting for status in statuses):
        behind = [duration(status.lag_s) if status.is_active and status.waiting else "-" for status in statuses]
        columns.append(Column("BEHIND", texts(behind), right=True, rank=2))
    print_table(console, columns)
    for run, status in rows:
        if status.report.last_error and (status.waiting or status.rejected):
            error = clean(status.report.last_error)
            console.print(f"{run}, {status.backend}: {error}", style="yellow", soft_wrap=True, markup=False)
        if status.uploads:
            waiting = "1 artifact waits" if status.uploads == 1 else f"{status.uploads} artifacts wait"
            console.print(f"{run}, {status.backend}: {waiting}; metrics pass them", soft_wrap=True, markup=False)
        if status.report.url:
            console.print(f"{run}, {status.backend}: {clean(status.report.url)}", soft_wrap=True, markup=False)
