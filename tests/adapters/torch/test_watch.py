"""`watch` on real trainings: each number against one that is computed by hand in the loop."""

from __future__ import annotations

import copy
import logging
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import tracelet
from tests.adapters.torch.helpers import STEPS, batches, histograms, names, network, norm, points, train
from tracelet import Experiment, RunStatus
from tracelet.errors import UsageError
from tracelet.frameworks._torch import watching
from tracelet.frameworks.torch_framework import watch

OPTIMIZERS = {
    "SGD": lambda parameters: torch.optim.SGD(parameters, 0.1, momentum=0.9, weight_decay=0.01),
    # With `foreach`, Nesterov's momentum is added to the gradients themselves: after the step they are others.
    "SGD, Nesterov": lambda parameters: torch.optim.SGD(parameters, 0.1, momentum=0.9, nesterov=True, foreach=True),
    "AdamW": lambda parameters: torch.optim.AdamW(parameters, 0.01),
    "Adam, fused": lambda parameters: torch.optim.Adam(parameters, 0.01, fused=True),
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_each_step_has_its_learning_rate_and_norms(kind: str):
    model = network()
    optimizer = OPTIMIZERS[kind](model.parameters())
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    rates, gradients, weights, updates = [], [], [], []

    def step() -> None:
        before = [parameter.detach().clone() for parameter in model.parameters()]
        rates.append(optimizer.param_groups[0]["lr"])
        gradients.append(norm(parameter.grad for parameter in model.parameters()))
        weights.append(norm(model.parameters()))
        optimizer.step()
        updates.append(norm(now - then for now, then in zip(model.parameters(), before, strict=True)))
        scheduler.step()

    with Experiment("digits") as experiment, watch(model, optimizer, experiment=experiment, update_norm=True):
        train(model, optimizer, step=step)
    assert points(experiment, "train/learning_rate") == list(enumerate(rates))
    for name, expected in {"grad_norm": gradients, "param_norm": weights, "update_norm": updates}.items():
        steps, values = zip(*points(experiment, f"train/{name}"), strict=True)
        assert steps == tuple(range(STEPS))
        assert values == pytest.approx(expected, rel=1e-5)
    assert sorted(names(experiment)) == [
        f"train/{name}" for name in ("grad_norm", "learning_rate", "param_norm", "update_norm")
    ]


def test_the_training_computes_the_same_with_it_and_without_it():
    with Experiment("digits") as experiment:
        results = []
        for is_watched in (False, True):
            model = network()
            optimizer = torch.optim.AdamW(model.parameters(), 0.01)
            if is_watched:
                watch(model, optimizer, per="layer", update_norm=True, histograms_every=2)
            losses = train(model, optimizer)
            results.append((losses, torch.get_rng_state().tolist(), [p.tolist() for p in model.parameters()]))
        assert points(experiment, "train/grad_norm")
    assert results[0] == results[1]


def test_gradients_that_are_accumulated_are_one_step():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    expected = []
    with Experiment("digits") as experiment, watch(model, optimizer, experiment=experiment):
        for place, (images, labels) in enumerate(batches(6)):
            (cross_entropy(model(images), labels) / 3).backward()
            if place % 3 == 2:
                expected.append(norm(parameter.grad for parameter in model.parameters()))
                optimizer.step()
                optimizer.zero_grad()
    assert points(experiment, "train/grad_norm") == [(place, pytest.approx(n)) for place, n in enumerate(expected)]


def test_norms_of_layers_and_groups():
    model = network()
    groups = [{"params": model[0].parameters(), "lr": 0.1}, {"params": model[2].parameters(), "name": "head"}]
    optimizer = torch.optim.SGD(groups, 0.01)
    layers, parts = {"0": model[0], "2.0": model[2][0], "2.1": model[2][1]}, {"group_0": model[0], "head": model[2]}
    expected = {"group": [], "layer": []}

    def on_step() -> None:
        for per, modules in (("layer", layers), ("group", parts)):
            expected[per].append({name: norm(p.grad for p in module.parameters()) for name, module in modules.items()})

    with Experiment("digits") as experiment:
        watch(model, optimizer, per="layer", prefix="layers")
        watch(model, optimizer, per="group", prefix="groups")
        train(model, optimizer, 2, on_step)
    for per in ("layer", "group"):
        for name in expected[per][0]:
            assert points(experiment, f"{per}s/grad_norm/{name}") == [
                (step, pytest.approx(found[name])) for step, found in enumerate(expected[per])
            ]
            assert len(points(experiment, f"{per}s/param_norm/{name}")) == 2
    assert (
        [(0, 0.1), (1, 0.1)]
        == points(experiment, "groups/train/learning_rate")
        == points(experiment, "groups/lr/group_0")
    )
    assert [(0, 0.01), (1, 0.01)] == points(experiment, "groups/lr/head")


def test_a_record_every_n_steps_and_histograms_at_their_own_rate():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    expected = {}

    def step() -> None:
        weight = model[0].weight
        expected[len(expected) + 10] = weight.grad.numpy().copy(), weight.detach().numpy().copy()
        optimizer.step()

    with Experiment("digits") as experiment:
        watch(model, optimizer, every=3, histograms_every=4, first_step=10)
        train(model, optimizer, 6, step=step)
    assert [12, 15] == [step for step, _ in points(experiment, "train/grad_norm")]
    found = histograms(experiment)
    parameters = [name for name, _ in model.named_parameters()]
    assert {(f"{kind}/{name}", 12) for kind in ("gradients", "parameters") for name in parameters} == set(found)
    for kind, values in zip(("gradients", "parameters"), expected[12], strict=True):
        counts, edges = np.histogram(values, 64)
        assert found[f"{kind}/0.weight", 12] == {
            "counts": counts.tolist(), "edges": pytest.approx(edges.tolist()), "nan": 0, "inf": 0,
        }  # fmt: skip


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_the_scaler_leaves_out_is_none(fused: bool):
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), 0.01, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    expected, scales = [], []
    with Experiment("digits") as experiment:
        watch(model, optimizer, scaler=scaler, histograms_every=1)
        for place, (images, labels) in enumerate(batches(4)):
            optimizer.zero_grad()
            loss = cross_entropy(model(images * (float("inf") if place == 1 else 1)), labels)
            if place != 1:
                expected.append(norm(torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)))
            scaler.scale(loss).backward()
            if place != 1:
                scales.append(scaler.get_scale())
            scaler.step(optimizer)
            scaler.update()
    assert points(experiment, "train/grad_norm") == [(s, pytest.approx(n, rel=1e-5)) for s, n in enumerate(expected)]
    assert points(experiment, "train/loss_scale") == [(0, 1024.0), (1, 512.0), (2, 512.0)] == list(enumerate(scales))
    found = histograms(experiment)
    assert {0, 1, 2} == {step for _, step in found}
    assert max(abs(edge) for edge in found["gradients/2.1.bias", 2]["edges"]) < expected[2]  # Not 512 times of it.


def test_a_compiled_model_and_a_compiled_step():
    model = network()
    compiled = torch.compile(model, backend="eager")
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    expected = []
    with Experiment("digits") as experiment, watch(compiled, optimizer, experiment=experiment, per="layer"):
        train(
            compiled, optimizer, 3,
            lambda: expected.append(norm(p.grad for p in model.parameters())),
            torch.compile(optimizer.step, backend="eager"),
        )  # fmt: skip
    assert points(experiment, "train/grad_norm") == [(step, pytest.approx(n)) for step, n in enumerate(expected)]
    assert {"grad_norm/0", "grad_norm/2.0", "grad_norm/2.1"} <= set(names(experiment))


def test_an_optimizer_that_computes_the_gradients_itself():
    model = network()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=2)
    images, labels = batches(1)[0]

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = cross_entropy(model(images), labels)
        loss.backward()
        return loss

    with Experiment("digits") as experiment, watch(model, optimizer, experiment=experiment, update_norm=True):
        optimizer.step(closure)
    assert [(0, pytest.approx(norm(p.grad for p in model.parameters())))] == points(experiment, "train/grad_norm")
    assert "train/update_norm" not in names(experiment)  # The weights before the step are not known.


def test_a_step_that_is_captured_as_a_graph_is_left_alone(monkeypatch, caplog):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with Experiment("digits") as experiment, watch(model, optimizer, experiment=experiment, histograms_every=1):
        with monkeypatch.context() as patch:
            patch.setattr(watching, "_is_captured", lambda tensors: True)
            train(model, optimizer, 1)
        train(model, optimizer, 1)
    assert [1] == [step for step, _ in points(experiment, "train/grad_norm")]
    assert {1} == {step for _, step in histograms(experiment)}
    assert [] == caplog.records


def test_a_step_that_calls_that_of_its_base_class_is_one():
    class Own(torch.optim.SGD):
        def step(self, closure=None):
            return super().step(closure)

    model = network()
    torch.optim.SGD(model.parameters(), 0.1)  # From now on, `SGD.step` calls hooks.
    optimizer = Own(model.parameters(), 0.1)
    with Experiment("digits") as experiment, watch(model, optimizer, experiment=experiment):
        train(model, optimizer, 3)
    assert [0, 1, 2] == [step for step, _ in points(experiment, "train/grad_norm")]


def test_several_models_and_optimizers():
    models = {"encoder": network(0), "decoder": network(1)}
    optimizers = {name: torch.optim.SGD(model.parameters(), 0.1) for name, model in models.items()}
    with Experiment("digits") as experiment:
        watch(models, optimizers, per="layer", histograms_every=10, prefix="all")
        train(models["encoder"], optimizers["encoder"], 3)
        train(models["decoder"], optimizers["decoder"], 2)
    assert [0, 1, 2] == [step for step, _ in points(experiment, "all/encoder/train/grad_norm")]
    assert [0, 1] == [step for step, _ in points(experiment, "all/decoder/grad_norm/decoder.2.1")]
    assert ("all/decoder/gradients/decoder.2.1.bias", 0) in histograms(experiment)
    params = tracelet.Run(experiment.run_dir).params
    assert 0.1 == params["all/decoder/lr"]
    assert 64 * 16 + 16 + 16 * 8 + 8 * 10 + 10 == params["all/model/encoder/parameters"]


def test_lists_are_told_apart_by_their_places_and_a_list_of_one_is_one():
    model = network()
    optimizers = [torch.optim.SGD(model[0].parameters(), 0.1), torch.optim.Adam(model[2].parameters(), 0.01)]
    with Experiment("digits") as experiment, watch([model], optimizers, experiment=experiment):
        train(model, optimizers[0], 1, step=lambda: [optimizer.step() for optimizer in optimizers])
    assert [(0, 0.1)] == points(experiment, "optimizer_0/train/learning_rate")
    assert [(0, 0.01)] == points(experiment, "optimizer_1/train/learning_rate")
    params = tracelet.Run(experiment.run_dir).params
    assert ("SGD", "Adam") == (params["optimizer_0/name"], params["optimizer_1/name"])
    assert "model/parameters" in params


def test_the_model_and_the_optimizer_are_described():
    model = network()
    model[0].requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), 0.01, betas=(0.8, 0.9))
    with Experiment("digits") as experiment, watch(model, optimizer, experiment=experiment):
        train(model, optimizer, 2)
    run = tracelet.Run(experiment.run_dir)
    assert {
        "model/parameters": 1258, "model/trainable_parameters": 218, "model/frozen_parameters": 1040,
        "optimizer/name": "AdamW", "optimizer/lr": 0.01, "optimizer/betas": [0.8, 0.9],
    }.items() <= run.params.items()  # fmt: skip
    assert [(None, str(model))] == run.texts("model/summary")


def test_it_ends_with_close():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with Experiment("digits") as experiment:
        watched = watch(model, optimizer)
        train(model, optimizer, 2)
        watched.close()
        watched.close()
        train(model, optimizer, 2)
    assert [0, 1] == [step for step, _ in points(experiment, "train/grad_norm")]
    hooks = (optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks)
    assert [0, 0] == [len(found) for found in hooks]
    assert all(not module._backward_hooks and not module._forward_hooks for module in model.modules())


def test_what_is_watched_can_be_pickled_and_copied_and_a_copy_is_not_watched():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with Experiment("digits") as experiment, watch(model, optimizer, experiment=experiment, histograms_every=1):
        train(model, optimizer, 1)
        for copied, its_optimizer in (
            pickle.loads(pickle.dumps((model, optimizer))),
            copy.deepcopy((model, optimizer)),
        ):
            train(copied, its_optimizer, 2)
        torch.save({"model": model, "optimizer": optimizer.state_dict()}, "checkpoint.pt")
        train(model, optimizer, 1)
    assert [0, 1] == [step for step, _ in points(experiment, "train/grad_norm")]


def test_training_goes_on_where_the_experiment_has_not_begun_or_has_ended():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    experiment = Experiment("digits")
    with watch(model, optimizer, experiment=experiment, histograms_every=1):
        train(model, optimizer, 2)
        with experiment:
            train(model, optimizer, 2)
        train(model, optimizer, 2)
    assert [2, 3] == [step for step, _ in points(experiment, "train/grad_norm")]


def test_a_fault_of_ours_is_logged_once_and_does_not_reach_the_training(monkeypatch, caplog):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with Experiment("digits") as experiment, watch(model, optimizer, experiment=experiment):
        for name in ("log_metrics", "log_params"):
            monkeypatch.setattr(Experiment, name, lambda *given: 1 / 0)
        with caplog.at_level(logging.WARNING, "tracelet"):
            assert STEPS == len(train(model, optimizer))
    assert ["ZeroDivisionError"] == [record.exc_info[0].__name__ for record in caplog.records]
    assert RunStatus.FINISHED is tracelet.Run(experiment.run_dir).status


def test_gradients_of_half_precision_sparse_ones_and_missing_ones():
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(50, 4, sparse=True)
            self.dense = nn.Linear(4, 2, dtype=torch.bfloat16)
            self.unused = nn.Linear(4, 2)

        def forward(self, indices: torch.Tensor) -> torch.Tensor:
            return self.dense(self.words(indices).bfloat16())

    torch.manual_seed(0)
    model = Words()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with Experiment("words") as experiment, watch(model, optimizer, experiment=experiment, histograms_every=1):
        (model(torch.tensor([1, 1, 7])) * 1000).float().square().sum().backward()
        expected = norm(p.grad.to_dense() for p in model.parameters() if p.grad is not None)
        optimizer.step()
    assert [(0, pytest.approx(expected, rel=1e-5))] == points(experiment, "train/grad_norm")
    found = histograms(experiment)
    assert ("parameters/dense.weight", 0) in found
    assert 8 == sum(found["gradients/words.weight", 0]["counts"])  # Of two words, four numbers each.
    assert not [name for name, _ in found if "unused" in name]


def test_norms_that_are_too_large_for_half_precision():
    weight = nn.Parameter(torch.full((3, 3), 30_000.0, dtype=torch.float16))
    optimizer = torch.optim.SGD([weight], 0.0)
    with Experiment("large") as experiment, watch(nn.ParameterList([weight]), optimizer, experiment=experiment):
        weight.grad = torch.zeros_like(weight)
        optimizer.step()
    assert [(0, pytest.approx(90_000.0))] == points(experiment, "train/param_norm")


def test_a_diverged_training_is_recorded_as_it_is():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 1e30)
    with Experiment("diverged") as experiment, watch(model, optimizer, experiment=experiment, histograms_every=1):
        train(model, optimizer, 3)
        missing = model[0].weight.isnan().sum().item()
        train(model, optimizer, 1)
    assert not np.isfinite([value for _, value in points(experiment, "train/grad_norm")][-1])
    assert missing == histograms(experiment)["parameters/0.weight", 3]["nan"] > 0


def test_a_sharded_model_is_measured_by_this_processes_part():
    from torch.distributed.fsdp import fully_shard

    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        model = network()
        fully_shard(model, mesh=torch.distributed.init_device_mesh("cpu", (1,)))
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        expected = []
        with Experiment("digits") as experiment:
            watch(model, optimizer, update_norm=True, histograms_every=1)
            train(model, optimizer, 2, lambda: expected.append(norm(p.grad.to_local() for p in model.parameters())))
    finally:
        torch.distributed.destroy_process_group()
    assert points(experiment, "train/grad_norm") == [(step, pytest.approx(n)) for step, n in enumerate(expected)]
    assert ("parameters/0.weight", 1) in histograms(experiment)


def test_names_of_a_data_parallel_model_and_an_optimizer_of_accelerate():
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    try:
        wrapped = Accelerator(cpu=True).prepare(optimizer)
        assert not isinstance(wrapped, torch.optim.SGD)
        with Experiment("digits") as experiment:
            watch(nn.DataParallel(model), wrapped, per="layer")
            train(model, optimizer, 1, step=wrapped.step)
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
    assert [0] == [step for step, _ in points(experiment, "grad_norm/2.1")]


def test_mistakes_are_refused_with_what_to_do():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with pytest.raises(UsageError, match="no active experiment: start one before"):
        watch(model, optimizer)
    experiment = Experiment("digits")
    for arguments, message in {
        (optimizer, model): "takes a torch.nn.modules.module.Module.*not SGD",
        (model, "Adam"): "takes a torch.optim.optimizer.Optimizer.*not str: Adam",
        (model, None): "not NoneType",
    }.items():
        with pytest.raises(UsageError, match=message):
            watch(*arguments, experiment=experiment)
    for options, message in (({"every": 0}, "1 or more, not 0"), ({"every": None}, "not None"), ({"per": "x"}, "'x'")):
        with pytest.raises(UsageError, match=message):
            watch(model, optimizer, experiment=experiment, **options)
