"""What a training's log becomes, and what is known besides: speed, tokens, learning rates, the best metric, NaN.

Called on the training thread: `begin` first, `step_ended` after each step, `pause_ended` after an evaluation or a
checkpoint, `values` for each log. The guarantee: no device is asked for anything, logs are not changed, and a point
of the series `epoch` is made once a step.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any, Final, final

from transformers import TrainerState, TrainingArguments

from tracelet.utils.throughput import Throughput, peak_flops_per_s
from tracelet_hf.naming import EPOCH, series_name, series_of, stage_prefix

logger = logging.getLogger(__name__)

_FILTERED: Final = " This loss has the mean of earlier ones where it was not finite: logging_nan_inf_filter is on."
_FLOPS_PER_TOKEN: Final = 6  # And parameter: how Hugging Face counts `total_flos`.


@final
class Progress:
    """See the module docstring."""

    def __init__(self, peak_flops_per_s: float | None) -> None:
        """Make one; `peak_flops_per_s` is what one device can do, None to go by its name."""
        self._peak_flops_per_s = peak_flops_per_s
        self._all_flops_per_s: float | None = None
        self._throughput = Throughput()
        self._parameters = 0  # Those that count for `total_flos`.
        self._groups: list[str] = []  # Names of the optimizer's groups, where their learning rates differ.
        self._rates: dict[str, float] = {}
        self._epoch_step: int | None = None
        self._best: float | None = None
        self._best_name = "best/eval/loss"
        self._evaluated_step = 0
        self._has_warned = False

    def begin(self, args: TrainingArguments, state: TrainerState, model: Any, optimizer: Any) -> None:
        """A training begins."""
        self._throughput.begin(state.global_step, state.total_flos)
        self._epoch_step, self._best, self._rates = None, state.best_metric, {}
        count = getattr(model, "num_parameters", None)
        self._parameters = 0 if count is None else count(exclude_embeddings=True)
        groups = [] if optimizer is None else optimizer.param_groups
        differ = len({float(group.get("initial_lr", group["lr"])) for group in groups}) > 1
        self._groups = [f"lr/{group.get('name', f'group_{place}')}" for place, group in enumerate(groups) if differ]
        peak = self._peak_flops_per_s or _peak_of(args)
        self._all_flops_per_s = None if peak is None else peak * args.world_size * max(1, args.n_gpu)

    def optimizer_stepped(self, optimizer: Any) -> None:
        """Note the learning rates of the step: the scheduler changes them before the log."""
        if self._groups:
            rates = (group["lr"] for group in optimizer.param_groups)
            self._rates = {name: rate for name, rate in zip(self._groups, rates, strict=False) if type(rate) is float}

    def step_ended(self) -> None:
        """A step has ended."""
        self._throughput.step_ended()

    def evaluated(self, state: TrainerState) -> None:
        """An evaluation has ended."""
        self._evaluated_step = state.global_step

    def pause_ended(self) -> None:
        """An evaluation, a prediction or a checkpoint has ended."""
        self._throughput.pause_ended()

    def values(self, logs: Mapping[str, Any], args: TrainingArguments, state: TrainerState) -> dict[str, Any]:
        """The values of a log under the names of their series; with that of a training comes more."""
        values = series_of(logs)
        if self._epoch_step == state.global_step:
            values.pop(EPOCH, None)
        elif EPOCH in values:
            self._epoch_step = state.global_step
        metric = f"eval_{(args.metric_for_best_model or 'loss').removeprefix('eval_')}"
        if metric in logs:
            self._best_name = f"best/{series_name(metric, stage_prefix(logs))}"
        if "loss" in logs:
            values |= self._speed(args, state) | self._rates
            if not (_is_finite(logs["loss"]) and _is_finite(logs.get("grad_norm"))):
                values["train/nonfinite"] = 1.0
                what = f"the loss is {logs['loss']} and the gradient's norm {logs.get('grad_norm')}."
                self._warn(state.global_step, what + (_FILTERED if args.logging_nan_inf_filter else ""))
        return values

    def epoch(self, state: TrainerState) -> dict[str, float]:
        """The point of `epoch` at the end of one, unless a log has made it."""
        if self._epoch_step == state.global_step:
            return {}
        self._epoch_step = state.global_step
        return {EPOCH: state.epoch}

    def new_best(self, state: TrainerState) -> tuple[dict[str, float], int] | None:
        """The series of the best value so far, and its step; None where no better one has come."""
        if state.best_metric is None or state.best_metric == self._best:
            return None
        self._best = state.best_metric
        return {self._best_name: state.best_metric}, self._evaluated_step

    def true_loss(self, step: int, loss: float) -> dict[str, float]:
        """The series of the loss of a step as the model computed it."""
        if math.isfinite(loss):
            return {"train/true_loss": loss}
        self._warn(step, f"the model's loss was {loss}.")
        return {"train/true_loss": loss, "train/nonfinite": 1.0}

    def _speed(self, args: TrainingArguments, state: TrainerState) -> dict[str, float]:
        samples = (state.train_batch_size or args.train_batch_size) * args.gradient_accumulation_steps * args.world_size
        rates = self._throughput.read(state.global_step, samples, state.total_flos)
        flops_per_s = rates.get("flops_per_s", 0.0)
        found = {f"throughput/{name}": value for name, value in rates.items()}
        if self._parameters and flops_per_s:
            flops_per_token = _FLOPS_PER_TOKEN * self._parameters
            found["throughput/tokens_per_s"] = flops_per_s / flops_per_token
            found["train/tokens_seen"] = float(round(state.total_flos / flops_per_token))
        if self._all_flops_per_s and flops_per_s:
            found["throughput/mfu"] = flops_per_s / self._all_flops_per_s
        return found

    def _warn(self, step: int, what: str) -> None:
        """Once: a training that has become NaN stays so."""
        if not self._has_warned:
            self._has_warned = True
            logger.warning("step %d: %s", step, what)


def _is_finite(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def _peak_of(args: TrainingArguments) -> float | None:
    if args.device.type != "cuda":
        return None
    import torch

    return peak_flops_per_s(torch.cuda.get_device_name(args.device))
