"""`tracelet import neptune PATH`: offline folders of Neptune's client, or the Parquet files of its exporter."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar, final

from tracelet.core.importer import ImporterPlugin, SourceRun
from tracelet.core.plugins import PluginMetadata, PluginType
from tracelet.errors import UsageError
from tracelet.importers._neptune.exported import exported_runs
from tracelet.importers._neptune.offline import offline_run
from tracelet.importers.files import files_below, given_path


@final
class NeptuneImporter(ImporterPlugin):
    """Each offline folder is a run, and each run id in exported files."""

    options: ClassVar[Mapping[str, str]] = {
        "files": "From where files that a run names may be read: the exporter's folder of files, say. Not without it."
    }

    @classmethod
    def get_metadata(cls) -> PluginMetadata:
        """See `PluginBase`."""
        return PluginMetadata(
            "neptune", "1.0.0", PluginType.IMPORTER, "Neptune's offline and exported runs", "Tracelet"
        )

    def runs(self, source: str) -> Iterator[SourceRun]:
        """See `ImporterPlugin`."""
        root = given_path(source)
        given = self._config.get("files")
        files = None if given is None else Path(given).expanduser()
        paths = list(files_below(root))
        folders = sorted({path.parent for path in paths if path.name.startswith("data-") and path.suffix == ".log"})
        tables = [path for path in paths if path.suffix == ".parquet"]
        if not folders and not tables:
            raise UsageError(
                f"there are neither offline runs (data-*.log) nor exported ones (*.parquet) in {os.fspath(root)!r}"
            )
        for folder in folders:
            yield offline_run(folder, files)
        if tables:
            yield from exported_runs(tables, files)
