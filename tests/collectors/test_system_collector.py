"""The system collector: real processes and files; a fake machine where a week has to pass."""

from __future__ import annotations

import gc
import logging
import os
import subprocess
import sys
import time
import tracemalloc
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from tests.collectors.support import parameters, running, values
from tracelet.collectors._base import Rates
from tracelet.collectors._system.amd import AmdProbe
from tracelet.collectors._system.machine import MachineProbe
from tracelet.collectors._system.process import ProcessProbe
from tracelet.collectors.system_collector import SystemCollector
from tracelet.errors import SettingsError

WAIT_S = 60.0


@pytest.fixture
def collector(tmp_path):
    made = running(SystemCollector(), run_dir=tmp_path)
    yield made
    made.stop()


def test_the_first_reading_has_the_facts_and_the_second_one_the_rates(collector):
    first, second = collector.collect(), collector.collect()
    facts = parameters(first)
    assert os.cpu_count() == facts["env/cpu/count"]
    assert len(os.sched_getaffinity(0)) == facts["env/cpu/available_count"]
    assert psutil.virtual_memory().total == facts["env/memory/total_bytes"]
    assert {} == parameters(second)
    assert {
        "system/cpu/process_percent", "system/cpu/tree_percent", "system/network/sent_bytes_per_s",
        "system/network/received_bytes_per_s", "system/disk/process_written_bytes_per_s",
    } <= values(second).keys() - values(first).keys()  # fmt: skip
    assert {
        "system/memory/rss_bytes", "system/memory/machine_percent", "system/disk/free_bytes", "system/process/threads",
        "system/process/open_files", "system/collector/cpu_ms",
    } <= values(first).keys()  # fmt: skip
    assert {"system_collector"} == {record.source for record in (*first, *second)}


def test_figures_of_the_process_are_those_of_the_process(collector, tmp_path):
    before = values(collector.collect())
    kept = bytearray(os.urandom(64 << 20))
    files = [(tmp_path / str(n)).open("w") for n in range(10)]
    after = values(collector.collect())
    for file in files:
        file.close()
    assert after["system/memory/rss_bytes"] - before["system/memory/rss_bytes"] > len(kept) // 2
    assert 10 == after["system/process/open_files"] - before["system/process/open_files"]


def test_work_of_this_process_and_of_those_below_it_is_told_apart(collector):
    burn = "import time\nwhile time.process_time() < 1.0: pass\nprint('done', flush=True); input()"
    shell = ["sh", "-c", f'"{sys.executable}" -c "{burn}"; true']  # A child of a child.
    with subprocess.Popen(shell, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        collector.collect()
        began_s = time.monotonic()
        process.stdout.readline()
        found, lasted_s = values(collector.collect()), time.monotonic() - began_s
        assert found["system/process/count"] >= 3
        assert found["system/memory/tree_rss_bytes"] > found["system/memory/rss_bytes"]
        process.stdin.close()
    assert found["system/cpu/tree_percent"] * lasted_s > 80  # At least 0.8 s of CPU, most of it below.
    assert found["system/cpu/process_percent"] < found["system/cpu/tree_percent"] / 2


def test_the_work_of_a_child_that_has_ended_is_not_lost(collector):
    before, began_s = values(collector.collect()), time.monotonic()
    code = "import time\nwhile time.process_time() < 0.5: pass"
    subprocess.run([sys.executable, "-c", code], check=True)
    found, lasted_s = values(collector.collect()), time.monotonic() - began_s
    assert found["system/cpu/tree_percent"] * lasted_s > 40
    assert before["system/process/count"] == found["system/process/count"]


def test_a_source_that_fails_is_reported_once_and_the_others_go_on(collector, monkeypatch, caplog):
    collector.collect()
    monkeypatch.setattr(MachineProbe, "read", lambda self, now_s: 1 / 0)
    with caplog.at_level(logging.INFO):
        readings = [values(collector.collect()) for _ in range(3)]
    assert all("system/cpu/process_percent" in reading for reading in readings)
    assert not any("system/disk/free_bytes" in reading for reading in readings)
    assert 1 == sum("goes on without the machine: ZeroDivisionError" in r.getMessage() for r in caplog.records)
    assert ["the machine"] == collector.get_status()["failed"]


def test_without_the_kernels_list_of_children_all_processes_are_looked_at(tmp_path):
    with subprocess.Popen(["sleep", "100"]) as child:
        probe = ProcessProbe(psutil, proc=tmp_path)
        found = dict(probe.read(time.monotonic()))
        child.kill()
    assert 2 <= found["process/count"]


@pytest.mark.parametrize("config", [{"interval": 0}, {"gpus": True}, {"gpu": "perhaps"}])
def test_a_wrong_setting_is_an_error_that_names_it(config):
    with pytest.raises(SettingsError, match=f"collector 'system' are wrong: {next(iter(config))}"):
        SystemCollector().initialize(config)


def test_rates_are_growth_per_second():
    rates = Rates()
    assert {} == rates.of(10.0, {"a": 100})
    assert {"a": 5.0} == rates.of(12.0, {"a": 110, "b": 7})
    assert {"a": 0.0, "b": 1.0} == rates.of(13.0, {"a": 3, "b": 8})  # A counter that went back began anew.
    assert {} == rates.of(13.0, {"a": 4})  # No time has passed.


def test_gpus_of_amd_have_the_same_names():
    class AmdSmiError(Exception):
        pass

    def refuse(device: Any) -> Any:
        raise AmdSmiError

    library = SimpleNamespace(
        AmdSmiException=AmdSmiError,
        AmdSmiTemperatureType=SimpleNamespace(HOTSPOT=1),
        AmdSmiTemperatureMetric=SimpleNamespace(CURRENT=0),
        amdsmi_init=lambda: None,
        amdsmi_shut_down=lambda: None,
        amdsmi_get_processor_handles=lambda: ["first"],
        amdsmi_get_gpu_asic_info=lambda device: {"market_name": "Instinct"},
        amdsmi_get_gpu_vram_usage=lambda device: {"vram_total": 1000, "vram_used": 250},
        amdsmi_get_gpu_activity=lambda device: {"gfx_activity": 90, "umc_activity": "N/A"},
        amdsmi_get_power_info=lambda device: {"current_socket_power": "N/A", "average_socket_power": 300},
        amdsmi_get_temp_metric=lambda device, kind, metric: 55,
    )
    probe = AmdProbe(library)
    assert {"gpu/count": 1, "gpu/0/name": "Instinct", "gpu/0/memory_total_bytes": 1000 << 20} == dict(probe.facts())
    assert dict(probe.read(0.0)) == {
        "gpu/0/utilization_percent": 90,
        "gpu/0/memory_used_bytes": 250 << 20,
        "gpu/0/memory_percent": 25,
        "gpu/0/power_watts": 300,
        "gpu/0/temperature_celsius": 55,
    }
    library.amdsmi_get_gpu_activity = refuse
    assert "gpu/0/power_watts" in dict(probe.read(0.0))
    library.amdsmi_get_processor_handles = lambda: refuse("first")
    with pytest.raises(LookupError):
        AmdProbe(library)


# -- a week ------------------------------------------------------------------------------------------------------------

WEEK_S = 7 * 24 * 3600


class Process:
    """One of the processes that come and go."""

    def __init__(self, pid: int = 1) -> None:
        self.pid = pid

    def oneshot(self):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *details):
        pass

    def is_running(self):
        return True

    def cpu_times(self):
        return SimpleNamespace(user=1.0, system=1.0, children_user=0.0, children_system=0.0)

    def memory_info(self):
        return SimpleNamespace(rss=1000)

    def num_threads(self):
        return 1

    num_fds = num_threads

    def io_counters(self):
        return SimpleNamespace(read_bytes=1, write_bytes=1)


def test_memory_is_constant_over_a_week_of_readings_each_second(monkeypatch):
    """All 604,800 of them, on a machine where each second another worker runs: only psutil and the clock are fakes."""
    fake = SimpleNamespace(Process=Process, Error=psutil.Error, LINUX=True)
    second = iter(range(WEEK_S + 2))
    probe = ProcessProbe(fake)
    monkeypatch.setattr(probe, "_pids_below", lambda root: [100 + (now := next(second)), 101 + now])

    def readings(count: int, start_s: int) -> None:
        for now_s in range(start_s, start_s + count):
            for _ in probe.read(float(now_s)):
                pass

    readings(1000, 0)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    readings(10_000, 1000)
    after_an_hour, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    readings(WEEK_S - 11_000, 11_000)
    assert after_an_hour - before < 5000
    assert 2 == len(probe._below)
    assert 4 == len(probe._rates._counters)


def test_a_reading_leaves_nothing_behind(collector):
    tracemalloc.start()
    sizes, files = [], []
    for _ in range(3):  # The first round fills what is kept.
        for _ in range(50):
            collector.collect()
        gc.collect()
        sizes.append(tracemalloc.get_traced_memory()[0])
        files.append(len(os.listdir("/proc/self/fd")))
    tracemalloc.stop()
    assert sizes[2] - sizes[1] < 5000
    assert files[1] == files[2]
