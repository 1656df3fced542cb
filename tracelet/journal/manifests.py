"""Manifests: what an artifact consists of, and the digests of its files.

    <run>/artifacts/<name>/v0/…        the files of a version
    <run>/artifacts/<name>/v0.json     its manifest

    the thread that logs               `keep`: takes the next version, links or copies the files, writes the manifest
    tracelet-hashing, `sync`           `Finisher.finish`: hashes the files, keeps equal ones once, completes it

Guarantee: a manifest stands for files that are there as a whole, and is replaced as a whole. One that is pending can be
finished by whoever may write to the run, also after a kill and also twice.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Final, final

from tracelet.errors import CorruptJournalError
from tracelet.journal.directory import RunDirectory, make_private_directory, write_atomically
from tracelet.journal.files import FileFacts, store_tree
from tracelet.utils.names import safe_directory_name

logger = logging.getLogger(__name__)

FOLDER: Final = "artifacts"
VERSION: Final = re.compile(r"v(0|[1-9][0-9]{0,8})")

_FORMAT: Final = 1
_CHUNK_BYTES: Final = 1 << 20
_HALF_S: Final = 3600.0  # A version without a manifest that is older than this is nobody's.


@final
@dataclass(frozen=True)
class Manifest:
    """What one version of an artifact consists of.

    Attributes:
        name: What the user calls it.
        version: `v0`, `v1`, …
        is_directory: Whether it is a directory, or its one file.
        files: By their paths below the directory of the version.
        left_out: What of the user's directory was not kept, and why.
        changed: The files that somebody wrote to after they were logged: they were linked.
        digest: Of the file; of a directory see `tree_digest`. None before it has been computed.
        is_complete: Whether the digests are there, and files that the run has already are links to those.
    """

    name: str
    version: str
    is_directory: bool
    files: Mapping[str, FileFacts]
    left_out: Mapping[str, str]
    changed: tuple[str, ...] = ()
    digest: str | None = None
    is_complete: bool = False

    @property
    def size_bytes(self) -> int:
        """Of all files."""
        return sum(facts.size_bytes for facts in self.files.values())

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read one.

        Raises:
            CorruptJournalError: There is none, or it is not what it should be.
        """
        try:
            fields = json.loads(path.read_bytes())
            if fields.pop("format") != _FORMAT:
                raise ValueError("of another version of Tracelet")
            fields["files"] = {_inside(key): FileFacts(**facts) for key, facts in fields["files"].items()}
            return cls(**{**fields, "changed": tuple(fields["changed"])})
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise CorruptJournalError(f"{path} is no manifest that can be read: {error}") from error

    def write(self, path: Path) -> None:
        """Write it, as a whole.

        Raises:
            OSError: The place can't be written to.
        """
        files = {key: asdict(facts) for key, facts in self.files.items()}
        write_atomically(path, json.dumps({"format": _FORMAT, **self.__dict__, "files": files}) + "\n")


def _inside(relative: str) -> str:
    """The path, if it stays below: a run may come from a stranger.

    Raises:
        ValueError: It does not.
    """
    path = PurePosixPath(relative)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\0" in relative:
        raise ValueError(f"the path {relative!r} leads out of the artifact")
    return relative


def _contained(path: Path, directory: Path) -> Path:
    """The path, if no link on the way to it leads out of a directory.

    Raises:
        OSError: One does.
    """
    if not Path(os.path.realpath(path.parent)).is_relative_to(os.path.realpath(directory)):
        raise OSError(f"{path} leads out of {directory}")
    return path


def keep(source: Path, place: Path, name: str) -> tuple[Path, Manifest]:
    """Keep a file or a directory as a version of an artifact.

    Args:
        source: The user's.
        place: The directory that `claim` gave.
        name: Of the artifact.

    Returns:
        The path of the file or directory in the run, and the manifest, which is pending.

    Raises:
        OSError: It can't be read, or the disk does not take it.
    """
    tree = store_tree(source, place)
    manifest = Manifest(name, place.name, source.is_dir(), tree.files, tree.left_out)
    manifest.write(manifest_path(place))
    if tree.left_out:
        some = "; ".join(f"{path!r}: {why}" for path, why in list(tree.left_out.items())[:3])
        logger.warning("%d entries of the artifact %.200r are left out: %.1000s", len(tree.left_out), name, some)
    return (place if manifest.is_directory else place / next(iter(tree.files))), manifest


def claim(run: RunDirectory, name: str) -> Path:
    """Make the directory of the next version of an artifact; of several processes each gets its own.

    Raises:
        OSError: The disk does not take it.
    """
    directory = make_private_directory(run.path / FOLDER / safe_directory_name(name))
    names = os.listdir(directory)
    versions = [int(found[1]) for name in names if (found := VERSION.fullmatch(name.removesuffix(".json")))]
    older = sum(VERSION.match(name) is None for name in names)  # Before there were versions.
    number = max([*versions, -1]) + 1 or older
    while True:
        place = directory / f"v{number}"
        try:
            place.mkdir(mode=0o700)
            return place
        except FileExistsError:
            number += 1


def manifest_path(version_directory: Path) -> Path:
    """Where the manifest of a version is."""
    return version_directory.with_name(version_directory.name + ".json")


def version_directory(run: Path, value: str | os.PathLike[str]) -> Path | None:
    """The directory of the version that a record's path belongs to; None in runs from before there were any.

    Whoever deletes its files deletes this directory, and leaves the manifest: then no version is given twice.
    """
    try:
        parts = Path(value).relative_to(os.path.abspath(run)).parts
    except ValueError:
        return None
    is_version = len(parts) > 2 and parts[0] == FOLDER and VERSION.fullmatch(parts[2])
    return run.joinpath(*parts[:3]) if is_version else None


def pending(run: Path) -> Iterator[Path]:
    """The manifests of a run that are not complete."""
    for path in sorted((run / FOLDER).glob("*/v*.json")):
        try:
            if not Manifest.read(path).is_complete and path.with_suffix("").is_dir():
                yield path
        except CorruptJournalError as error:
            logger.debug("%s", error)


def tree_digest(files: Mapping[str, str]) -> str:
    """The digest of a directory: SHA-256 of the JSON `[["path","sha256:…"],…]`, sorted by path, in ASCII, no blanks."""
    text = json.dumps(sorted(files.items()), separators=(",", ":"))
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


class InterruptedHashError(Exception):
    """The one who asked for a digest wants to end."""


def hash_file(path: Path, stopped: Callable[[], bool] = lambda: False) -> FileFacts:
    """The facts of a file with its digest. Where somebody writes to it meanwhile, those of the end.

    Raises:
        OSError: It can't be read, or is no file.
        InterruptedHashError: `stopped` became true.
    """
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with open(os.open(path, flags), "rb", buffering=0) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(f"{path} is no file")
        buffer = memoryview(bytearray(min(status.st_size + 1, _CHUNK_BYTES)))
        digest = hashlib.sha256()
        while count := file.readinto(buffer):  # Both calls leave the interpreter to the others.
            digest.update(buffer[:count])
            if stopped():
                raise InterruptedHashError
        return FileFacts.of(os.fstat(file.fileno()), f"sha256:{digest.hexdigest()}")


@final
class Finisher:
    """Completes the manifests of one run, and keeps equal files once. On one thread at a time."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._known: dict[tuple[str, int], tuple[Path, FileFacts]] | None = None  # By digest and size.

    def finish(self, path: Path, stopped: Callable[[], bool] = lambda: False) -> None:
        """Complete one manifest, if it is pending and its files are there.

        Raises:
            OSError: It can't be written.
            CorruptJournalError: It can't be read.
            InterruptedHashError: `stopped` became true.
        """
        place = _contained(path, self._run).with_suffix("")
        manifest = Manifest.read(path)
        if not manifest.is_complete and place.is_dir():
            hashed = manifest if manifest.digest is not None else self._with_digests(manifest, place, stopped)
            if hashed is not None:
                hashed.write(path)  # First, or a kill would leave links that look like changes.
                files = {name: self._kept_once(place, name, facts) for name, facts in hashed.files.items()}
                replace(hashed, files=files, is_complete=True).write(path)

    def _with_digests(self, manifest: Manifest, place: Path, stopped: Callable[[], bool]) -> Manifest | None:
        """The manifest with what hashing gives; None where the run has let the files go."""
        files, changed = {}, list(manifest.changed)
        for relative, before in manifest.files.items():
            try:
                files[relative] = hash_file(_contained(place / relative, self._run), stopped)
            except OSError as error:
                if not place.is_dir():
                    return None
                logger.warning("The file %s of %s can't be hashed: %s", relative, place, error)
                changed.append(relative)
                continue
            if not files[relative].is_same(before):
                changed.append(relative)
        if changed:
            logger.warning(
                "The artifact %.200r (%s) was changed in place after it was logged: %.500s. Its digest is that of what "
                "is there now. Log it again, or write new files instead of into old ones",
                manifest.name, manifest.version, ", ".join(changed),
            )  # fmt: skip
        digests = {relative: facts.digest for relative, facts in files.items() if facts.digest is not None}
        digest = tree_digest(digests) if manifest.is_directory else next(iter(digests.values()), None)
        return replace(manifest, files={**manifest.files, **files}, changed=tuple(changed), digest=digest or "")

    def finish_all(self) -> None:
        """Complete what the processes of a run that has ended have left, and remove what they never completed."""
        self._sweep()
        for path in pending(self._run):
            try:
                self.finish(path)
            except (OSError, CorruptJournalError) as error:
                logger.warning("The manifest %s can't be completed: %s", path, error)

    def _sweep(self) -> None:
        """Remove what a kill has cut short: it holds space, and no record names it."""
        for entry in (self._run / FOLDER).glob("*/*"):
            try:  # Without a file in it it may be that of a reference.
                _contained(entry, self._run)
                is_version = VERSION.fullmatch(entry.name) is not None and entry.is_dir()
                is_half = is_version and not manifest_path(entry).exists() and any(entry.iterdir())
                if (is_half or entry.suffix == ".tmp") and entry.lstat().st_mtime < time.time() - _HALF_S:
                    shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
            except OSError as error:
                logger.debug("%s stays: %s", entry, error)

    def _kept_once(self, place: Path, relative: str, facts: FileFacts) -> FileFacts:
        """Make a file a link to one with the same bytes, where the run has it, and both are as they were hashed."""
        if self._known is None:
            self._known = dict(self._complete_files())
        if facts.digest is None:
            return facts
        path, key = place / relative, (facts.digest, facts.size_bytes)
        other, its_facts = self._known.setdefault(key, (path, facts))
        if not facts.size_bytes or other == path:
            return facts
        temporary = place.with_name(f".{secrets.token_hex(8)}.tmp")  # Not beside it: a kill may leave it.
        try:
            there, here = os.lstat(_contained(other, self._run)), os.lstat(_contained(path, self._run))
            if there.st_ino == here.st_ino:  # A kill came before the manifest could say so.
                return replace(its_facts, digest=facts.digest)
            if not its_facts.is_same(FileFacts.of(there)) or not facts.is_same(FileFacts.of(here)):
                self._known[key] = (path, facts)
            elif there.st_mode == here.st_mode:
                os.link(other, temporary, follow_symlinks=False)
                os.replace(temporary, path)
                return replace(its_facts, digest=facts.digest)
        except OSError as error:  # It is gone, or has as many links as there may be.
            logger.debug("%s is kept twice: %s", path, error)
            temporary.unlink(missing_ok=True)
            self._known[key] = (path, facts)
        return facts

    def _complete_files(self) -> Iterator[tuple[tuple[str, int], tuple[Path, FileFacts]]]:
        for path in sorted((self._run / FOLDER).glob("*/v*.json")):
            try:
                manifest = Manifest.read(path)
            except CorruptJournalError as error:
                logger.debug("%s", error)
                continue
            for relative, facts in manifest.files.items() if manifest.is_complete else ():
                if facts.digest is not None:
                    yield (facts.digest, facts.size_bytes), (path.with_suffix("") / relative, facts)
