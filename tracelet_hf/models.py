"""Keeps models with the run: checkpoints, the best one, the final one.

Called on the training thread of the first rank, after Hugging Face has saved a checkpoint and deleted those that
`save_total_limit` has no room for. Guarantee: as that of `tracelet.core.keeping`.
"""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path
from typing import Any, Final, Literal, final

from transformers import TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from tracelet.core.experiment import Experiment
from tracelet.core.keeping import KeptModels
from tracelet.errors import UsageError

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
        self._models = KeptModels()

    def checkpoint_saved(self, experiment: Experiment, args: TrainingArguments, state: TrainerState) -> None:
        """Keep a checkpoint, if it is one to keep, and let go of those that are gone."""
        if self._log_model not in ("checkpoint", "best"):
            return
        self._models.follow(experiment)
        is_best = state.best_global_step == state.global_step
        source = _checkpoint(args, state.global_step)
        if source is not None and (self._log_model == "checkpoint" or is_best):
            name, aliases = f"model/{source.name}", ["best"] if is_best else []
            self._models.keep(
                experiment, name, source,
                step=state.global_step, aliases=aliases, metadata=_facts(args, state, is_best=is_best),
            )  # fmt: skip
            if self._log_model == "best":
                self._models.drop(experiment, self._models.sources.keys() - {name})
        self.let_go(experiment)

    def training_ended(
        self, experiment: Experiment, args: TrainingArguments, state: TrainerState, model: Any, processing_class: Any
    ) -> None:
        """Keep the final model, if that is wanted. It is the best one after `load_best_model_at_end`."""
        if self._log_model == "end":
            if args.deepspeed or args.fsdp:
                logger.warning('log_model="end" needs the whole model in one process: use "checkpoint" or "best"')
                return
            is_best = args.load_best_model_at_end and state.best_model_checkpoint is not None
            # In the run directory, so that it can be linked.
            with tempfile.TemporaryDirectory(prefix="model-", dir=experiment.run_dir) as directory:
                _save(model, processing_class, directory)
                experiment.log_artifact(
                    directory, "model/final", "model", aliases=["final", *(["best"] if is_best else [])],
                    metadata=_facts(args, state, is_best=is_best), iteration=state.global_step,
                )  # fmt: skip
        self.let_go(experiment)

    def let_go(self, experiment: Experiment) -> None:
        """Delete the run's copies of what the trainer has deleted, where every backend has got them."""
        self._models.let_go(experiment)


def _facts(args: TrainingArguments, state: TrainerState, *, is_best: bool) -> dict[str, Any]:
    best = {"metric": args.metric_for_best_model, "value": state.best_metric}
    return {"epoch": state.epoch, **({"best": best} if is_best and state.best_metric is not None else {})}


def _checkpoint(args: TrainingArguments, step: int) -> Path | None:
    """The checkpoint of a step: in the output directory, or in that of a trial below it; the newest one of them."""
    name = f"{PREFIX_CHECKPOINT_DIR}-{step}"
    found = [path for pattern in (name, f"*/{name}") for path in Path(args.output_dir or ".").absolute().glob(pattern)]
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
