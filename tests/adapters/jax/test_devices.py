"""Several devices, in one process and in two: each step is recorded once."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.adapters.jax.devices_program import STEPS, WAYS
from tests.adapters.jax.training import assert_same, batches, by_hand, plain

ROOT = Path(__file__).parents[3]


def run(out: Path, devices: int, *arguments: list[str]) -> list[Any]:
    """What the program has found, in each of its processes."""
    environment = dict(os.environ, JAX_PLATFORMS="cpu", XLA_FLAGS=f"--xla_force_host_platform_device_count={devices}")
    command = [sys.executable, "-m", "tests.adapters.jax.devices_program", str(out)]
    processes = [
        subprocess.Popen([*command, *more], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
        for more in arguments
    ]
    try:
        errors = [process.communicate(timeout=240)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [0] * len(processes) == [process.returncode for process in processes], errors
    return [json.loads((out / f"found-{number}.json").read_text()) for number in range(len(processes))]


@pytest.fixture(scope="module")
def one_process(tmp_path_factory) -> Any:
    return run(tmp_path_factory.mktemp("one"), 4, [])[0]


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory) -> list[Any]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    return run(tmp_path_factory.mktemp("two"), 1, [port, "0"], [port, "1"])


def curves(found: dict[str, list[list[float]]]) -> Any:
    return {name: [(int(number), value) for number, value in points] for name, points in found.items()}


@pytest.mark.parametrize("way", WAYS)
def test_a_step_on_four_devices_is_recorded_once_with_the_values_of_the_same_loop_by_hand(one_process, way):
    found = curves(one_process[way])
    if "callback" in way:  # They come as they come.
        found = {name: sorted(points) for name, points in found.items()}
    assert_same(found, by_hand(plain(), batches(STEPS)))


def test_values_that_are_on_several_devices_are_recorded_as_one(one_process):
    assert {"everywhere": [(1, 2.0)], "total": [(1, 6.0)]} == curves(one_process["values"])
    assert [[0.0, 1.0, 2.0, 3.0]] == one_process["tensors"]


def test_of_two_processes_the_first_one_records(two_processes):
    first, second = (found["sharded, tracked"] for found in two_processes)
    assert_same(curves(first), by_hand(plain(), batches(STEPS)))
    assert {} == second


def test_each_of_two_processes_records_where_that_is_asked_for(two_processes):
    for found in two_processes:
        assert_same(curves(found["sharded, all processes"]), by_hand(plain(), batches(STEPS)))


def test_of_a_value_of_two_processes_each_has_its_copy_or_a_description_of_the_parts(two_processes):
    for found in two_processes:
        assert {"everywhere": [(1, 2.0)], "total": [(1, 1.0)]} == curves(found["values"])
        ((number, text),) = found["texts"]
        assert 1 == number
        assert text.startswith("<float32[2], parts of which are in other processes: NamedSharding(")
