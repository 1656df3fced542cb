"""The names of Hugging Face's logs, and those of series."""

from __future__ import annotations

import pytest

from tracelet_hf.naming import series_of

SPEED = ("runtime", "samples_per_second", "steps_per_second")


def named(prefix: str, *keys: str) -> list[str]:
    """The series of an evaluation's keys, its times left out."""
    return list(series_of(dict.fromkeys([*keys, *(f"{prefix}_{name}" for name in SPEED)], 1.0)))[: len(keys)]


@pytest.mark.parametrize(
    ("key", "name"),
    [("loss", "train/loss"), ("grad_norm", "train/grad_norm"), ("epoch", "epoch"), ("train_loss", "train/mean_loss"),
     ("train_runtime", "train/runtime"), ("total_flos", "train/total_flos"), ("train/x", "train/x"),
     ("eval/x", "eval/x"),
     ("rewards/chosen", "train/rewards/chosen"), ("eval_rewards/chosen", "eval/rewards/chosen"), ("test_f1", "test/f1"),
     ("trainable", "train/trainable"), ("evaluation", "train/evaluation"), ("eval_", "train/eval_"), ("", "train/"),
     ("memory/eval_peak", "train/memory/eval_peak")],
)  # fmt: skip
def test_a_key_of_a_training(key: str, name: str):
    assert [name] == list(series_of({key: 1.0}))
    assert name in series_of({"loss": 0.0, key: 1.0})


@pytest.mark.parametrize(
    ("prefix", "group"),
    [("eval", "eval"), ("test", "test"), ("eval_math", "eval/math"), ("eval_math_hard", "eval/math_hard"),
     ("test_a/b", "test/a/b"), ("final", "final"), ("my_eval", "my_eval"), ("eval_runtime", "eval/runtime")],
)  # fmt: skip
def test_a_key_of_an_evaluation(prefix: str, group: str):
    keys = [f"{prefix}_loss", f"{prefix}_math_loss", "epoch", "num_input_tokens_seen"]
    assert [f"{group}/loss", f"{group}/math_loss", "epoch", "train/num_input_tokens_seen"] == named(prefix, *keys)


def test_keys_that_a_trainer_adds_to_the_log_of_a_dataset_are_those_of_the_dataset():
    assert ["eval/math/loss", "eval/math/entropy"] == named("eval_math", "eval_math_loss", "eval_entropy")


def test_values_and_their_order_stay():
    logs = {"loss": 1.0, "note": "x", "epoch": 0.5}
    assert [1.0, "x", 0.5] == list(series_of(logs).values())
    assert {"loss": 1.0, "note": "x", "epoch": 0.5} == logs
