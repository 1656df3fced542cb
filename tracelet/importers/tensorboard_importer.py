"""`tracelet import tensorboard PATH`: event files, of whatever wrote them. Needs neither TensorBoard nor TensorFlow."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import final

from tracelet.core.importer import ImporterPlugin, SourceRun
from tracelet.core.plugins import PluginMetadata, PluginType
from tracelet.errors import UsageError
from tracelet.importers._tensorboard.events import EventReader, wall_time
from tracelet.importers._tensorboard.frames import Frames
from tracelet.importers.files import files_below, given_path


@final
class TensorBoardImporter(ImporterPlugin):
    """As TensorBoard has it, each directory with event files is a run, and its files are read by name."""

    @classmethod
    def get_metadata(cls) -> PluginMetadata:
        """See `PluginBase`."""
        return PluginMetadata("tensorboard", "1.0.0", PluginType.IMPORTER, "TensorBoard's event files", "Tracelet")

    def runs(self, source: str) -> Iterator[SourceRun]:
        """See `ImporterPlugin`."""
        root = given_path(source)
        found: dict[Path, list[Path]] = {}
        for file in files_below(root):
            if "tfevents" in file.name:
                found.setdefault(file.parent, []).append(file)
        if not found:
            raise UsageError(f"there are no event files (*tfevents*) in {os.fspath(root)!r}")
        for directory, files in sorted(found.items()):
            below = os.path.relpath(directory, root if root.is_dir() else root.parent)
            top = os.path.basename(os.path.realpath(root if root.is_dir() else root.parent))
            first = next(iter(Frames(files[0])), b"")
            yield SourceRun(
                key=os.path.realpath(directory),
                name=top if below == "." else f"{top}/{below}",
                records=EventReader(files).items,
                created_s=wall_time(first),
            )
