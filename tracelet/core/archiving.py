"""Runs as one file, and back: to keep them elsewhere, or to move them to another machine.

Called on the thread of whoever asks. The file is a tar (`.tar`, `.tar.gz`, `.tar.zst`) or a `.zip`. Its first member
says what it holds (`Contents`). The cursors of backends are in it: delivery goes on where the run is unpacked.

Guarantee: an archive appears when it is whole and has been read back; a run that is deleted then was the same until
then. Unpacking trusts nothing: it writes plain files of the stated sizes and digests below a directory of its own, and
makes no link. A run appears by a rename, when it is whole. Neither overwrites anything.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import secrets
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Final, Self, final

from tracelet.core.pruning import TRASH, Part, in_use, leases, remove
from tracelet.errors import JournalError, UsageError
from tracelet.journal.directory import RunDirectory, make_private_directory
from tracelet.journal.format import IDENTITY_FILE
from tracelet.journal.manifests import Finisher
from tracelet.utils.imports import require

CONTENTS_FILE: Final = "tracelet-archive.json"
SUFFIXES: Final = (".tar", ".tar.gz", ".tar.zst", ".zip")
MAX_BYTES: Final = 1 << 40

_FORMAT: Final = 1
_MAX_CONTENTS_BYTES: Final = 256 << 20
_MAX_FILES: Final = 1_000_000
_HEADER_BYTES: Final = 16 << 10  # What a member takes besides its bytes, at most: a long name, padding.
_CHUNK_BYTES: Final = 1 << 20

_Add = Callable[[str, int, IO[bytes]], None]


@final
@dataclass(frozen=True, slots=True)
class ArchivedFile:
    """One file: its size, when it was written, and the SHA-256 of its bytes in hex."""

    size_bytes: int
    mtime_ns: int
    sha256: str


@final
@dataclass(frozen=True, slots=True)
class Contents:
    """What an archive holds, by paths `<project>/<run>/…`; no path leaves its run.

    Attributes:
        directories: All of them, parents first.
        files: By path.
    """

    directories: tuple[str, ...]
    files: Mapping[str, ArchivedFile]

    @property
    def runs(self) -> list[str]:
        """`<project>/<run>` of each."""
        return [path for path in self.directories if path.count("/") == 1]

    @property
    def size_bytes(self) -> int:
        """Of all files."""
        return sum(file.size_bytes for file in self.files.values())

    @classmethod
    def of(cls, runs: Iterable[Path]) -> Self:
        """What run directories hold now.

        Raises:
            UsageError: There is what is neither a file nor a directory.
            OSError: They can't be read.
        """
        directories: dict[str, None] = {}
        files = {}
        for run in runs:
            directories[run.parent.name] = None
            for folder, inner, names in os.walk(run):
                directories[_name_of(Path(folder), run)] = None
                for name in [*inner, *names]:
                    path = Path(folder, name)
                    if path.is_symlink() or not (path.is_dir() or path.is_file()):
                        raise UsageError(f"{path} is neither a file nor a directory: it can't be archived")
                for path in (Path(folder, name) for name in sorted(names)):
                    with open(path, "rb") as file:
                        digest = hashlib.file_digest(file, "sha256").hexdigest()
                        status = os.fstat(file.fileno())
                    files[_name_of(path, run)] = ArchivedFile(status.st_size, status.st_mtime_ns, digest)
        return cls(tuple(sorted(directories)), files)

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Read it, maybe a stranger's.

        Raises:
            ValueError, TypeError, KeyError, AttributeError, RecursionError: It is not what it should be.
        """
        fields = json.loads(data)
        if fields["format"] != _FORMAT:
            raise ValueError(f"it has the format {fields['format']!r:.20}, and this Tracelet reads {_FORMAT}")
        found = cls(
            tuple(fields["directories"]), {path: ArchivedFile(**file) for path, file in fields["files"].items()}
        )
        places = set(found.directories)
        if len(found.files) + len(places) > _MAX_FILES:
            raise ValueError(f"it has over {_MAX_FILES:,} files")
        for path in (*found.directories, *found.files):
            parts = path.split("/")
            if any(part in ("", ".", "..") or "\0" in part for part in parts) or any(p[0] == "." for p in parts[:2]):
                raise ValueError(f"the path {path!r:.200} leads out of it")
            if len(parts) > 1 and "/".join(parts[:-1]) not in places:
                raise ValueError(f"the path {path!r:.200} is in no directory of it")
        for path, file in found.files.items():
            numbers = (file.size_bytes, file.mtime_ns)
            if (
                path.count("/") < 2
                or path in places
                or any(type(n) is not int or not 0 <= n < 1 << 62 for n in numbers)
            ):
                raise ValueError(f"the file {path!r:.200} is none of a run")
        if missing := [run for run in found.runs if f"{run}/{IDENTITY_FILE}" not in found.files]:
            raise ValueError(f"{missing[0]!r:.200} is no run")
        return found

    def to_json(self) -> bytes:
        """The text of `CONTENTS_FILE`."""
        files = {path: asdict(file) for path, file in self.files.items()}
        return json.dumps({"format": _FORMAT, "directories": self.directories, "files": files}).encode("ascii")


def archive_runs(runs: Sequence[Path], output: Path, *, delete: bool = False) -> Contents:
    """Write runs to one file, and read it back.

    Args:
        runs: The run directories.
        output: The file; its name says the form.
        delete: Delete the runs then. What backends have not got is in the archive, with their cursors.

    Raises:
        UsageError: A process uses a run, `output` is there already, or the disk refuses. No archive is written.
        CorruptJournalError: There is no run.
        MissingDependencyError: `.tar.zst` needs a package that is not installed.
    """
    _suffix(output)
    runs = [Path(os.path.abspath(run)) for run in runs]
    places = {_name_of(run, run): run for run in runs}
    if len(places) < len(runs):
        raise UsageError("two of the runs have the same project and id: archive them one by one")
    if os.path.lexists(output):
        raise UsageError(f"{output} is there already: choose another name")
    temporary = output.with_name(f".{output.name}.{secrets.token_hex(4)}.tmp")
    try:
        with contextlib.ExitStack() as stack:
            for run in runs:
                RunDirectory.open(run)
                why = in_use(run)
                if why is not None or not stack.enter_context(leases(run)):
                    raise UsageError(f"the run {run.name} can't be archived: {why or 'it is being sent'}")
                Finisher(run).finish_all()
            contents = Contents.of(runs)
            _write(temporary, _suffix(output), contents, places)
            if _read(temporary, _suffix(output)) != contents or Contents.of(runs) != contents:
                raise UsageError(f"a run was changed while {output} was written: try again")
        os.link(temporary, output)  # Unlike a rename it fails where another one has come meanwhile.
        for run in runs if delete else ():
            if (kept := remove(run, Part.ALL, None)) is not None:
                raise UsageError(f"{output} is written; but the run {run.name} stays: {kept}")
    except (OSError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{output} can't be written: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return contents


def unarchive(archive: Path, directory: Path, max_bytes: int = MAX_BYTES) -> list[Path]:
    """Unpack the runs of an archive, a stranger's too.

    Args:
        archive: What `archive_runs` wrote.
        directory: As the setting `dir`.
        max_bytes: Refuse one that says that it holds more.

    Returns:
        The run directories.

    Raises:
        UsageError: It is no such archive, or is damaged; a run is there already; or there is no room.
        MissingDependencyError: `.tar.zst` needs a package that is not installed.
    """
    suffix = _suffix(archive)
    try:
        make_private_directory(Path(os.path.abspath(directory)))
        place = make_private_directory(directory / TRASH / f"unpacking-{secrets.token_hex(8)}")
    except OSError as error:
        raise UsageError(f"{directory} can't be written to: {error}") from error

    def begin(contents: Contents) -> None:
        if there := [run for run in contents.runs if os.path.lexists(directory / run)]:
            raise UsageError(f"the run {there[0]!r} is in {directory} already: nothing is unpacked")
        room_bytes = min(max_bytes, shutil.disk_usage(place).free)
        if contents.size_bytes > room_bytes:
            raise UsageError(f"{archive} holds {contents.size_bytes:,} bytes, and {room_bytes:,} are allowed or free")
        for path in contents.directories:
            (place / path).mkdir(mode=0o700)

    def write(path: str, part: bytes | None) -> None:
        flags = os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0) | (os.O_CREAT | os.O_EXCL if part is None else os.O_APPEND)
        with open(os.open(place / path, flags, 0o600), "wb") as file:
            file.write(part or b"")

    try:
        contents = _read(archive, suffix, write, begin)
        for path, file in contents.files.items():
            os.utime(place / path, ns=(file.mtime_ns, file.mtime_ns))
        made = []
        for run in contents.runs:
            make_private_directory((directory / run).parent)
            os.rename(place / run, directory / run)  # Fails where one with files in it has come meanwhile.
            made.append(directory / run)
    except OSError as error:
        raise UsageError(f"{archive} can't be unpacked: {error}") from error
    finally:
        shutil.rmtree(place, ignore_errors=True)
        with contextlib.suppress(OSError):  # Somebody else's is in there.
            place.parent.rmdir()
    return made


def _name_of(path: Path, run: Path) -> str:
    return path.relative_to(run.parent.parent).as_posix()


def _suffix(path: Path) -> str:
    found = [suffix for suffix in SUFFIXES if path.name.endswith(suffix)]
    if not found:
        raise UsageError(f"the name of an archive ends in one of {', '.join(SUFFIXES)}: not {path.name!r}")
    return found[-1]


# -- writing -----------------------------------------------------------------------------------------------------------


def _write(path: Path, suffix: str, contents: Contents, runs: Mapping[str, Path]) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        with _adding(file, suffix) as add:
            text = contents.to_json()
            add(CONTENTS_FILE, len(text), io.BytesIO(text))
            for name, facts in contents.files.items():
                project, run, rest = name.split("/", 2)
                with open(runs[f"{project}/{run}"] / rest, "rb") as source:
                    add(name, facts.size_bytes, source)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def _adding(file: IO[bytes], suffix: str) -> Iterator[_Add]:
    if suffix == ".zip":
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:

            def add_zipped(name: str, size_bytes: int, source: IO[bytes]) -> None:
                info = zipfile.ZipInfo(name)
                info.file_size = size_bytes
                info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, 0o100600 << 16
                with archive.open(info, "w", force_zip64=True) as target:
                    shutil.copyfileobj(source, target, _CHUNK_BYTES)

            yield add_zipped
        return
    with contextlib.ExitStack() as stack:
        packed: Any = file
        if suffix == ".tar.gz":
            packed = stack.enter_context(gzip.GzipFile(fileobj=file, mode="wb", compresslevel=6))
        elif suffix == ".tar.zst":
            zstandard: Any = require("zstandard", "An archive .tar.zst", "zstd")
            packed = stack.enter_context(zstandard.ZstdCompressor().stream_writer(file, closefd=False))
        archive_tar = stack.enter_context(tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT))

        def add(name: str, size_bytes: int, source: IO[bytes]) -> None:
            info = tarfile.TarInfo(name)
            info.size, info.mode = size_bytes, 0o600
            archive_tar.addfile(info, source)

        yield add


# -- reading -----------------------------------------------------------------------------------------------------------


@final
class _Bounded(io.RawIOBase):
    """A stream that ends with an error where it gives more than it may: what is packed may unpack to anything."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self.allowed_bytes = _MAX_CONTENTS_BYTES + _HEADER_BYTES

    def read(self, size: int = -1) -> bytes:
        """As any stream's."""
        try:
            data = self._source.read(size if 0 <= size <= self.allowed_bytes else self.allowed_bytes + 1)
        except Exception as error:  # zstandard's own, which only it can name.
            raise ValueError(f"it can't be decompressed: {error}") from error
        self.allowed_bytes -= len(data)
        if self.allowed_bytes < 0:
            raise ValueError("it unpacks to more than it says")
        return data


def _read(
    path: Path,
    suffix: str,
    write: Callable[[str, bytes | None], None] | None = None,
    begin: Callable[[Contents], None] | None = None,
) -> Contents:
    """Read an archive, and check all of it.

    Args:
        path: The file.
        suffix: Its form.
        write: Gets each file's path with None, and then with its bytes, part by part. None: it is only checked.
        begin: Gets the contents before that.

    Raises:
        UsageError: It is not what it should be.
        OSError: It can't be read, or what it is written to does not take it.
    """
    try:
        with open(path, "rb") as file, _members(file, suffix) as (members, allow):
            name, source = next(members, ("", io.BytesIO()))
            data = source.read(_MAX_CONTENTS_BYTES + 1)
            if name != CONTENTS_FILE or len(data) > _MAX_CONTENTS_BYTES:
                raise ValueError(f"it does not begin with {CONTENTS_FILE}")
            contents = Contents.from_json(data)
            allow(contents.size_bytes + (len(contents.files) + 64) * _HEADER_BYTES)
            if begin is not None:
                begin(contents)
            left = dict(contents.files)
            for name, source in members:
                if (facts := left.pop(name, None)) is None:
                    raise ValueError(f"it holds {name!r:.200}, which it does not say")
                if write is not None:
                    write(name, None)
                digest, size_bytes = hashlib.sha256(), 0
                while part := source.read(min(_CHUNK_BYTES, facts.size_bytes - size_bytes + 1)):
                    size_bytes += len(part)
                    if size_bytes > facts.size_bytes:
                        break
                    digest.update(part)
                    if write is not None:
                        write(name, part)
                if (size_bytes, digest.hexdigest()) != (facts.size_bytes, facts.sha256):
                    raise ValueError(f"{name!r:.200} is not what it says")
            if left:
                raise ValueError(f"{next(iter(left))!r:.200} is missing in it")
            return contents
    except (UsageError, JournalError):
        raise
    except _DAMAGE as error:
        raise UsageError(f"{path} is no archive of runs that can be read: {error}") from error


_DAMAGE: Final = (
    ValueError, TypeError, KeyError, AttributeError, RecursionError, EOFError, NotImplementedError, RuntimeError,
    tarfile.TarError, zipfile.BadZipFile, zlib.error, gzip.BadGzipFile,
)  # fmt: skip


@contextlib.contextmanager
def _members(file: IO[bytes], suffix: str) -> Iterator[tuple[Iterator[tuple[str, IO[bytes]]], Callable[[int], None]]]:
    """The members' names and bytes, one after the other, and what says how much may come."""
    if suffix == ".zip":
        with zipfile.ZipFile(file) as archive:
            yield ((info.filename, archive.open(info)) for info in archive.infolist()), _unlimited
        return
    packed: Any = file
    if suffix == ".tar.gz":
        packed = gzip.GzipFile(fileobj=file, mode="rb")
    elif suffix == ".tar.zst":
        zstandard: Any = require("zstandard", "An archive .tar.zst", "zstd")
        packed = _of_zstandard(zstandard, file)
    stream = _Bounded(packed)

    def allow(size_bytes: int) -> None:
        stream.allowed_bytes = size_bytes

    with tarfile.open(fileobj=stream, mode="r|") as archive_tar:
        yield _regular(archive_tar), allow


def _unlimited(size_bytes: int) -> None:
    """A zip's members come one by one, each no further than it is read."""


def _of_zstandard(zstandard: Any, file: IO[bytes]) -> Any:
    return zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(
        file, read_across_frames=True, closefd=False
    )


def _regular(archive: tarfile.TarFile) -> Iterator[tuple[str, IO[bytes]]]:
    for info in archive:
        source = archive.extractfile(info) if info.isreg() else None
        if source is None:
            raise ValueError(f"{info.name!r:.200} in it is no plain file")
        yield info.name, source
