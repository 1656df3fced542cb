"""Artifacts as a person reads them: versions, aliases, digests, lineage. On the reader's own thread.

An artifact is a file or a directory that a run keeps, or a reference to one that lies elsewhere. All that is logged
under one name in a run are its versions, from `v0` on; `latest` is the newest of them, and any other alias is with the
version that was given it last. Nothing here loads what an artifact holds.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from io import BufferedReader
from pathlib import Path
from typing import Any, Final, final

from tracelet.core.records import USED_NAME, MetricData, MetricType
from tracelet.errors import ArtifactNotFoundError, CorruptJournalError, UsageError
from tracelet.journal.directory import RunIdentity
from tracelet.journal.files import FileFacts
from tracelet.journal.manifests import VERSION, Manifest, hash_file, manifest_path, version_directory
from tracelet.utils.text import did_you_mean

LATEST: Final = "latest"

_OURS: Final = ("type", "version", "aliases", "metadata", "digest", "size_bytes", "files", "reference")
"""In the metadata of a record; the rest is what an adapter has added."""


@final
@dataclass(frozen=True)
class Artifact:
    """One version of an artifact.

    Attributes:
        name: What it is called.
        version: `v0`, `v1`, …; counted by name in each run.
        type: `model`, `checkpoint`, `dataset`, `image`, `report`, `code`, or another word; `custom` if none was given.
        aliases: `latest`, `best`, … as they stand now.
        metadata: What was said of it.
        step: The step; None where it has none.
        path: Of the file or directory in the run. None for a reference, and where it could not be kept.
        reference: The URI of what lies elsewhere.
        digest: `sha256:…`; None for a reference, and while it is being computed.
        size_bytes: Of all files. None for a reference.
        files: By relative path, size and digest of each.
        changed: The files that somebody wrote to after they were logged.
        run_id: The run that logged it.
        run_uuid: The same, unique in the world.
        time_s: When: Unix time in seconds.
    """

    name: str
    version: str
    type: str = "custom"
    aliases: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    step: int | None = None
    path: Path | None = None
    reference: str | None = None
    digest: str | None = None
    size_bytes: int | None = None
    files: Mapping[str, FileFacts] = field(default_factory=dict)
    changed: tuple[str, ...] = ()
    run_id: str = ""
    run_uuid: str = ""
    time_s: float | None = None

    @property
    def is_kept(self) -> bool:
        """Whether its files are in the run; they may have been pruned."""
        return self.path is not None and os.path.exists(self.path)

    def open(self, relative: str | None = None) -> BufferedReader:
        """Open one of its files for reading.

        Args:
            relative: Which; may be left out where there is one only.

        Raises:
            UsageError: There is no such file.
        """
        if relative is None and len(self.files) == 1:
            relative = next(iter(self.files))
        if relative is None or relative not in self.files:
            raise UsageError(
                f"the artifact {self.name!r} has no file {relative!r}{did_you_mean(str(relative), self.files)}"
            )
        return open(self._root / relative, "rb")

    def download(self, to: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Copy its files into a directory, and check them against their digests.

        Args:
            to: The directory; made where it is missing.
            overwrite: Replace files that are there.

        Returns:
            The path of the file; of a directory, `to`.

        Raises:
            UsageError: It is a reference, or is not kept any more, or a file is there already.
            CorruptJournalError: A file is not what was logged. It is not written.
        """
        root, target = self._root, Path(to)
        if not overwrite and (there := [name for name in self.files if os.path.lexists(target / name)]):
            raise UsageError(
                f"{os.fspath(target / there[0])!r} is there already; download to another place, or overwrite"
            )
        try:
            target.mkdir(parents=True, exist_ok=True)
            for relative, facts in self.files.items():
                _copy_checked(root, relative, target / relative, facts)
        except OSError as error:
            raise UsageError(f"{self.name!r} can't be written to {os.fspath(target)!r}: {error}") from error
        is_file = self.path is not None and self.path != root
        return target / next(iter(self.files)) if is_file else target

    @property
    def _root(self) -> Path:
        """The directory that the names of `files` are relative to."""
        if self.reference is not None:
            raise UsageError(f"the artifact {self.name!r} is a reference to {self.reference}: it has no files here")
        if self.path is None or not self.is_kept:
            raise UsageError(f"the files of the artifact {self.name}:{self.version} are not in the run any more")
        return self.path if self.path.is_dir() else self.path.parent


def _copy_checked(root: Path, relative: str, target: Path, facts: FileFacts) -> None:
    """Copy a file whole, or raise."""
    source = root / relative
    if not Path(os.path.realpath(source)).is_relative_to(os.path.realpath(root)):
        raise CorruptJournalError(f"{relative!r} leads out of the artifact")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        shutil.copyfile(source, temporary)
        if facts.digest is not None and hash_file(temporary).digest != facts.digest:
            raise CorruptJournalError(f"{source} is not what was logged: its bytes have another digest")
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def described(record: MetricData, identity: RunIdentity, version: str = "v0") -> Artifact:
    """The artifact of an ARTIFACT record, without its files and with the aliases that it was given.

    Args:
        record: As the journal has it.
        identity: The run's.
        version: For a record of before there were versions.
    """
    facts = dict(record.metadata or {})
    reference, given, aliases = facts.get("reference"), facts.get("metadata"), facts.get("aliases")
    return Artifact(
        name=record.name,
        version=str(facts.get("version", version)),
        type=str(facts.get("type") or "custom"),
        aliases=tuple(dict.fromkeys(map(str, aliases if isinstance(aliases, list | tuple) else ()))),
        metadata=given if isinstance(given, Mapping) else {k: v for k, v in facts.items() if k not in _OURS},
        step=record.iteration,
        reference=reference if isinstance(reference, str) else None,
        run_id=identity.run_id,
        run_uuid=identity.uuid,
        time_s=record.timestamp,
    )


def _with_files(artifact: Artifact, path: Path, run: Path) -> Artifact:
    if artifact.reference is not None:
        return artifact
    place = version_directory(run, path)
    if place is not None:
        try:
            return with_manifest(artifact, path, Manifest.read(manifest_path(place)))
        except CorruptJournalError:  # Without its manifest it is as one of before there were any.
            pass
    return replace(
        artifact, path=path, files=(files := _look(path)), size_bytes=sum(f.size_bytes for f in files.values())
    )


def with_manifest(artifact: Artifact, path: Path, manifest: Manifest) -> Artifact:
    """The artifact with what its manifest says."""
    return replace(
        artifact,
        path=path,
        digest=manifest.digest or None,
        size_bytes=manifest.size_bytes,
        files=manifest.files,
        changed=manifest.changed,
    )


def _look(path: Path) -> dict[str, FileFacts]:
    """The files that are there, for an artifact without a manifest."""
    found = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file() and not p.is_symlink())
    root = path.parent if path.is_file() else path
    return {file.relative_to(root).as_posix(): FileFacts.of(file.stat()) for file in found}


def list_artifacts(
    records: Iterable[MetricData], run: Path, identity: RunIdentity, type: str | None = None
) -> list[Artifact]:
    """The artifacts of a run, by name and version, with the aliases as they stand.

    Args:
        records: Of the run; those of other types are passed over.
        run: The run directory.
        identity: The run's.
        type: Only those of this type.
    """
    names: dict[str, dict[str, Artifact]] = {}
    for record in records:
        if record.type is MetricType.ARTIFACT:
            versions = names.setdefault(record.name, {})
            made = _with_files(described(record, identity, f"v{len(versions)}"), Path(record.value), run)
            versions[made.version] = made
    found = [artifact for name in sorted(names) for artifact in _as_they_stand(names[name].values())]
    return [artifact for artifact in found if type is None or artifact.type == type]


def _as_they_stand(versions: Iterable[Artifact]) -> list[Artifact]:
    """The versions of one name in their order, each alias with the last that was given it."""
    ordered = sorted(versions, key=lambda artifact: _number(artifact.version))
    holders = {alias: artifact.version for artifact in ordered for alias in artifact.aliases}
    holders[LATEST] = ordered[-1].version
    return [
        replace(artifact, aliases=tuple(sorted(alias for alias, at in holders.items() if at == artifact.version)))
        for artifact in ordered
    ]


def _number(version: str) -> int:
    found = VERSION.fullmatch(version)
    return int(found[1]) if found else -1


def find_artifact(artifacts: list[Artifact], reference: str, run_id: str) -> Artifact:
    """The artifact that `name` (its latest version), `name:v3` or `name:best` means.

    Raises:
        ArtifactNotFoundError: There is none; the text names near ones.
    """
    names = dict.fromkeys(artifact.name for artifact in artifacts)
    name, _, which = (reference, "", LATEST) if reference in names else reference.rpartition(":")
    versions = [artifact for artifact in artifacts if artifact.name == name]
    for artifact in versions:
        if which == artifact.version or which in artifact.aliases:
            return artifact
    if versions:
        known = ", ".join(sorted({word for artifact in versions for word in (artifact.version, *artifact.aliases)}))
        raise ArtifactNotFoundError(f"the artifact {name!r} of the run {run_id} has no {which!r}; it has {known:.200}")
    hint = did_you_mean(name or reference, list(names))
    raise ArtifactNotFoundError(
        f"the run {run_id} has no artifact {reference!r}{hint}. `tracelet artifacts` lists them"
    )


def used_artifacts(records: Iterable[MetricData]) -> list[Mapping[str, Any]]:
    """What a run said that it used: `name`, `version`, `type`, `digest`, `run_id`, `run_uuid` of each."""
    return [
        record.value
        for record in records
        if record.type is MetricType.CUSTOM and record.name == USED_NAME and isinstance(record.value, Mapping)
    ]
