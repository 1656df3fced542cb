"""`tracelet import aim PATH`: the repositories of Aim 3, `.aim`. Needs no Aim, but RocksDB for Python (`aimrocks`).

Called on the thread that imports. A training may go on meanwhile: nothing is written into the repository or locked.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar, final

from tracelet.core.importer import ImporterPlugin, SourceRun
from tracelet.core.plugins import PluginMetadata, PluginType
from tracelet.errors import UsageError
from tracelet.importers._aim.facts import runs_of
from tracelet.importers._aim.records import AimRun
from tracelet.importers.files import given_path, inside
from tracelet.utils.imports import require


@final
class AimImporter(ImporterPlugin):
    """Each run is known by Aim's hash of it; its experiment becomes the project."""

    options: ClassVar[Mapping[str, str]] = {"files": "One more directory that artifacts may be read from."}

    @classmethod
    def get_metadata(cls) -> PluginMetadata:
        """See `PluginBase`."""
        return PluginMetadata("aim", "1.0.0", PluginType.IMPORTER, "Aim's repositories", "Tracelet")

    def runs(self, source: str) -> Iterator[SourceRun]:
        """See `ImporterPlugin`."""
        root = given_path(source)
        home = next((place for place in (inside(root, ""), inside(root, ".aim")) if _is_repository(place)), None)
        facts = [] if home is None else list(runs_of(home))
        if home is None or not facts:
            raise UsageError(f"there are no runs of Aim 3 (in a folder .aim with meta/chunks) in {os.fspath(root)!r}")
        require("aimrocks", "Importing from Aim", "aim")
        places = [root, *([given_path(self._config["files"])] if "files" in self._config else [])]
        for run in facts:
            yield SourceRun(run.run_id, run.name, AimRun(home, run, places).items, run.experiment, run.created_s)


def _is_repository(place: Path | None) -> bool:
    return place is not None and (place / "meta" / "chunks").is_dir()
