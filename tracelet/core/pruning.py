"""Deletes runs, or the files of artifacts and media that they keep: chosen by age, size, status and project.

Called on the thread of whoever asks. `plan_pruning` looks, `prune` deletes what it found, looking once more at each.

Guarantee: no run goes that a process may still write or deliver, nor one of which a backend has not got everything: one
that it was sent to, or one of the setting `backend`. What goes is first renamed out of sight, `<dir>/.trash/…`: after a
kill a run is whole or gone, and the next pruning takes away the rest.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import stat
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final, final
from urllib.parse import unquote

from tracelet.delivery.lease import LOCK_FILE, Lease, is_leased
from tracelet.delivery.report import DeliveryStatus
from tracelet.errors import JournalError, UsageError
from tracelet.journal.directory import RunDirectory, delivery_directory, make_private_directory
from tracelet.journal.load import Run, list_runs
from tracelet.journal.status import RunStatus
from tracelet.journal.watch import RunWatch

logger = logging.getLogger(__name__)

TRASH: Final = ".trash"
_ABANDONED_S: Final = 86_400.0
_BLOCK_BYTES: Final = 512  # The unit of `st_blocks`, whatever the filesystem has.


@final
class Part(Enum):
    """What of a run goes."""

    ALL = "run"
    ARTIFACTS = "artifacts"
    MEDIA = "media"


@final
@dataclass(frozen=True, slots=True)
class Criteria:
    """Which runs are meant: those that all of it holds for.

    Attributes:
        older_than_s: They ended that long ago, in seconds.
        larger_than_bytes: What would go of them is larger.
        statuses: How they ended; empty: anyhow.
        project: Theirs; None: any.
        keep: The newest so many of each project stay.
        part: What of them goes.
    """

    older_than_s: float | None = None
    larger_than_bytes: int | None = None
    statuses: frozenset[RunStatus] = frozenset()
    project: str | None = None
    keep: int = 0
    part: Part = Part.ALL

    @property
    def is_open(self) -> bool:
        """Whether nothing limits it but the part."""
        return self == Criteria(part=self.part)


@final
@dataclass(frozen=True, slots=True)
class Pruned:
    """A run that is meant.

    Attributes:
        run: The run.
        ended_s: When it ended: Unix time in seconds.
        size_bytes: What would go takes so much of the disk; the same file twice counts once.
        kept_because: Why it stays all the same; None: it goes.
    """

    run: Run
    ended_s: float
    size_bytes: int
    kept_because: str | None


def plan_pruning(directory: Path, criteria: Criteria, backends: Sequence[str]) -> list[Pruned]:
    """The runs of a directory that are meant, the newest first.

    Args:
        directory: As the setting `dir`.
        criteria: Which.
        backends: The setting `backend`: these have to have everything, too.
    """
    found, seen, now_s = [], Counter[str](), time.time()
    for run in list_runs(directory, criteria.project):
        seen[run.project] += 1
        if seen[run.project] <= criteria.keep or (criteria.statuses and run.status not in criteria.statuses):
            continue
        ended_s = run.ended_s or now_s
        if criteria.older_than_s is not None and now_s - ended_s < criteria.older_than_s:
            continue
        size_bytes = sum(_sizes(_places(run.path, criteria.part)).values())
        if size_bytes <= (criteria.larger_than_bytes or 0):  # Of a part there may be nothing; a run has its journal.
            continue
        found.append(Pruned(run, ended_s, size_bytes, _obstacle(run.path, backends)))
    return found


def in_use(path: Path, *, is_leased_by_us: bool = False) -> str | None:
    """What a process does with a run at this moment; None if none does anything."""
    try:
        run = Run(path)
        if run.status is RunStatus.RUNNING or run.is_written:
            return "a process is writing it"
    except (JournalError, OSError) as error:
        return f"it can't be read: {error}"
    sending = [] if is_leased_by_us else [name for name in _backends(path) if is_leased(delivery_directory(path, name))]
    return f"it is being sent to {sending[0]}" if sending else None


def _obstacle(path: Path, backends: Sequence[str], *, is_leased_by_us: bool = False) -> str | None:
    """Why a run may not go; None if it may."""
    if (why := in_use(path, is_leased_by_us=is_leased_by_us)) is not None:
        return why
    run = RunDirectory.open(path)
    end = RunWatch(run).look()
    for backend in sorted({*_backends(path), *backends}):
        if waiting := DeliveryStatus.of(run, backend, end).waiting:
            return f"{waiting:,} records are not at {backend} yet"
    return None


def freed_bytes(chosen: Iterable[Pruned], part: Part) -> int:
    """What the disk gets back. A file that has a link elsewhere, the user's own checkpoint say, frees nothing."""
    counts: Counter[tuple[int, int]] = Counter()
    facts: dict[tuple[int, int], os.stat_result] = {}
    for pruned in chosen:
        for status in _files(_places(pruned.run.path, part)):
            key = (status.st_dev, status.st_ino)
            counts[key] += 1
            facts[key] = status
    return sum(facts[key].st_blocks * _BLOCK_BYTES for key, count in counts.items() if count >= facts[key].st_nlink)


def prune(chosen: Iterable[Pruned], part: Part, backends: Sequence[str]) -> Iterator[tuple[Pruned, str | None]]:
    """Delete what was planned, run by run; yields each, with the reason where it stays after all."""
    for pruned in chosen:
        yield pruned, pruned.kept_because or remove(pruned.run.path, part, backends)


def remove(path: Path, part: Part, backends: Sequence[str] | None) -> str | None:
    """Delete a run, or a part of it; returns why not, if it must stay. Also clears away what kills have left.

    Args:
        path: The run directory.
        part: What goes.
        backends: As for `plan_pruning`. None: no backend has to have it, for there is a copy.

    Raises:
        UsageError: The disk refuses.
    """
    path = Path(os.path.abspath(path))
    trash = path.parent.parent / TRASH
    try:
        place = make_private_directory(trash / f"gone-{secrets.token_hex(8)}")
        with leases(path) as is_taken:
            if not is_taken:
                return "it is being sent at this moment"
            check = (
                in_use(path, is_leased_by_us=True)
                if backends is None
                else _obstacle(path, backends, is_leased_by_us=True)
            )
            if check is not None:
                return check
            for number, source in enumerate(_places(path, part)):
                os.rename(source, place / f"{number}-{source.name}")
        if part is Part.ALL and (why := _reborn(place / f"0-{path.name}")) is not None:
            os.rename(place / f"0-{path.name}", path)
            return why
    except FileNotFoundError:
        return "it is gone already"
    except OSError as error:
        raise UsageError(f"{path} can't be deleted: {error}") from error
    finally:
        _empty(trash)
    return None


def let_go(path: Path, keep_local: str, backends: Sequence[str]) -> None:
    """Delete what the setting `keep_local` does not keep of a run that has ended, if its backends have everything.

    Args:
        path: The run directory.
        keep_local: The setting: `all`, `metrics` or `none`.
        backends: As for `plan_pruning`. A run that was never sent anywhere stays.
    """
    if not _backends(path):
        return
    for part in {"metrics": (Part.ARTIFACTS, Part.MEDIA), "none": (Part.ALL,)}.get(keep_local, ()):
        try:
            why = remove(path, part, backends)
        except UsageError as error:
            why = str(error)
        if why is not None:
            logger.info("keep_local=%r: the %s of %s stay: %s", keep_local, part.value, path, why)


def _reborn(path: Path) -> str | None:
    """Whether a process has gone on with the run while it was renamed."""
    return "a process has gone on with it" if Run(path).is_written else None


def _empty(trash: Path) -> None:
    """Delete what lies in the trash; several processes may do so at once."""
    for place in trash.glob("gone-*"):
        shutil.rmtree(place, ignore_errors=True)
    for place in trash.glob("unpacking-*"):  # An archive's; where it is this old, its process was killed.
        with contextlib.suppress(OSError):
            if time.time() - os.stat(place).st_mtime > _ABANDONED_S:
                shutil.rmtree(place, ignore_errors=True)
    with contextlib.suppress(OSError):  # Somebody else's is in there, or it is gone.
        trash.rmdir()


def _places(run: Path, part: Part) -> list[Path]:
    """What goes of a run: directories, none of which is a link. Manifests stay, so that no version is given twice."""
    if part is Part.ALL:
        return [run]
    found = [run / "media"] if part is Part.MEDIA else list((run / "artifacts").glob("*/*"))
    return [place for place in found if place.is_dir() and not place.is_symlink()]


def _files(places: Iterable[Path]) -> Iterator[os.stat_result]:
    for place in places:
        for folder, _, names in os.walk(place):
            for name in names:
                with contextlib.suppress(OSError):  # Removed meanwhile.
                    status = os.lstat(os.path.join(folder, name))
                    if not stat.S_ISLNK(status.st_mode):
                        yield status


def _sizes(places: Iterable[Path]) -> dict[tuple[int, int], int]:
    return {(status.st_dev, status.st_ino): status.st_blocks * _BLOCK_BYTES for status in _files(places)}


def _backends(path: Path) -> list[str]:
    """Where delivery has ever begun, also where it has come nowhere yet."""
    return [unquote(place.name, errors="replace") for place in (path / "delivery").glob("*") if place.is_dir()]


@contextlib.contextmanager
def leases(path: Path) -> Iterator[bool]:
    """Take the right to deliver to all backends, or tell that a process has one of them."""
    taken = [Lease(file.parent) for file in sorted((path / "delivery").glob(f"*/{LOCK_FILE}"))]
    try:
        yield all(lease.acquire() for lease in taken)
    finally:
        for lease in taken:
            lease.release()
