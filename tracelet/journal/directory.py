"""A run's directory: where it is, and who the run is. Called on the thread that starts or reads a run.

    <dir>/<project>/<run_id>/
        run.json                      the identity, written once (`RunIdentity`)
        summary.json                  what a table shows of a run that has ended (`journal.summary`)
        <writer>.log                  a writer's lines: who writes, series, parameters, text, the end
        <writer>-000000.seg …         a writer's scalars
        media/  artifacts/            files that records refer to
        delivery/<backend>/           cursor.json, rejected.jsonl, state.json

Directories are 0700 and files 0600: a run can hold what its owner would not show to the other users of the host.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, final

from tracelet.errors import CorruptJournalError
from tracelet.journal.format import FORMAT_VERSION, IDENTITY_FILE, check_version
from tracelet.utils.names import safe_directory_name

_UUID: Final = re.compile("[0-9a-f]{32}")
_ID_ALPHABET: Final = "abcdefghijkmnpqrstuvwxyz23456789"  # Without l, o, 0 and 1, which are taken for one another.


@final
@dataclass(frozen=True, slots=True)
class RunIdentity:
    """Who a run is. Never changes.

    Attributes:
        uuid: 32 hex digits; with segment and slot it identifies a record in the whole world.
        run_id: What the user calls it; unique in its project.
        name: The experiment's name, as it was given.
        project: The project, as it was given.
        created_ns: Unix time in nanoseconds.
    """

    uuid: str
    run_id: str
    name: str
    project: str
    created_ns: int


_IDENTITY_FIELDS: Final[Mapping[str, Callable[[Any], bool]]] = {
    "uuid": lambda value: isinstance(value, str) and _UUID.fullmatch(value) is not None,
    "run_id": lambda value: isinstance(value, str),
    "name": lambda value: isinstance(value, str),
    "project": lambda value: isinstance(value, str),
    "created_ns": lambda value: isinstance(value, int) and 0 <= value < 1 << 63,
}


def new_run_id() -> str:
    """A short id that is easy to type: 8 letters and digits, 40 bits."""
    return "".join(secrets.choice(_ID_ALPHABET) for _ in range(8))


def run_id_of(digest: bytes) -> str:
    """An id as `new_run_id` makes them, the same one for the same digest of at least 8 bytes."""
    return "".join(_ID_ALPHABET[byte % len(_ID_ALPHABET)] for byte in digest[:8])


@final
class RunDirectory:
    """The paths of one run, and its identity."""

    def __init__(self, path: Path, identity: RunIdentity) -> None:
        self.path = path
        self.identity = identity
        self._is_sure = False  # That it is the identity in the file.

    @classmethod
    def at(cls, root: Path, project: str, run_id: str, name: str) -> RunDirectory:
        """The directory of a run: that of the run that is there already, or one that `ensure` will make.

        Raises:
            CorruptJournalError: There is a run, and its identity can't be read.
            UnsupportedVersionError: There is a run of a newer Tracelet.
        """
        path = Path(os.path.abspath(root)) / safe_directory_name(project) / safe_directory_name(run_id)
        if os.path.exists(path / IDENTITY_FILE):  # Unlike `Path.exists` it never raises: no permission, say.
            return cls.open(path)
        return cls(path, RunIdentity(uuid.uuid4().hex, run_id, name, project, time.time_ns()))

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """The directory of a run that is there.

        Raises:
            CorruptJournalError: `run.json` is missing, or is not what it should be.
            UnsupportedVersionError: A newer Tracelet wrote it.
        """
        file = path / IDENTITY_FILE
        try:
            fields = json.loads(file.read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise CorruptJournalError(f"{path} is no run that can be read: {error}") from error
        if not isinstance(fields, dict):
            raise CorruptJournalError(f"{file} does not hold a run's identity")
        check_version(fields.get("format"), os.fspath(file))
        wrong = [name for name, is_good in _IDENTITY_FIELDS.items() if not is_good(fields.get(name))]
        if wrong:
            raise CorruptJournalError(f"{file} does not hold a run's identity: {', '.join(wrong)} missing or wrong")
        return cls(path, RunIdentity(**{name: fields[name] for name in _IDENTITY_FIELDS}))

    def ensure(self) -> None:
        """Make the directory and its identity where they are missing: at the start, and after somebody deleted them.

        Of several processes that start the same run at once one wins; the others take its identity.

        Raises:
            OSError: The place can't be written to.
            CorruptJournalError: Another process's identity is there and can't be read.
            UnsupportedVersionError: The other process is a newer Tracelet.
        """
        file = self.path / IDENTITY_FILE
        if os.path.exists(file):
            self._take_over()
            return
        make_private_directory(self.path)
        text = json.dumps({"format": FORMAT_VERSION, **asdict(self.identity)}, indent=1) + "\n"
        temporary = _write_temporary(file, text)
        try:
            os.link(temporary, file)  # Unlike a rename it fails where the file has come meanwhile.
            self._is_sure = True
        except FileExistsError:
            self._take_over()
        except OSError:  # A filesystem without links.
            os.replace(temporary, file)
        finally:
            temporary.unlink(missing_ok=True)

    def _take_over(self) -> None:
        """Be who the file says: another process may have come first."""
        if not self._is_sure:
            self.identity = RunDirectory.open(self.path).identity
            self._is_sure = True


def delivery_directory(run: Path, backend: str) -> Path:
    """Where a run keeps what belongs to one backend."""
    return run / "delivery" / safe_directory_name(backend)


def own_files(directory: Path) -> list[str]:
    """The names of the plain files in a run directory, sorted. A folder or a link that lies there is none of ours.

    Raises:
        OSError: The directory can't be listed.
    """
    with os.scandir(directory) as entries:
        return sorted(entry.name for entry in entries if entry.is_file(follow_symlinks=False))


def make_private_directory(path: Path) -> Path:
    """Make a directory and the missing ones above it, all of them 0700 (`Path.mkdir` gives the mode to the last only).

    Raises:
        OSError: The place can't be written to.
    """
    if not path.is_dir():
        make_private_directory(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
    return path


def write_atomically(path: Path, text: str) -> None:
    """Replace a file as a whole: a reader, or a kill in between, sees the old text or the new one.

    Raises:
        OSError: The place can't be written to.
    """
    temporary = _write_temporary(path, text)
    try:
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _write_temporary(path: Path, text: str) -> Path:
    temporary = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "x", encoding="utf-8", opener=_private) as file:
            file.write(text)
    except BaseException:  # Also for Ctrl-C: no temporary file stays behind.
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o600)
