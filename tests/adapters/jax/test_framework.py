"""The plug-in `JAXFramework`, and what importing its module costs."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import tracelet
from tests.adapters.jax.training import batches, plain, step
from tracelet import Experiment, MetricType
from tracelet.errors import SettingsError
from tracelet.frameworks import jax_framework
from tracelet.frameworks.jax_framework import JAXFramework, memory_of, tracked, wrap


def test_each_compilation_is_recorded_with_the_function_and_how_often_it_was_compiled():
    experiment = Experiment("e", collectors=())
    framework = JAXFramework()
    experiment.register_plugin(framework)

    @jax.jit
    def often(x: Any) -> Any:
        return x + 1

    with experiment:
        for size in (3, 4):
            often(jnp.zeros(size))
        assert 2 == framework.get_status()["compilations"]["jit(often)"]
    found = [
        (record.metadata["times"], record.value > 0)
        for record in tracelet.load_run(experiment.run_dir).records(MetricType.SYSTEM)
        if record.metadata and record.metadata["function"] == "jit(often)"
    ]
    assert [(1, True), (2, True)] == found


def test_steps_per_second_and_the_memory_of_devices_are_recorded_at_the_interval(monkeypatch):
    stats = {"bytes_in_use": 5, "peak_bytes_in_use": 7, "num_allocs": 9}
    monkeypatch.setattr(
        jax, "local_devices", lambda: [SimpleNamespace(id=3, memory_stats=lambda: stats), *jax.devices()]
    )
    experiment = Experiment("e", collectors=())
    experiment.register_plugin(JAXFramework(), {"interval": 0.05})
    train_step, state = tracked(step), wrap(plain())
    with experiment:
        while "jax/steps_per_s" not in (names := tracelet.load_run(experiment.run_dir).names()):
            state = train_step(state, batches()[0])
        run = tracelet.load_run(experiment.run_dir)
    assert {"jax/device_3/bytes_in_use", "jax/device_3/peak_bytes_in_use"} <= set(names) | set(run.names())
    assert 7.0 == run.series("jax/device_3/peak_bytes_in_use").values[0]
    assert 0 < run.series("jax/steps_per_s").values[0] < 1e6


def test_a_cpu_says_nothing_of_its_memory():
    assert {} == memory_of(jax.devices("cpu"))


@pytest.mark.parametrize("interval", [0, -1, "often", float("nan")])
def test_an_interval_that_is_none_is_refused(interval):
    with pytest.raises(SettingsError, match="no number of seconds"):
        JAXFramework().initialize({"interval": interval})


def test_importing_the_module_imports_no_jax_and_a_use_does():
    code = (
        "import sys; from tracelet.frameworks import jax_framework as f; f.JAXFramework.get_metadata(); "
        "before = {'jax', 'flax', 'optax'} & set(sys.modules); f.monitor; print(before, 'optax' in sys.modules)"
    )
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert "set() True" == printed.strip()


def test_every_public_name_is_there_and_others_are_not():
    assert all(getattr(jax_framework, name) is not None for name in jax_framework.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'tracker'"):
        _ = jax_framework.tracker
