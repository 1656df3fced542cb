"""`tracelet import wandb PATH`: the folders of W&B's offline (and online) runs. Needs no wandb."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar, final

from tracelet.core.importer import ImporterPlugin, SourceRun
from tracelet.core.plugins import PluginMetadata, PluginType
from tracelet.errors import UsageError
from tracelet.importers._wandb.records import WandbRecords, run_facts
from tracelet.importers.files import files_below, given_path


@final
class WandbImporter(ImporterPlugin):
    """Each file `run-ID.wandb` is a run, known by its id and the time of its start."""

    options: ClassVar[Mapping[str, str]] = {
        "files": "Where W&B keeps artifacts' files: ~/.local/share/wandb/artifacts/staging. Not read without it."
    }

    @classmethod
    def get_metadata(cls) -> PluginMetadata:
        """See `PluginBase`."""
        return PluginMetadata("wandb", "1.0.0", PluginType.IMPORTER, "W&B's offline runs", "Tracelet")

    def runs(self, source: str) -> Iterator[SourceRun]:
        """See `ImporterPlugin`."""
        root = given_path(source)
        logs = [path for path in files_below(root) if path.suffix == ".wandb"]
        if not logs:
            raise UsageError(f"there are no offline runs (run-*.wandb) in {os.fspath(root)!r}")
        staging = self._config.get("files")
        for log in logs:
            facts = run_facts(log)
            run_id = facts.get("run_id") or log.stem.removeprefix("run-")
            records = WandbRecords(log.parent, log, None if staging is None else Path(staging).expanduser())
            yield SourceRun(
                key=f"{facts.get('project') or ''}/{run_id}/{log.parent.name}",
                name=facts.get("name") or run_id,
                records=records.items,
                project=facts.get("project"),
                created_s=facts.get("created_s"),
            )
