"""From the names of Hugging Face's logs to those of series: `eval_math_loss` becomes `eval/math/loss`.

Called on the training thread, for each log. Pure functions. The guarantee: `train/`, `eval/` or `test/`, or another
stage that the user has named, stands before a name, and once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

EPOCH: Final = "epoch"

_SPEED: Final = ("_samples_per_second", "_steps_per_second")
_STAGES: Final = ("train", "eval", "test")
_NAMES: Final = {EPOCH: EPOCH, "train_loss": "train/mean_loss"}  # `train_loss` is the mean over the whole training.


def series_of(logs: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a log under the names of their series."""
    named = {str(key): value for key, value in logs.items()}
    prefix = None if "loss" in logs else stage_prefix(named)
    return {series_name(key, prefix): value for key, value in named.items()}


def stage_prefix(keys: Iterable[str]) -> str | None:
    """The `metric_key_prefix` of an evaluation or a prediction; None for a log of the training.

    It tells `eval_math_loss`, the loss on a dataset named `math`, from a metric named `math_loss`: `evaluate` and
    `predict` log how long they took, always and under the same prefix.
    """
    keys = set(keys)
    for key in keys:
        prefix = key.removesuffix("_runtime")
        if prefix not in (key, "train") and any(prefix + speed in keys for speed in _SPEED):
            return prefix
    return None


def series_name(key: str, prefix: str | None) -> str:
    """The series of a key, in a log of this prefix."""
    if key in _NAMES or key.partition("/")[0] in _STAGES:
        return _NAMES.get(key, key)
    stage, _, rest = key.partition("_")
    if prefix is not None:
        first, _, dataset = prefix.partition("_")
        group = f"{first}/{dataset}" if first in _STAGES and dataset else prefix
        if key.startswith(f"{prefix}_"):
            return f"{group}/{key[len(prefix) + 1 :]}"
        if stage == first and rest:  # TRL adds `eval_…` to the log of each dataset.
            return f"{group}/{rest}"
    return f"{stage}/{rest}" if stage in _STAGES and rest else f"train/{key}"
