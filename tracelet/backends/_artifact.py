"""An artifact as the backends of trackers see it, whoever logged it and when. For any thread."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Self, final

from tracelet.core.records import MetricData, is_reference
from tracelet.errors import CorruptJournalError
from tracelet.journal.manifests import Manifest, hash_file, manifest_path, tree_digest

_OURS: Final = frozenset({"type", "version", "aliases", "metadata", "digest", "size_bytes", "files", "reference"})


@final
@dataclass(frozen=True, slots=True)
class ArtifactFacts:
    """What is known of an artifact.

    Attributes:
        version: `v0`, `v1`, …; None in runs from before there were any.
        aliases: Those that it was logged with.
        metadata: What was said of it, by the user or by an adapter.
        path: The file or directory; None for a reference.
        reference: The URI of what lies elsewhere, which nobody fetches.
        digest: `sha256:…`; None while it is being computed.
        size_bytes: Of all files.
    """

    name: str
    version: str | None
    type: str | None
    aliases: tuple[str, ...]
    metadata: Mapping[str, Any]
    path: Path | None
    reference: str | None
    digest: str | None
    size_bytes: int | None

    @classmethod
    def of(cls, record: MetricData) -> Self:
        """The facts of a record of the type ARTIFACT, with what the manifest in the run says meanwhile."""
        details = dict(record.metadata or {})
        reference = str(record.value) if is_reference(record.value, details) else None
        path = None if reference is not None else Path(record.value)
        version, kind, given = details.get("version"), details.get("type"), details.get("aliases")
        manifest = None if path is None or not isinstance(version, str) else _manifest(path, version)
        said = details.get("metadata")
        others = {key: value for key, value in details.items() if key not in _OURS}
        return cls(
            name=record.name,
            version=version if isinstance(version, str) else None,
            type=kind if isinstance(kind, str) and kind else None,
            aliases=tuple(map(str, given)) if isinstance(given, (list, tuple)) else (),
            metadata={**others, **said} if isinstance(said, Mapping) else others,
            path=path,
            reference=reference,
            digest=manifest.digest if manifest is not None else details.get("digest"),
            size_bytes=manifest.size_bytes if manifest is not None else details.get("size_bytes"),
        )

    def hashed(self) -> Self:
        """The same with its digest, where the recorder is still at it: reads the files, so for delivery alone.

        Raises:
            OSError: They can't be read.
        """
        if self.digest is not None or self.path is None or self.version is None or not self.path.exists():
            return self
        if not self.path.is_dir():
            return replace(self, digest=hash_file(self.path).digest)
        files = (file for file in self.path.rglob("*") if file.is_file())
        digests = {file.relative_to(self.path).as_posix(): str(hash_file(file).digest) for file in files}
        return replace(self, digest=tree_digest(digests))

    def described(self) -> dict[str, Any]:
        """For JSON: all that is known, without the place of the files."""
        fields = {name: getattr(self, name) for name in self.__slots__ if name != "path"}
        return {name: value for name, value in fields.items() if value not in (None, (), {})}

    def texts(self) -> dict[str, str]:
        """The same for people."""
        fields = self.described().items()
        return {name: value if isinstance(value, str) else json.dumps(value, default=str) for name, value in fields}


def _manifest(path: Path, version: str) -> Manifest | None:
    """The manifest of a version, by the path of the file or directory that is kept of it."""
    directory = next((place for place in (path, path.parent) if place.name == version), None)
    if directory is None or not os.path.exists(manifest_path(directory)):
        return None
    try:
        return Manifest.read(manifest_path(directory))
    except CorruptJournalError:  # Whoever looks at the run is told so.
        return None
