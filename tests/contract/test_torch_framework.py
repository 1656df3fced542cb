"""The suite every framework plug-in must pass, on a real optimizer, and what the plug-in for PyTorch does besides."""

from __future__ import annotations

import pytest
import torch

import tracelet
from tracelet import Experiment
from tracelet.errors import UsageError
from tracelet.frameworks.torch_framework import PyTorchFramework
from tracelet.testing import FrameworkContract


def step(optimizer: torch.optim.Optimizer) -> None:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.full_like(parameter, 2.0)
    optimizer.step()


def new_optimizer(rate: float = 0.1) -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.ones(4))], rate)


class TestPyTorchFramework(FrameworkContract):
    subject = PyTorchFramework

    @pytest.fixture
    def framework(self):
        return PyTorchFramework()

    @pytest.fixture
    def train(self):
        def trained():
            optimizer = new_optimizer()
            for _ in range(3):
                step(optimizer)
            return optimizer.param_groups[0]["params"][0].tolist()

        return trained


def test_every_optimizer_of_the_process_is_recorded_under_the_plug_ins_settings():
    before = new_optimizer()
    experiment = Experiment("plug-in")
    experiment.register_plugin(PyTorchFramework(), {"every": 2, "histograms_every": 4})
    with experiment:
        optimizers = [before, new_optimizer(0.2)]
        for optimizer in [*optimizers, *optimizers * 4]:
            step(optimizer)
    run = tracelet.Run(experiment.run_dir)
    for prefix, rate in (("", 0.1), ("optimizer_1/", 0.2)):
        rates, norms = run.series(f"{prefix}train/learning_rate"), run.series(f"{prefix}train/grad_norm")
        assert ([0, 2, 4], [rate] * 3) == (rates.steps.tolist(), rates.values.tolist())
        assert [4.0] * 3 == norms.values.tolist()
    histograms = run.records(tracelet.MetricType.HISTOGRAM)
    assert {(0, "torch"), (4, "torch")} == {(record.iteration, record.source) for record in histograms}
    assert {"gradients/group_0.0", "parameters/group_0.0"} < {record.name for record in histograms}


def test_a_setting_that_is_out_of_range_is_refused():
    with pytest.raises(UsageError, match="every is a number of steps"):
        PyTorchFramework().initialize({"every": 0})
