"""Keeps models with the run: checkpoints, the best one, the final one.

Called on the training thread of the first rank, after Hugging Face has saved a checkpoint and deleted those that
`save_total_limit` has no room for. The guarantee: the user's files are linked or copied, never changed or deleted. What
the trainer has deleted, the run lets go as well, as soon as every backend has it: a link would keep the disk full.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, final

from transformers import TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from tracelet.core.experiment import Experiment
from tracelet.core.records import MetricData, MetricType
from tracelet.delivery.marks import JournalMark
from tracelet.errors import UsageError
from tracelet.utils.names import safe_directory_name

logger = logging.getLogger(__name__)

LogModel = Literal[False, "end", "checkpoint", "best"]
LOG_MODEL: Final[tuple[LogModel, ...]] = (False, "end", "checkpoint", "best")


@final
class Models:
    """See the module docstring."""

    def __init__(self, log_model: LogModel) -> None:
        """Make one that keeps nothing yet.

        Raises:
            UsageError: `log_model` is none of `LOG_MODEL`.
        """
        if log_model not in LOG_MODEL:
            raise UsageError(f"log_model is one of {', '.join(map(repr, LOG_MODEL))}, not {log_model!r}")
        self._log_model = log_model
        self.kept: dict[str, str] = {}
        """The artifacts that the trainer still has, and where."""
        self._dropped: dict[str, JournalMark] = {}  # Artifacts that are to go, once all backends are past the mark.

    def of_another_run(
        self, experiment: Experiment, args: TrainingArguments, state: TrainerState, kept: Mapping[str, str]
    ) -> Models:
        """The same for another run; `kept` is what the checkpoint says of it, if it resumes from one."""
        other = Models(self._log_model)
        other.kept = dict(kept)
        source = _checkpoint(args, state.global_step)  # It was saved before it was kept.
        if source is not None and _versions(experiment, name := f"model/{source.name}"):
            other.kept[name] = os.fspath(source)
        return other

    def checkpoint_saved(self, experiment: Experiment, args: TrainingArguments, state: TrainerState) -> None:
        """Keep a checkpoint, if it is one to keep, and let go of those that are gone."""
        source = _checkpoint(args, state.global_step)
        is_best = state.best_global_step == state.global_step
        if source is not None and (self._log_model == "checkpoint" or (self._log_model == "best" and is_best)):
            aliases = ["best"] if is_best else []
            self._keep(experiment, f"model/{source.name}", source, args, state, aliases)
        if self._log_model == "best" and is_best:
            self._prune(experiment, {name for name in self.kept if name != f"model/{source and source.name}"})
        self.let_go(experiment)

    def training_ended(
        self, experiment: Experiment, args: TrainingArguments, state: TrainerState, model: Any, processing_class: Any
    ) -> None:
        """Keep the final model, if that is wanted. It is the best one after `load_best_model_at_end`."""
        if self._log_model == "end":
            if args.deepspeed or args.fsdp:
                logger.warning('log_model="end" needs the whole model in one process: use "checkpoint" or "best"')
                return
            aliases = ["final", *(["best"] if args.load_best_model_at_end and state.best_model_checkpoint else [])]
            # In the run directory, so that it can be linked.
            with tempfile.TemporaryDirectory(prefix="model-", dir=experiment.run_dir) as directory:
                _save(model, processing_class, directory)
                self._keep(experiment, "model/final", Path(directory), args, state, aliases)
            self.kept.pop("model/final")  # It has no other place.
        self.let_go(experiment)

    def let_go(self, experiment: Experiment) -> None:
        """Delete the run's copies of what the trainer has deleted, where every backend has got them."""
        self._prune(experiment, {name for name, source in self.kept.items() if not os.path.exists(source)})
        backends = experiment.status()["backends"] if self._dropped else ()
        for name, mark in list(self._dropped.items()):
            if all(mark.is_passed_by(experiment.run_dir, backend) for backend in backends):
                del self._dropped[name]
                for version in _versions(experiment, name):
                    shutil.rmtree(version, ignore_errors=True)

    def _keep(
        self, experiment: Experiment, name: str, source: Path, args: TrainingArguments, state: TrainerState,
        aliases: list[str],
    ) -> None:  # fmt: skip
        metadata: dict[str, Any] = {"type": "model", "epoch": state.epoch, "aliases": aliases}
        if state.best_metric is not None and "best" in aliases:
            metadata["best"] = {"metric": args.metric_for_best_model, "value": state.best_metric}
        experiment.emit_metric(
            MetricData(name, os.fspath(source), MetricType.ARTIFACT, state.global_step, metadata=metadata)
        )
        self.kept[name] = os.fspath(source)
        self._dropped.pop(name, None)  # A second training has made it once more.

    def _prune(self, experiment: Experiment, names: set[str]) -> None:
        for name in sorted(names):
            del self.kept[name]
            experiment.log_text("model/pruned", name)
            self._dropped[name] = JournalMark.now(experiment.run_dir)


def _versions(experiment: Experiment, name: str) -> list[Path]:
    """Where the run has the versions of an artifact. Their manifests stay, so that no number is given again."""
    place = experiment.run_dir / "artifacts" / safe_directory_name(name)
    return [path for path in place.glob("v*") if path.is_dir()]


def _checkpoint(args: TrainingArguments, step: int) -> Path | None:
    """The checkpoint of a step: in the output directory, or in that of a trial below it; the newest one of them."""
    name = f"{PREFIX_CHECKPOINT_DIR}-{step}"
    found = [path for pattern in (name, f"*/{name}") for path in Path(args.output_dir or ".").glob(pattern)]
    return max(found, key=lambda path: path.stat().st_mtime_ns, default=None)


def _save(model: Any, processing_class: Any, directory: str) -> None:
    """As the trainer saves them."""
    save = getattr(model, "save_pretrained", None)
    if save is not None:
        save(directory)
    else:
        from safetensors.torch import save_model

        save_model(model, os.path.join(directory, "model.safetensors"))
    if processing_class is not None:
        processing_class.save_pretrained(directory)
