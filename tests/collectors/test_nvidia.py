"""GPUs: the real nvidia-ml-py over a library of our own, compiled here; each case in a process that has it loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
CODE = """
import json, logging, os, sys
logging.basicConfig(stream=sys.stderr, format="%(levelname)s %(message)s")
from tracelet.collectors.system_collector import SystemCollector
from tests.collectors.support import parameters, running, values
collector = running(SystemCollector())
first = collector.collect()
file = os.environ.get("FAKE_NVML_FILE")
readings = [values(first)]
for text in json.loads(sys.argv[1]):
    open(file, "w").write(text)
    readings.append(values(collector.collect()))
status = collector.get_status()
collector.stop()
collector.start()
readings.append(values(collector.collect()))
collector.stop()
print(json.dumps([parameters(first), readings, status]))
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nvml")
    source = Path(__file__).with_name("fake_nvml.c")
    command = ["gcc", "-shared", "-fPIC", "-w", "-o", str(folder / "libnvidia-ml.so.1"), str(source)]
    subprocess.run(command, check=True)
    return folder


def gpu(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if "/gpu/" in name}


def read(library: Path | None, changes: tuple[str, ...] = (), **variables: str) -> tuple[dict, list[dict], dict, str]:
    place = {"LD_LIBRARY_PATH": str(library)} if library else {}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **place, **variables}
    command = [sys.executable, "-c", CODE, json.dumps(changes)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment, timeout=100)
    assert 0 == done.returncode, done.stderr
    facts, readings, status = json.loads(done.stdout)
    return gpu(facts), [gpu(reading) for reading in readings], status, done.stderr


def test_all_that_a_gpu_tells_is_collected(library):
    facts, (first, second), status, said = read(library)
    assert facts == {
        "env/gpu/count": 2,
        "env/gpu/driver": "999.01",
        "env/gpu/driver_cuda": "13.2",
        "env/gpu/0/name": "Fake GPU 0",
        "env/gpu/0/memory_total_bytes": 80 << 30,
        "env/gpu/0/power_limit_watts": 700.0,
        "env/gpu/1/name": "Fake GPU 1",
        "env/gpu/1/memory_total_bytes": 80 << 30,
        "env/gpu/1/power_limit_watts": 700.0,
    }
    shared = {"memory_utilization_percent": 5, "power_watts": 250, "sm_clock_mhz": 1980, "memory_clock_mhz": 2619}
    zero = {"utilization_percent": 10, "memory_used_bytes": 8 << 30, "memory_percent": 10, "temperature_celsius": 60,
            "throttled": 0, "processes": 2, "process_memory_bytes": 3 << 30}  # fmt: skip
    one = {"utilization_percent": 40, "memory_used_bytes": 9 << 30, "memory_percent": 11.25, "temperature_celsius": 61,
           "throttled": 1, "throttled/power_cap": 1, "throttled/software_thermal": 1, "processes": 0}  # fmt: skip
    expected = {f"system/gpu/0/{name}": value for name, value in {**shared, **zero}.items()}
    expected |= {f"system/gpu/1/{name}": value for name, value in {**shared, **one}.items()}
    assert expected == first == second  # The second one is after a stop and a start.
    assert "NVIDIA's GPUs" in status["sources"]
    assert "" == said


def test_what_a_gpu_does_not_have_is_left_out_without_a_word(library):
    _, (first, _), status, said = read(library, FAKE_NVML_FAIL="power=3,temp=3,reasons=13,limit=3")
    assert "system/gpu/0/utilization_percent" in first
    assert not [name for name in first if "power" in name or "temperature" in name or "throttled" in name]
    assert ("", []) == (said, status["failed"])


def test_a_gpu_that_is_lost_is_reported_once_and_the_rest_goes_on(library, tmp_path):
    changes = ("util=15", "util=15", "")
    _, (before, lost, _, again, _), status, said = read(library, changes, FAKE_NVML_FILE=str(tmp_path / "fails"))
    assert before == again
    assert {"system/gpu/0/utilization_percent", "system/gpu/1/utilization_percent"} <= before.keys() - lost.keys()
    assert "system/gpu/1/power_watts" in lost
    assert 1 == said.count("goes on without NVIDIA's GPUs")
    assert ["NVIDIA's GPUs"] == status["failed"]


@pytest.mark.parametrize(
    ("visible", "indices"), [("1", {"1"}), ("GPU-fake-0", {"0"}), ("0,1", {"0", "1"}), ("", set()), ("-1", set())]
)
def test_gpus_that_are_hidden_from_the_program_are_not_read(library, visible, indices):
    _, (first, _), _, _ = read(library, CUDA_VISIBLE_DEVICES=visible)
    assert indices == {name.split("/")[2] for name in first}


@pytest.mark.parametrize("variables", [{"FAKE_NVML_INIT": "9"}, {"FAKE_NVML_COUNT": "0"}, None])
def test_without_a_gpu_it_is_quiet(library, variables):
    facts, (first, _), status, said = read(library if variables else None, **(variables or {}))
    assert {} == first
    assert facts.get("env/gpu/count", 0) == 0
    assert ("", []) == (said, status["failed"])
