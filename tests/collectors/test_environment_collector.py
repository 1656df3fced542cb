"""What the environment collector tells; the console has tests of its own."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from tests.collectors.support import parameters, running
from tracelet.collectors._environment.frameworks import framework_facts, is_loaded
from tracelet.collectors._environment.machine import job_facts, variable_facts
from tracelet.collectors._environment.packages import requirements
from tracelet.collectors.environment_collector import EnvironmentCollector
from tracelet.core.records import MetricType
from tracelet.utils.redaction import Redactor

SECRET = "-".join(["not", "a", "real", "one"])


@pytest.fixture
def collector():
    made = running(EnvironmentCollector(), run_program="/home/me/train.py")
    yield made
    made.stop()


def test_the_first_reading_has_the_facts_and_the_second_one_nothing(collector, tmp_path):
    first = collector.collect()
    facts = parameters(first)
    assert {
        "env/python/version": ".".join(map(str, sys.version_info[:3])),
        "env/python/executable": sys.executable,
        "env/platform/system": "Linux",
        "env/program": "/home/me/train.py",
        "env/working_directory": str(tmp_path),
        "env/package/tracelet": importlib.metadata.version("tracelet"),
    }.items() <= facts.items()
    assert Path("/proc/self/cmdline").read_text().split("\0")[0] == shlex.split(facts["env/command"])[0]
    assert [] == collector.collect()


def test_the_packages_are_an_artifact_that_pip_reads(collector):
    (record,) = [record for record in collector.collect() if record.type is MetricType.ARTIFACT]
    lines = Path(record.value).read_text().splitlines()
    assert f"numpy=={importlib.metadata.version('numpy')}" in lines
    assert sorted(lines, key=str.lower) == sorted(set(lines), key=str.lower)
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps", "--no-index", "-q", "-r"]
    done = subprocess.run([*command, str(record.value)], capture_output=True, text=True, check=False)
    assert "Invalid requirement" not in done.stderr
    assert 0 == done.returncode, done.stderr  # All of it is installed.


@pytest.mark.parametrize(
    ("origin", "line"),
    [
        (None, "package==1.0"),
        ({"url": "https://host/x.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}}, "package @ git+https://host/x.git@abc"),
        ({"url": "file:///x", "dir_info": {"editable": True}}, "# editable, package==1.0: -e file:///x"),
        ({"url": "https://host/x.whl", "archive_info": {}}, "package @ https://host/x.whl"),
        ("no json", "package==1.0"),
        ({"vcs_info": {"vcs": "git"}}, "package==1.0"),
        ([], "package==1.0"),
    ],
)  # fmt: skip
def test_a_package_tells_where_it_came_from(tmp_path, origin, line):
    place = tmp_path / "package-1.0.dist-info"
    place.mkdir()
    (place / "METADATA").write_text("Metadata-Version: 2.1\nName: package\nVersion: 1.0\n")
    if origin is not None:
        (place / "direct_url.json").write_text(origin if isinstance(origin, str) else json.dumps(origin))
    assert [line] == requirements([str(tmp_path)], Redactor())


def test_credentials_of_a_packages_origin_are_hidden_and_damaged_ones_are_named(tmp_path):
    place, damaged = tmp_path / "package-1.0.dist-info", tmp_path / "broken-1.0.dist-info"
    place.mkdir()
    damaged.mkdir()
    (damaged / "METADATA").write_bytes(b"Name: broken\n")
    (place / "METADATA").write_text("Metadata-Version: 2.1\nName: package\nVersion: 1.0\n")
    origin = {"url": f"https://me:{SECRET}@host/x.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}}
    (place / "direct_url.json").write_text(json.dumps(origin))
    text = "\n".join(requirements([str(tmp_path)], Redactor()))
    assert SECRET not in text
    assert "@host/x.git@abc" in text
    of_another_run = requirements([str(tmp_path)], Redactor(patterns=["host"]))
    assert "host" not in "\n".join(of_another_run)


def test_variables_are_recorded_by_an_allow_list():
    environment = {
        "CUDA_VISIBLE_DEVICES": "0,1", "OMP_NUM_THREADS": "4", "AWS_SECRET_ACCESS_KEY": SECRET, "HF_TOKEN": SECRET,
        "MY_STAGE": "test", "MY_PASSWORD": SECRET, "NCCL_SOCKET_IFNAME": "eth0", "HOME": "/home/me",
    }  # fmt: skip
    assert {"variables/CUDA_VISIBLE_DEVICES": "0,1", "variables/OMP_NUM_THREADS": "4",
            "variables/NCCL_SOCKET_IFNAME": "eth0"} == dict(variable_facts((), environment))  # fmt: skip
    more = dict(variable_facts(("MY_*",), environment))
    assert "test" == more["variables/MY_STAGE"]
    assert SECRET not in str(more)


@pytest.mark.parametrize(
    ("environment", "facts"),
    [
        ({}, {}),
        (
            {"SLURM_JOB_ID": "7", "SLURM_PROCID": "3", "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_JWT": SECRET},
            {"slurm/job_id": "7", "slurm/rank": "3", "slurm/nodes": "n[1-2]"},
        ),
        (
            {"WORLD_SIZE": "8", "RANK": "1", "LOCAL_RANK": "1", "TORCHELASTIC_RUN_ID": "x", "MASTER_ADDR": "h"},
            {"torchrun/world_size": "8", "torchrun/rank": "1", "torchrun/local_rank": "1", "torchrun/run_id": "x",
             "torchrun/master": "h"},
        ),
        (
            {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "HOSTNAME": "train-0", "JOB_COMPLETION_INDEX": "0"},
            {"kubernetes/pod": "train-0", "kubernetes/namespace": "ml", "kubernetes/job_completion_index": "0"},
        ),
        ({"RAY_JOB_ID": "01000000"}, {"ray/job_id": "01000000"}),
        ({"RANK": "0", "HOSTNAME": "laptop"}, {}),
    ],
)  # fmt: skip
def test_a_cluster_tells_which_job_this_is(tmp_path, environment, facts):
    (tmp_path / "namespace").write_text("ml\n")
    assert facts == dict(job_facts(environment, tmp_path / "namespace"))


def test_the_command_line_has_no_credentials(collector, monkeypatch):
    monkeypatch.setattr(sys, "orig_argv", ["python", "train.py", "--api-key", SECRET, "--lr", "0.1", f"token={SECRET}"])
    command = parameters(collector.collect())["env/command"]
    assert SECRET not in command
    assert command.startswith("python train.py --api-key ")
    assert "--lr 0.1" in command


def test_a_framework_that_is_loaded_later_has_its_say_later(collector, monkeypatch):
    for name in ("torch", "jax", "keras", "tensorflow"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert not [name for name in parameters(collector.collect()) if name.startswith("env/torch/")]
    torch = ModuleType("torch")
    torch.__spec__ = SimpleNamespace(_initializing=True)
    monkeypatch.setitem(sys.modules, "torch", torch)
    assert not [name for name in parameters(collector.collect()) if name == "env/torch/cuda"]  # It imports itself.
    torch.__spec__ = SimpleNamespace(_initializing=False)
    torch.version = SimpleNamespace(cuda="12.8", hip=None)
    torch.backends = SimpleNamespace(cudnn=SimpleNamespace(version=lambda: 91002))
    torch.initial_seed, torch.are_deterministic_algorithms_enabled, torch.get_num_threads = (
        lambda: 42, lambda: False, lambda: 8,
    )  # fmt: skip
    found = parameters(collector.collect())
    assert {"env/torch/cuda": "12.8", "env/torch/cudnn": 91002, "env/torch/seed": 42}.items() <= found.items()
    assert {} == parameters(collector.collect())


def test_real_frameworks_tell_what_they_are():
    code = (
        "import json, torch, jax\ntorch.manual_seed(7)\n"
        "from tracelet.collectors._environment.frameworks import framework_facts\n"
        "print(json.dumps([dict(framework_facts(name)) for name in ('torch', 'jax')]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    torch, jax = json.loads(done.stdout.splitlines()[-1])
    assert 7 == torch["torch/seed"]
    assert torch.keys() >= {"torch/cuda", "torch/hip", "torch/cudnn", "torch/deterministic"}
    assert not jax["jax/enable_x64"]


def test_a_framework_that_fails_is_reported_once(collector, monkeypatch, caplog):
    torch = ModuleType("torch")
    torch.__spec__ = SimpleNamespace()
    monkeypatch.setitem(sys.modules, "torch", torch)
    assert is_loaded("torch")
    with pytest.raises(AttributeError):
        list(framework_facts("torch"))
    for _ in range(3):
        collector.collect()
    assert 1 == sum("goes on without torch" in record.getMessage() for record in caplog.records)
