"""Losses of each step, as the model computed them."""

from __future__ import annotations

import copy
import pickle
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tracelet.utils.losses import LossWatch


class Model(torch.nn.Module):
    def __init__(self, kind: Any = dict) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.kind = kind

    def forward(self, loss: float, **options: Any) -> Any:
        return self.kind(loss=self.layer.weight.sum() * 0 + loss)


@pytest.mark.parametrize("kind", [dict, SimpleNamespace])
def test_a_step_has_the_mean_of_its_passes_or_the_sum_of_its_parts(kind: Any):
    watch, model = LossWatch(), Model(kind)
    watch.attach(model)
    for loss in (1.0, 2.0):
        model(loss)
    watch.step_ended(7)
    for loss in (1.0, 2.0):
        model(loss, num_items_in_batch=3)
    watch.step_ended(8)
    watch.step_ended(9)
    assert [(7, 1.5), (8, 3.0)] == watch.read()
    assert [] == watch.read()


def test_passes_of_an_evaluation_do_not_count():
    watch, model = LossWatch(), Model()
    watch.attach(model)
    model.eval()(5.0)
    model.train()(1.0)
    watch.step_ended(1)
    assert [(1, 1.0)] == watch.read()


def test_a_loss_on_a_device_is_copied_at_once_and_fetched_in_one_piece(monkeypatch: pytest.MonkeyPatch):
    watch, model = LossWatch(), Model()
    losses = [torch.tensor(1.0, device="meta") for _ in range(3)]
    monkeypatch.setattr(model, "forward", lambda index: {"loss": losses[index]})
    fetched: list[Any] = []
    monkeypatch.setattr(LossWatch, "_fetched", lambda self: fetched.append(list(self._losses)) or [1.0, 2.0, 3.0])
    watch.attach(model)
    for index in range(3):
        model(index)  # A meta tensor has no value: to ask for one would raise.
        watch.step_ended(index)
    assert [(0, 1.0), (1, 2.0), (2, 3.0)] == watch.read()
    assert [[False] * 3] == [[any(copied is loss for loss in losses) for copied in one] for one in fetched]


def test_tensors_are_fetched_as_floats():
    watch = LossWatch()
    watch._losses = [torch.tensor(0.5), torch.tensor([0.25], dtype=torch.bfloat16)]
    assert [0.5, 0.25] == watch._fetched()


@pytest.mark.parametrize("output", [None, (1.0,), {"logits": 1}, {"loss": torch.zeros(2)}, SimpleNamespace(loss=None)])
def test_what_has_no_loss_leaves_nothing(output: Any, monkeypatch: pytest.MonkeyPatch):
    watch, model = LossWatch(), Model()
    monkeypatch.setattr(model, "forward", lambda: output)
    watch.attach(model)
    assert output is model()
    watch.step_ended(1)
    assert [] == watch.read()


def test_memory_stays_bounded_where_nobody_reads():
    watch, model = LossWatch(), Model()
    watch.attach(model)
    for _ in range(10_100):
        model(1.0)
    assert 10_000 == len(watch._losses)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_of_a_model_is_not_watched(copied: Any):
    watch, model = LossWatch(), Model()
    watch.attach(model)
    other = copied(model)
    other(1.0)
    watch.step_ended(1)
    (hook,) = other._forward_hooks.values()
    assert [] == hook.__self__._losses
    assert [] == watch.read()


def test_another_model_or_none_is_watched_after_that():
    watch, first, second = LossWatch(), Model(), Model()
    watch.attach(first)
    watch.attach(second)
    assert ({}, 1) == (dict(first._forward_hooks), len(second._forward_hooks))
    watch.detach()
    assert {} == dict(second._forward_hooks)
