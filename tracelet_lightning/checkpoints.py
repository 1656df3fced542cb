"""Keeps the checkpoints of Lightning's `ModelCheckpoint`s with the run.

Called on the training thread of rank zero: `saved` after each checkpoint, before Lightning deletes those that it has no
room for any more; `stage_ended` after each stage, and after an exception or Ctrl-C.

Guarantee: as that of `tracelet.core.keeping`. A checkpoint is kept once; one that was written anew, once more.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, final

from tracelet.core.experiment import Experiment
from tracelet.core.keeping import KeptModels
from tracelet.errors import UsageError

LogModel = Literal["all", "best", "last"] | bool
LOG_MODEL: Final[tuple[LogModel, ...]] = (False, True, "all", "best", "last")


@final
@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One that Lightning has: a file, or a directory of a sharded strategy.

    Attributes:
        path: Where.
        aliases: `latest`, `last` and `best`, as far as they are true now.
        metadata: The monitored metric, whether less is better, and the score.
    """

    path: Path
    aliases: tuple[str, ...]
    metadata: dict[str, Any]


@final
class Checkpoints:
    """See the module docstring."""

    def __init__(self, log_model: LogModel) -> None:
        """Make one that keeps nothing yet.

        Raises:
            UsageError: `log_model` is none of `LOG_MODEL`.
        """
        if log_model not in LOG_MODEL:
            raise UsageError(f"log_model is one of {', '.join(map(repr, LOG_MODEL))}, not {log_model!r}")
        self._log_model = log_model
        self._models = KeptModels()
        # By the callback's key and the path: how many steps of the optimizer had been made as it was written.
        self._saved: defaultdict[str, dict[str, int]] = defaultdict(dict)
        self._callbacks: dict[str, Any] = {}  # Weak proxies, by the key that no two in a trainer share.

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_callbacks": {}}  # A weak proxy can't be pickled.

    def saved(self, experiment: Experiment, callback: Any) -> None:
        """A checkpoint has been saved.

        Args:
            experiment: The run's.
            callback: The `ModelCheckpoint` that has, or a weak proxy of it.
        """
        if self._log_model is not False:
            self._follow(experiment)
            self._callbacks[callback.state_key] = callback
            self._saved[callback.state_key][_newest(callback)] = getattr(callback, "_last_global_step_saved", 0)
        if self._log_model in ("all", "best", "last"):
            self._keep_new(experiment, callback)
            self._models.let_go(experiment)

    def stage_ended(self, experiment: Experiment) -> None:
        """Keep what there is to keep, and let go of what Lightning has deleted."""
        if self._callbacks:
            self._follow(experiment)
        for key, callback in list(self._callbacks.items()):
            try:
                self._keep_new(experiment, callback)
            except ReferenceError:  # The trainer is gone; so its checkpoints have been seen.
                del self._callbacks[key]
        self.let_go(experiment)

    def let_go(self, experiment: Experiment) -> None:
        """Delete the run's copies of what Lightning has deleted, where every backend has got them."""
        self._models.let_go(experiment)

    def _follow(self, experiment: Experiment) -> None:
        if self._models.follow(experiment):  # What was saved before is another run's.
            self._saved.clear()
            self._callbacks.clear()

    def _keep_new(self, experiment: Experiment, callback: Any) -> None:
        steps = self._saved[callback.state_key]
        for checkpoint in _checkpoints_of(callback, steps):
            path = os.fspath(checkpoint.path)
            wanted = self._log_model in (True, "all", *checkpoint.aliases) or (
                self._log_model == "last" and "latest" in checkpoint.aliases
            )
            if not wanted or self._models.has(checkpoint.path):
                continue
            name = self._name(checkpoint.path)
            self._models.keep(
                experiment, name, checkpoint.path,
                step=steps.get(path), aliases=checkpoint.aliases, metadata=checkpoint.metadata,
            )  # fmt: skip
            if self._log_model in ("best", "last"):  # Of this callback's; those of another one stay.
                beside = {n for n, source in self._models.sources.items() if source.parent == checkpoint.path.parent}
                self._models.drop(experiment, beside - {name})

    def _name(self, path: Path) -> str:
        """`model/` and the file's name; where another file has taken that, with its directory's."""
        name = f"model/{path.stem}"
        return name if self._models.sources.get(name, path) == path else f"model/{path.parent.name}/{path.stem}"


def _checkpoints_of(callback: Any, saved: Iterable[str]) -> Iterator[Checkpoint]:
    """Those that a callback has now, the oldest first: of those it `saved`, and those it took over as it resumed."""
    best, last = (str(getattr(callback, attribute, "")) for attribute in ("best_model_path", "last_model_path"))
    newest = _newest(callback)
    scores = dict(getattr(callback, "best_k_models", {}))
    monitor = getattr(callback, "monitor", None)
    # A link, as of `save_last="link"`, is another name of a checkpoint that is in the list.
    there = [path for path in {*saved, *scores, best, last} if os.path.exists(path) and not os.path.islink(path)]
    for path in sorted(there, key=lambda path: os.stat(path).st_mtime_ns):
        aliases = {"latest": path == newest, "last": path == last, "best": path == best}
        score = {"score": float(scores[path])} if path in scores else {}
        yield Checkpoint(
            Path(path),
            tuple(alias for alias, holds in aliases.items() if holds),
            {} if monitor is None else {"monitor": monitor, "mode": getattr(callback, "mode", None), **score},
        )


def _newest(callback: Any) -> str:
    return str(getattr(callback, "_last_checkpoint_saved", ""))
