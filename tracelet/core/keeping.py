"""Models that a framework saves, and deletes again, kept with the run: what all adapters have in common.

Called on the training thread of the first rank. The guarantee: the user's files are linked or copied, never changed or
deleted. What an adapter drops, the run lets go as soon as every backend has it: a link would keep the disk full. The
record of it stays, and a text (`PRUNED`) names it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, final

from tracelet.core.experiment import Experiment
from tracelet.core.records import MetricData, MetricType
from tracelet.delivery.marks import JournalMark
from tracelet.journal.load import Run
from tracelet.utils.names import safe_directory_name

PRUNED: Final = "model/pruned"
"""The text of each artifact that the run has let go."""

_SOURCE: Final = "source"  # In an artifact's metadata: what it is a copy of.


@final
class KeptModels:
    """See the module docstring."""

    def __init__(self, kept: Mapping[str, str] | None = None) -> None:
        """Begin; `kept` are those of an earlier attempt: the artifacts that the framework still has, and where."""
        self.sources: dict[str, str] = dict(kept or {})
        """The artifacts that the framework still has, and where."""
        self._written_ns: dict[str, int] = {}  # By source: which writing of it has been kept.
        self._dropped: dict[str, JournalMark] = {}  # Artifacts that are to go, once all backends are past the mark.

    @classmethod
    def of_run(cls, run_dir: Path) -> KeptModels:
        """Those that a run has kept and not dropped.

        Raises:
            CorruptJournalError: The run can't be read.
        """
        models = cls()
        for record in Run(run_dir).records(MetricType.ARTIFACT, MetricType.TEXT):
            source = (record.metadata or {}).get(_SOURCE)
            if record.name == PRUNED:
                models.sources.pop(record.value, None)
            elif source is not None:
                models.sources[record.name] = source["path"]
                models._written_ns[source["path"]] = source["mtime_ns"]
        return models

    def has(self, source: Path) -> bool:
        """Whether it is kept as it is now."""
        return self._written_ns.get(os.fspath(source)) == os.stat(source).st_mtime_ns

    def keep(
        self, experiment: Experiment, name: str, source: Path, *, step: int | None, aliases: Sequence[str],
        metadata: Mapping[str, Any],
    ) -> None:  # fmt: skip
        """Keep a file or directory as an artifact."""
        path, mtime_ns = os.fspath(source), os.stat(source).st_mtime_ns
        origin = {"path": path, "mtime_ns": mtime_ns}
        facts = {"type": "model", "aliases": list(aliases), _SOURCE: origin, **metadata}
        experiment.emit_metric(MetricData(name, path, MetricType.ARTIFACT, step, metadata=facts))
        self.sources[name], self._written_ns[path] = path, mtime_ns
        self._dropped.pop(name, None)  # A second training has made it once more.

    def drop(self, experiment: Experiment, names: Iterable[str]) -> None:
        """Have artifacts go, as soon as every backend has got them."""
        for name in sorted(names):
            del self.sources[name]
            experiment.log_text(PRUNED, name)
            self._dropped[name] = JournalMark.now(experiment.run_dir)

    def let_go(self, experiment: Experiment) -> None:
        """Drop what the framework has deleted, and delete what was dropped and every backend has got."""
        self.drop(experiment, {name for name, source in self.sources.items() if not os.path.exists(source)})
        backends = experiment.status()["backends"] if self._dropped else ()
        for name, mark in list(self._dropped.items()):
            if all(mark.is_passed_by(experiment.run_dir, backend) for backend in backends):
                del self._dropped[name]
                shutil.rmtree(place(experiment, name), ignore_errors=True)


def place(experiment: Experiment, name: str) -> Path:
    """Where the run keeps an artifact, in all its versions."""
    return experiment.run_dir / "artifacts" / safe_directory_name(name)
