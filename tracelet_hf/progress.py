"""What a training's log becomes, and what is known besides: speed, tokens, learning rates, the best metric, NaN.

Called on the training thread: `begin` first, then `values` for each log. The guarantee: no device is asked for
anything, logs are not changed, and a point of the series `epoch` is made once a step.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from math import isfinite, isinf
from typing import Any, Final, final

from transformers import TrainerState, TrainingArguments

from tracelet.utils.throughput import Throughput, peak_flops_per_s
from tracelet_hf.naming import EPOCH, series_name, series_of, stage_prefix

logger = logging.getLogger(__name__)

_FILTERED: Final = " This loss has the mean of earlier ones where it was not finite: logging_nan_inf_filter is on."
_NOT_SEEN: Final = " It may have begun at a step since the last log: true_loss=True names it."
_MOST_NAMES: Final = 10_000  # Some make a new one each step.
_FLOPS_PER_TOKEN: Final = 6  # And parameter: how Hugging Face counts `total_flos`.


@final
class Progress:
    """See the module docstring."""

    def __init__(self, peak_flops_per_s: float | None, *, grad_norms: bool) -> None:
        """Make one.

        Args:
            peak_flops_per_s: What one device can do. None: to go by its name.
            grad_norms: Whether the norm of each group's gradient is wanted.
        """
        self._peak_flops_per_s = peak_flops_per_s
        self._grad_norms = grad_norms
        self._peak_of_all: float | None = None  # Devices together.
        self.throughput = Throughput()
        """Is told of the ends of steps, evaluations and checkpoints."""
        self._samples_per_step = 0
        self._flops_per_token = 0
        self._names: dict[str, str] = {}  # Of the series of a training's log, by key.
        self._groups: list[str] = []  # Names of the optimizer's.
        self._has_rates = False  # Whether they have several learning rates.
        self.watches_groups = False
        """Whether `optimizer_steps` has something to do."""
        self._of_groups: dict[str, Any] = {}  # Series and their values at this step; on the device, maybe.
        self._epoch_step: int | None = None
        self._best: float | None = None
        self._best_name = "best/eval/loss"
        self._evaluated_step = 0
        self._nonfinite_step = -1  # The last one that was found by the true loss.
        self._has_warned = False

    def begin(self, args: TrainingArguments, state: TrainerState, model: Any, optimizer: Any) -> None:
        """A training begins."""
        self.throughput.begin(state.global_step, state.total_flos)
        self._epoch_step, self._best, self._of_groups = None, state.best_metric, {}
        self._nonfinite_step = -1
        count = getattr(model, "num_parameters", None)
        self._flops_per_token = 0 if count is None else _FLOPS_PER_TOKEN * count(exclude_embeddings=True)
        groups = [] if optimizer is None else optimizer.param_groups
        self._groups = [str(group.get("name", f"group_{place}")) for place, group in enumerate(groups)]
        self._has_rates = len({float(group.get("initial_lr", group["lr"])) for group in groups}) > 1
        self.watches_groups = self._has_rates or (self._grad_norms and bool(groups))
        batch = state.train_batch_size or args.train_batch_size
        self._samples_per_step = batch * args.gradient_accumulation_steps * args.world_size
        peak = self._peak_flops_per_s or _peak_of(args)
        self._peak_of_all = None if peak is None else peak * args.world_size * max(1, args.n_gpu)

    def optimizer_steps(self, optimizer: Any) -> None:
        """Note the learning rates of the step, which the scheduler changes before the log, and the gradients' norms."""
        groups = list(zip(self._groups, optimizer.param_groups, strict=False))
        if self._has_rates:
            self._of_groups = {f"lr/{name}": group["lr"] for name, group in groups}
        if self._grad_norms:
            from torch.nn.utils import get_total_norm

            for name, group in groups:
                grads = [weight.grad for weight in group["params"] if weight.grad is not None]
                self._of_groups[f"grad_norm/{name}"] = get_total_norm(grads)

    def evaluated(self, state: TrainerState) -> None:
        """An evaluation has ended."""
        self._evaluated_step = state.global_step

    # Called each step: names are looked up, what stays the same has been read in `begin`, and few functions are called.
    def values(self, logs: Mapping[str, Any], args: TrainingArguments, state: TrainerState) -> dict[str, Any]:
        """The values of a log under the names of their series; with that of a training comes more."""
        step = state.global_step
        if "loss" in logs:
            values, names = {}, self._names
            for key, value in logs.items():
                values[names[key] if key in names else self._new_name(key)] = value
            done = self.throughput.read(step, state.total_flos)
            if done is not None:
                steps, spent_s, flops = done
                values["throughput/step_time_s"] = spent_s / steps
                values["throughput/samples_per_s"] = self._samples_per_step * steps / spent_s
                if self._flops_per_token and flops > 0:
                    values["throughput/tokens_per_s"] = flops / self._flops_per_token / spent_s
                    values["train/tokens_seen"] = float(round(state.total_flos / self._flops_per_token))
                if self._peak_of_all and flops > 0:
                    values["throughput/mfu"] = flops / self._peak_of_all / spent_s
            if self._of_groups:
                values |= {name: float(value) for name, value in self._of_groups.items()}
            loss, norm = logs["loss"], logs.get("grad_norm")
            if (type(loss) is float and not isfinite(loss)) or (type(norm) is float and not isfinite(norm)):
                values |= self._nonfinite(args, state, f"the loss is {loss} and the gradient's norm {norm}.")
        else:
            values = self._of_evaluation(logs, args)
        if self._epoch_step == step:
            values.pop(EPOCH, None)
        elif EPOCH in values:
            self._epoch_step = step
        return values

    def epoch(self, state: TrainerState) -> dict[str, float]:
        """The point of `epoch` at the end of one, unless a log has made it."""
        if self._epoch_step == state.global_step:
            return {}
        self._epoch_step = state.global_step
        return {EPOCH: state.epoch}

    def new_best(self, state: TrainerState) -> tuple[dict[str, float], int] | None:
        """The series of the best value so far, and its step; None where no better one has come."""
        if state.best_metric in (None, self._best) or isinf(state.best_metric):  # It begins as infinite.
            return None
        self._best = state.best_metric
        return {self._best_name: state.best_metric}, self._evaluated_step

    def true_loss(self, step: int, loss: float) -> dict[str, float]:
        """The series of the loss of a step as the model computed it."""
        if isfinite(loss):
            return {"train/true_loss": loss}
        self._nonfinite_step = step
        self._warn(step, f"the model's loss was {loss}.")
        return {"train/true_loss": loss, "train/nonfinite": 1.0}

    def _of_evaluation(self, logs: Mapping[str, Any], args: TrainingArguments) -> dict[str, Any]:
        metric = f"eval_{(args.metric_for_best_model or 'loss').removeprefix('eval_')}"
        if metric in logs:
            self._best_name = f"best/{series_name(metric, stage_prefix(logs))}"
        return series_of(logs)

    def _nonfinite(self, args: TrainingArguments, state: TrainerState, what: str) -> dict[str, float]:
        """The mark of a log with a value that is not finite, unless the true loss has made it."""
        why = (_FILTERED if args.logging_nan_inf_filter else "") + (_NOT_SEEN if state.logging_steps != 1 else "")
        self._warn(state.global_step, what + why)
        return {} if state.global_step == self._nonfinite_step else {"train/nonfinite": 1.0}

    def _new_name(self, key: str) -> str:
        name = series_name(str(key), None)
        if len(self._names) < _MOST_NAMES:
            self._names[key] = name
        return name

    def _warn(self, step: int, what: str) -> None:
        """Once: a training that has become NaN stays so."""
        if not self._has_warned:
            self._has_warned = True
            logger.warning("step %d: %s", step, what)


def _peak_of(args: TrainingArguments) -> float | None:
    if args.device.type != "cuda":
        return None
    import torch

    return peak_flops_per_s(torch.cuda.get_device_name(args.device))
