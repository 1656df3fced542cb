"""`tracelet prune`: deletes runs, or what they keep; shows first what would go. On the main thread."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.text import Text

from tracelet.cli._options import JsonOption, ProjectOption, runs_directory
from tracelet.cli._render import Column, ago, plural, print_json, print_table, quantity, status_text, stdout, texts
from tracelet.errors import UsageError
from tracelet.journal.status import RunStatus

_SECONDS: Final = {"s": 1, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}
_BYTES: Final = {
    "b": 1,
    **{f"{unit}b": 1000**power for power, unit in enumerate("kmgt", 1)},
    **{f"{unit}ib": 1024**power for power, unit in enumerate("kmgt", 1)},
}


def prune(
    directory: Annotated[
        Path | None,
        typer.Argument(metavar="DIR", help="Directory that holds the runs.  [default: the setting `dir`]"),
    ] = None,
    older_than: Annotated[
        str | None, typer.Option("--older-than", metavar="AGE", help="Runs that ended so long ago: 30d, 12h, 2w.")
    ] = None,
    larger_than: Annotated[
        str | None, typer.Option("--larger-than", metavar="SIZE", help="Where more than this would go: 500MB, 1GB.")
    ] = None,
    status: Annotated[
        str | None, typer.Option("--status", metavar="STATUS", help="Runs that ended so: `failed,killed`.")
    ] = None,
    project: ProjectOption = None,
    keep: Annotated[int, typer.Option("--keep", metavar="N", min=0, help="The newest N of each project stay.")] = 0,
    artifacts_only: Annotated[bool, typer.Option("--artifacts-only", help="Only the files of artifacts.")] = False,
    media_only: Annotated[bool, typer.Option("--media-only", help="Only images, sounds and the like.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run/--yes", help="Show what would go, or delete it.")] = True,
    json: JsonOption = False,
) -> None:
    """Delete runs, or the files that they keep. Without `--yes` nothing is deleted, only shown.

    What a process may still write stays, and what a backend has not got.
    """
    from tracelet.core.pruning import Criteria, Part, freed_bytes, plan_pruning
    from tracelet.core.pruning import prune as delete
    from tracelet.settings import TraceletSettings

    if artifacts_only and media_only:
        raise typer.BadParameter("--artifacts-only and --media-only exclude one another")
    part = Part.ARTIFACTS if artifacts_only else Part.MEDIA if media_only else Part.ALL
    criteria = Criteria(
        older_than_s=None if older_than is None else _amount(older_than, _SECONDS, "--older-than"),
        larger_than_bytes=None if larger_than is None else byte_count(larger_than, "--larger-than"),
        statuses=_statuses(status),
        project=project,
        keep=keep,
        part=part,
    )
    if criteria.is_open and not dry_run:
        raise UsageError("this means all runs: say which, with --older-than, --status, --project, --keep …")
    backends = TraceletSettings.load().backend
    planned = plan_pruning(runs_directory(directory), criteria, backends)
    would_free_bytes = freed_bytes([pruned for pruned in planned if pruned.kept_because is None], part)
    reasons = {pruned.run.path: pruned.kept_because for pruned in planned}
    if not dry_run:
        reasons |= {pruned.run.path: why for pruned, why in delete(planned, part, backends)}
    went = sum(why is None for why in reasons.values())
    if json:
        rows: list[dict[str, Any]] = [
            {
                "run": pruned.run.id,
                "project": pruned.run.project,
                "path": pruned.run.path,
                "size_bytes": pruned.size_bytes,
                "kept_because": reasons[pruned.run.path],
            }
            for pruned in planned
        ]
        print_json({"deleted": not dry_run, "part": part.value, "freed_bytes": would_free_bytes, "runs": rows})
        return
    console = stdout()
    if not planned:
        console.print("No run answers to this.")
        return
    verb = "goes" if dry_run else "deleted"
    print_table(console, [
        Column("RUN", texts(pruned.run.id for pruned in planned)),
        Column("NAME", texts(pruned.run.name for pruned in planned), limit=20, rank=2),
        Column("PROJECT", texts(pruned.run.project for pruned in planned), limit=16, rank=3),
        Column("STATUS", [status_text(pruned.run.status) for pruned in planned]),
        Column("ENDED", texts(ago(pruned.ended_s) for pruned in planned), rank=1),
        Column("SIZE", texts(quantity("size_bytes", pruned.size_bytes) for pruned in planned), right=True),
        Column("", [Text(verb, "red") if (why := reasons[pruned.run.path]) is None else Text(f"stays: {why}", "yellow")
                    for pruned in planned], limit=60),
    ])  # fmt: skip
    console.print()
    what = "" if part is Part.ALL else f"the {part.value} of "
    size = quantity("size_bytes", would_free_bytes)
    if dry_run:
        console.print(f"Would delete {what}{plural(went, 'run')} and free {size}. Do it with --yes.")
    else:
        console.print(f"Deleted {what}{plural(went, 'run')}: {size}.")


def byte_count(text: str, option: str) -> int:
    """A size such as `500MB` or `1GiB`, in bytes."""
    return int(_amount(text, _BYTES, option))


def _amount(text: str, units: dict[str, int], option: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]+)", text.strip().lower())
    if match is None or match[2] not in units:
        raise typer.BadParameter(f"{option} takes a number and one of {', '.join(units)}: not {text!r:.50}")
    return float(match[1]) * units[match[2]]


def _statuses(text: str | None) -> frozenset[RunStatus]:
    words = [word.strip() for word in (text or "").split(",") if word.strip()]
    known = {status.value: status for status in RunStatus}
    if wrong := [word for word in words if word not in known]:
        raise typer.BadParameter(f"--status takes {', '.join(known)}: not {wrong[0]!r:.50}")
    return frozenset(known[word] for word in words)
