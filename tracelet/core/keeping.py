"""Models that a framework saves, and deletes again, kept with the run: what adapters have in common.

Called on the training thread of the first rank. The guarantee: the user's files are linked or copied, never changed or
deleted. What an adapter drops, and a version whose file was written anew, the run lets go as soon as every backend has
it: a link would keep the disk full. The record of it stays, and a text (`PRUNED`) names it, as `model/last:v3`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

from tracelet.core.experiment import Experiment
from tracelet.delivery.marks import JournalMark
from tracelet.journal.artifacts import Artifact
from tracelet.journal.load import Run
from tracelet.journal.manifests import version_directory

PRUNED: Final = "model/pruned"
"""The text of each version of an artifact that the run has let go."""

_SOURCE: Final = "source"  # In an artifact's metadata: which file it is, and which writing of it.


@final
@dataclass(frozen=True, slots=True)
class _Kept:
    """The newest version of an artifact."""

    version: str
    path: Path | None
    source: Mapping[str, Any]

    @classmethod
    def of(cls, artifact: Artifact, source: Mapping[str, Any]) -> _Kept:
        """What there is to know of it."""
        return cls(f"{artifact.name}:{artifact.version}", artifact.path, source)


@final
class KeptModels:
    """See the module docstring. `follow` comes first."""

    def __init__(self) -> None:
        """Make one that knows of no run yet."""
        self._run_dir: Path | None = None
        self._kept: dict[str, _Kept] = {}  # By the artifact's name.
        self._dropped: dict[Path, JournalMark] = {}  # Files that are to go, once all backends are past the mark.

    def follow(self, experiment: Experiment) -> bool:
        """Take up what the experiment's run has kept so far, in whatever process.

        Returns:
            Whether it is another run than before.

        Raises:
            CorruptJournalError: The run can't be read. Then nothing is known of it, and it is not read again.
        """
        if experiment.run_dir == self._run_dir:
            return False
        self._run_dir, self._kept, self._dropped = experiment.run_dir, {}, {}
        run = Run(self._run_dir)
        pruned = {text for _, text in run.texts(PRUNED)}
        for artifact in run.artifacts():
            if artifact.path is not None and artifact.is_kept and _SOURCE in artifact.metadata:
                kept = _Kept.of(artifact, artifact.metadata[_SOURCE])
                if kept.version in pruned:
                    self._dropped[artifact.path] = JournalMark.now(self._run_dir)
                else:
                    self._kept[artifact.name] = kept
        return True

    @property
    def sources(self) -> dict[str, Path]:
        """Where the framework has what is kept, by the artifact's name."""
        return {name: Path(kept.source["path"]) for name, kept in self._kept.items()}

    def has(self, source: Path) -> bool:
        """Whether a file or directory is kept as it is now."""
        return any(kept.source == _identity(source) for kept in self._kept.values())

    def keep(
        self, experiment: Experiment, name: str, source: Path, *, step: int | None, aliases: Sequence[str],
        metadata: Mapping[str, Any],
    ) -> None:  # fmt: skip
        """Keep a file or directory as the next version of an artifact."""
        identity = _identity(source)  # The journal may have hidden a part of the path.
        facts = {**metadata, _SOURCE: identity}
        artifact = experiment.log_artifact(source, name, "model", aliases=aliases, metadata=facts, iteration=step)
        self.drop(experiment, [name] if name in self._kept else [])
        self._kept[name] = _Kept.of(artifact, identity)

    def drop(self, experiment: Experiment, names: Iterable[str]) -> None:
        """Have artifacts go, as soon as every backend has got them."""
        for name in sorted(names):
            kept = self._kept.pop(name)
            experiment.log_text(PRUNED, kept.version)
            if kept.path is not None:
                self._dropped[kept.path] = JournalMark.now(experiment.run_dir)

    def let_go(self, experiment: Experiment) -> None:
        """Drop what the framework has deleted, and delete what was dropped and every backend has got."""
        if experiment.run_dir != self._run_dir:
            return
        self.drop(experiment, {name for name, source in self.sources.items() if not os.path.exists(source)})
        backends = experiment.status()["backends"] if self._dropped else ()
        for path, mark in list(self._dropped.items()):
            if all(mark.is_passed_by(experiment.run_dir, backend) for backend in backends):
                del self._dropped[path]
                place = version_directory(experiment.run_dir, path)
                if place is not None:
                    shutil.rmtree(place, ignore_errors=True)


def _identity(source: Path) -> dict[str, Any]:
    return {"path": os.fspath(source), "mtime_ns": os.stat(source).st_mtime_ns}
