"""Models that a framework saves, and deletes again, kept with the run: what all adapters have in common.

Called on the training thread of the first rank. The guarantee: the user's files are linked or copied, never changed or
deleted. What an adapter drops, the run lets go as soon as every backend has it: a link would keep the disk full. The
record of it stays, and the text `model/pruned` names it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, final

from tracelet.core.experiment import Experiment
from tracelet.core.records import MetricData, MetricType
from tracelet.delivery.marks import JournalMark
from tracelet.utils.names import safe_directory_name


@final
class KeptModels:
    """See the module docstring."""

    def __init__(self, kept: Mapping[str, str] | None = None) -> None:
        """Begin; `kept` are those of an earlier attempt: the artifacts that the framework still has, and where."""
        self.sources: dict[str, str] = dict(kept or {})
        """The artifacts that the framework still has, and where."""
        self._dropped: dict[str, JournalMark] = {}  # Artifacts that are to go, once all backends are past the mark.

    def keep(
        self, experiment: Experiment, name: str, source: Path, *, step: int | None, aliases: Sequence[str],
        metadata: Mapping[str, Any],
    ) -> None:  # fmt: skip
        """Keep a file or directory as an artifact."""
        facts = {"type": "model", "aliases": list(aliases), **metadata}
        experiment.emit_metric(MetricData(name, os.fspath(source), MetricType.ARTIFACT, step, metadata=facts))
        self.sources[name] = os.fspath(source)
        self._dropped.pop(name, None)  # A second training has made it once more.

    def drop(self, experiment: Experiment, names: Iterable[str]) -> None:
        """Have artifacts go, as soon as every backend has got them."""
        for name in sorted(names):
            del self.sources[name]
            experiment.log_text("model/pruned", name)
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
