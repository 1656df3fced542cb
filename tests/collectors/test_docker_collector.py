"""The docker collector: answers of engines through the real SDK, files of cgroups, and a real engine where one starts.

`recorded/docker_v1.json` was recorded from Docker 20.10 on cgroup v1. `docker_v2.json` and `podman.json` are written in
the form that Docker 24 on cgroup v2, and Podman 4's compatible interface, document.
"""

from __future__ import annotations

import contextlib
import json
import os
import socketserver
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from tests.collectors.support import parameters, running, values
from tracelet.collectors._cgroup import Cgroup, Limits, Usage
from tracelet.collectors._container import container_id
from tracelet.collectors.docker_collector import DockerCollector

ROOT = Path(__file__).parents[2]
RECORDED = Path(__file__).with_name("recorded")
ID = "0123456789abcdef" * 4


# -- an engine's answers -----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def engine(socket: Path, recorded: dict[str, Any]) -> Iterator[list[str]]:
    """Answers on a Unix socket as was recorded; gives the paths that were asked for."""
    stats, asked = iter(recorded["stats"]), list[str]()

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            kind = self.path.partition("?")[0].rpartition("/")[2]
            images = {"Id": recorded["inspect"]["Image"], "RepoDigests": ["trainer@sha256:" + "ef" * 32]}
            answer = {"ApiVersion": "1.43", "Version": "24.0"}
            if "/containers/" in self.path:
                answer = recorded["inspect"] if kind == "json" else next(stats, None)
            elif "/images/" in self.path:
                answer = images
            body = json.dumps(answer).encode()
            self.send_response(200 if answer else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def address_string(self) -> str:
            return "test"

        def log_message(self, *arguments: Any) -> None:
            pass

    with socketserver.ThreadingUnixStreamServer(str(socket), Answers) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield asked
        server.shutdown()


@pytest.fixture
def read(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch):
    def read(name: str) -> tuple[dict[str, Any], dict[str, float], list[str]]:
        recorded = json.loads((RECORDED / f"{name}.json").read_text())
        socket = tmp_path_factory.mktemp("d") / "s"  # The path of a socket may have 107 characters.
        monkeypatch.setenv("DOCKER_HOST", f"unix://{socket}")
        monkeypatch.setattr("tracelet.collectors.docker_collector.container_id", lambda: recorded["inspect"]["Id"])
        with engine(socket, recorded) as asked:
            collector = running(DockerCollector())
            first, second = collector.collect(), collector.collect()
            assert "EngineSource" == collector.get_status()["source"]
            collector.stop()
        assert {"docker_collector"} == {record.source for record in first}
        return parameters(first), values(second), asked

    return read


def test_answers_of_cgroup_v1_are_understood(read):
    facts, found, asked = read("docker_v1")
    assert found == {
        "docker/memory_bytes": 917504,
        "docker/memory_limit_bytes": 64 << 20,
        "docker/memory_percent": pytest.approx(1.367, abs=0.001),
        "docker/processes": 1,
        "docker/processes_limit": 50,
        "docker/cpu_limit_cores": 0.5,
        "docker/cpu_percent": pytest.approx(49.6, abs=0.1),
        "docker/cpu_throttled_percent": pytest.approx(47.8, abs=0.1),
        "docker/disk_read_bytes_per_s": 0,
        "docker/disk_written_bytes_per_s": 0,
    }
    assert ("busy", "tracelet-test:1") == (facts["env/docker/name"], facts["env/docker/image"])
    assert [path for path in asked if "stats" in path and "one-shot" not in path] == []  # It would take a second.


def test_answers_of_cgroup_v2_are_understood(read):
    facts, found, _ = read("docker_v2")
    assert found == {
        "docker/memory_bytes": 2 << 30,  # Without the file cache.
        "docker/memory_limit_bytes": 4 << 30,
        "docker/memory_percent": 50,
        "docker/processes": 12,
        "docker/cpu_limit_cores": 4,
        "docker/cpu_percent": pytest.approx(200),
        "docker/cpu_throttled_percent": pytest.approx(25),
        "docker/disk_read_bytes_per_s": pytest.approx(1 << 20),
        "docker/disk_written_bytes_per_s": 0,
        "docker/network_received_bytes_per_s": pytest.approx(1000),
        "docker/network_sent_bytes_per_s": pytest.approx(200),
    }
    assert "planted" not in json.dumps(facts)  # Neither variables nor labels.
    assert facts == {
        "env/docker/container": "ab" * 32,
        "env/docker/name": "training",
        "env/docker/image": "trainer:3",
        "env/docker/image_id": "sha256:" + "cd" * 32,
        "env/docker/image_digest": "trainer@sha256:" + "ef" * 32,
        "env/docker/restart_count": 2,
        "env/docker/memory_limit_bytes": 4 << 30,
        "env/docker/cpu_limit_cores": 4,
        "env/docker/runtime": "runc",
        "env/docker/network_mode": "bridge",
        "env/docker/engine": "24.0",
    }


def test_answers_of_podman_are_understood(read):
    _, found, _ = read("podman")
    assert found == {
        "docker/memory_bytes": 1 << 20,
        "docker/memory_limit_bytes": 1 << 30,
        "docker/memory_percent": pytest.approx(0.0977, abs=0.0001),
        "docker/processes": 3,
        "docker/cpu_percent": pytest.approx(25),
        "docker/disk_read_bytes_per_s": 0,
        "docker/disk_written_bytes_per_s": 0,
    }


def test_an_engine_that_forgets_the_container_is_reported_once(tmp_path_factory, monkeypatch, caplog):
    recorded = json.loads((RECORDED / "podman.json").read_text()) | {"stats": []}
    socket = tmp_path_factory.mktemp("d") / "s"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{socket}")
    with engine(socket, recorded):
        collector = running(DockerCollector(), container="training")
        assert {} == values(collector.collect()) == values(collector.collect())
        collector.stop()
    assert 1 == sum("goes on without the container" in record.getMessage() for record in caplog.records)


def test_outside_of_a_container_it_is_quiet(monkeypatch, caplog):
    monkeypatch.setattr("tracelet.collectors.docker_collector.container_id", lambda: None)
    collector = running(DockerCollector())
    assert ([], []) == (collector.collect(), caplog.records)
    assert {"active": True, "container_id": None, "interval": 1.0, "source": None} == collector.get_status()
    collector.stop()


def test_another_container_needs_an_engine(monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere")
    with pytest.raises(ConnectionError, match="there is no unix:///nowhere"):
        running(DockerCollector(), container="training")


# -- files of the kernel -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cgroup", "mountinfo"),
    [
        (f"4:memory:/docker/{ID}\n1:cpu:/docker/{ID}\n", ""),
        (f"0::/system.slice/docker-{ID}.scope\n", ""),
        (f"0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-{ID}.scope\n", ""),
        (f"0::/machine.slice/libpod-{ID}.scope/container\n", ""),
        (f"12:pids:/kubepods/besteffort/pod1/{ID}\n", ""),
        ("0::/\n", f"93 72 254:0 /var/lib/docker/containers/{ID}/hostname /etc/hostname rw - ext4 /dev/vda rw\n"),
        ("0::/\n", f"93 72 0:29 /containers/overlay-containers/{ID}/userdata/hosts /etc/hosts rw - tmpfs tmpfs rw\n"),
    ],
    ids=["v1", "v2 systemd", "containerd", "podman", "kubernetes v1", "v2 private", "podman private"],
)
def test_a_container_is_found_by_the_files_of_the_process(tmp_path, cgroup, mountinfo):
    (tmp_path / "cgroup").write_text(cgroup)
    (tmp_path / "mountinfo").write_text(mountinfo)
    assert ID == container_id(tmp_path)


@pytest.mark.parametrize("cgroup", ["0::/user.slice/user-1000.slice/session-2.scope\n", "4:memory:/\n", ""])
def test_outside_of_a_container_none_is_found(tmp_path, cgroup):
    (tmp_path / "cgroup").write_text(cgroup)
    (tmp_path / "mountinfo").write_text(f"93 72 254:0 /home/{ID}/hosts /home/hosts rw - ext4 /dev/vda rw\n")
    assert container_id(tmp_path) is None
    assert container_id(tmp_path / "nowhere") is None


def tree(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def test_limits_and_usage_of_cgroup_v2(tmp_path):
    top = "sys/fs/cgroup"
    tree(tmp_path, {
        "proc/mountinfo": f"30 24 0:26 / /{top} rw,nosuid shared:4 - cgroup2 cgroup2 rw\n",
        "proc/cgroup": "0::/job/step\n",
        f"{top}/job/memory.max": "1000000\n",
        f"{top}/job/cpu.max": "max 100000\n",
        f"{top}/job/pids.max": "max\n",
        f"{top}/job/step/memory.max": "2000000\n",
        f"{top}/job/step/cpu.max": "150000 100000\n",
        f"{top}/job/step/cpu.stat": "usage_usec 2500000\nuser_usec 1\nthrottled_usec 500000\n",
        f"{top}/job/step/memory.current": "600000\n",
        f"{top}/job/step/memory.stat": "anon 1\ninactive_file 100000\n",
        f"{top}/job/step/memory.events": "low 0\noom 2\noom_kill 1\n",
        f"{top}/job/step/pids.current": "7\n",
        f"{top}/job/step/io.stat": "8:0 rbytes=100 wbytes=20 rios=1\n8:16 rbytes=5 wbytes=1\n8:32 \n",
    })  # fmt: skip
    cgroup = Cgroup.find(tmp_path / "proc", tmp_path)
    assert cgroup.version == 2
    assert Limits(1.5, 1_000_000, None) == cgroup.limits()  # That of the level above is the tighter one.
    assert Usage(2.5, 0.5, 500_000, 7, 105, 21, 1) == cgroup.usage()


def test_limits_and_usage_of_cgroup_v1_inside_of_a_container(tmp_path):
    top = "sys/fs/cgroup"
    tree(tmp_path, {
        "proc/mountinfo": "".join(
            f"{n} 77 0:29 /docker/{ID} /{top}/{name} ro - cgroup cgroup rw,{name}\n"
            for n, name in enumerate(["cpu,cpuacct", "memory", "pids", "blkio"])
        ),
        "proc/cgroup": "".join(f"1:{name}:/docker/{ID}\n" for name in ("memory", "pids", "blkio", "cpu,cpuacct")),
        f"{top}/memory/memory.limit_in_bytes": "67108864\n",
        f"{top}/memory/memory.usage_in_bytes": "1000000\n",
        f"{top}/memory/memory.stat": "inactive_file 1\ntotal_inactive_file 400000\n",
        f"{top}/memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
        f"{top}/cpu,cpuacct/cpu.cfs_quota_us": "50000\n",
        f"{top}/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        f"{top}/cpu,cpuacct/cpu.stat": "nr_periods 1\nthrottled_time 2000000000\n",
        f"{top}/cpu,cpuacct/cpuacct.usage": "3000000000\n",
        f"{top}/pids/pids.max": "50\n",
        f"{top}/pids/pids.current": "2\n",
        f"{top}/blkio/blkio.throttle.io_service_bytes": "8:0 Read 10\n8:0 Write 20\n8:0 Total 30\nTotal 30\n",
    })  # fmt: skip
    cgroup = Cgroup.find(tmp_path / "proc", tmp_path)
    assert cgroup.version == 1
    assert Limits(0.5, 64 << 20, 50) == cgroup.limits()
    assert Usage(3.0, 2.0, 600_000, 2, 10, 20, 3) == cgroup.usage()


def test_no_limits_are_none(tmp_path):
    tree(tmp_path, {
        "proc/mountinfo": "1 2 0:29 / /cg rw - cgroup cgroup rw,memory,cpu\n",
        "proc/cgroup": "4:memory,cpu:/\n",
        "cg/memory.limit_in_bytes": "9223372036854771712\n",
        "cg/cpu.cfs_quota_us": "-1\n",
    })  # fmt: skip
    cgroup = Cgroup.find(tmp_path / "proc", tmp_path)
    assert Limits(None, None, None) == cgroup.limits()
    assert Usage(None, None, None, None, None, None, None) == cgroup.usage()
    assert Cgroup.find(tmp_path / "nowhere") is None


# -- a real engine -----------------------------------------------------------------------------------------------------

INSIDE = """
import json, sys, time
from tracelet.collectors.docker_collector import DockerCollector
from tracelet.collectors.system_collector import SystemCollector
from tests.collectors.support import parameters, running, values
told = {}
for name, kind in (("docker", DockerCollector), ("system", SystemCollector)):
    collector = running(kind(), run_dir="/tmp")
    records, until_s = list(collector.collect()), time.monotonic() + 1
    while time.monotonic() < until_s:
        pass
    told[name] = [parameters(records), values(collector.collect()), collector.get_status()]
    collector.stop()
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def docker_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A client of an engine of our own: no network, no bridge. Where none can run here, the test says why."""
    import docker

    place = tmp_path_factory.mktemp("engine")
    socket = place / "s"
    command = [
        "dockerd", "--data-root", str(place / "data"), "--exec-root", str(place / "exec"), "--host", f"unix://{socket}",
        "--pidfile", str(place / "pid"), "--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false",
        "--ip-masq=false", "--exec-opt", "native.cgroupdriver=cgroupfs",
    ]  # fmt: skip
    with (place / "log").open("wb") as log:
        try:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        except OSError as error:
            pytest.skip(f"no Docker engine can be started: {error}")
    try:
        deadline_s = time.monotonic() + 60
        while not socket.exists() and process.poll() is None and time.monotonic() < deadline_s:
            time.sleep(0.05)
        if process.poll() is not None or not socket.exists():
            pytest.skip(f"no Docker engine can be started: {(place / 'log').read_text()[-400:]}")
        client = docker.DockerClient(base_url=f"unix://{socket}")
        client.api.import_image_from_data(_empty_image(), repository="tracelet-test", tag="1")
        yield client
        client.close()
    finally:
        process.terminate()
        process.wait(60)


def _empty_image() -> bytes:
    data = BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name in ("dev", "etc", "proc", "sys", "tmp"):
            folder = tarfile.TarInfo(name)
            folder.type = tarfile.DIRTYPE
            archive.addfile(folder)
    return data.getvalue()


def in_container(client: Any, **options: Any) -> tuple[dict[str, Any], Any]:
    """Runs the collectors in a container that has this interpreter from outside; gives what they told."""
    places = {"/usr", "/lib", "/lib64", sys.base_prefix, sys.prefix, str(ROOT)}
    volumes = {place: {"bind": place, "mode": "ro"} for place in places if os.path.exists(place)}
    volumes |= options.pop("volumes", {})
    container = client.containers.create(
        "tracelet-test:1", [sys.executable, "-c", INSIDE], working_dir=str(ROOT), network_mode="none",
        mem_limit="256m", nano_cpus=500_000_000, pids_limit=50, volumes=volumes, **options,
    )  # fmt: skip
    container.start()
    code = container.wait(timeout=100)["StatusCode"]
    said = container.logs().decode()
    container.remove()
    assert 0 == code, said
    return json.loads(said.splitlines()[-1]), container


def test_in_a_real_container_the_kernel_tells(docker_client):
    told, container = in_container(docker_client)
    facts, found, status = told["docker"]
    assert (container.id, "KernelSource") == (status["container_id"], status["source"])
    assert container.id == facts["env/docker/container"]
    assert (256 << 20, 50, 0.5) == tuple(
        found[f"docker/{name}"] for name in ("memory_limit_bytes", "processes_limit", "cpu_limit_cores")
    )
    assert 5 < found["docker/cpu_percent"] < 75  # It is busy, and the quota is half a core.
    assert 1 << 20 < found["docker/memory_bytes"] < 256 << 20
    facts, found, _ = told["system"]
    assert (0.5, 256 << 20) == (facts["env/cpu/limit_cores"], facts["env/memory/limit_bytes"])
    assert 0 < found["system/cgroup/memory_percent_of_limit"] < 100


def test_in_a_real_container_with_its_socket_the_engine_tells(docker_client):
    path = docker_client.api._custom_adapter.socket_path
    told, container = in_container(
        docker_client,
        name="training",
        volumes={path: {"bind": "/var/run/docker.sock", "mode": "rw"}},
        environment={"API_TOKEN": "planted"},
    )
    facts, found, status = told["docker"]
    assert (container.id, "EngineSource") == (status["container_id"], status["source"])
    assert ("training", "tracelet-test:1") == (facts["env/docker/name"], facts["env/docker/image"])
    assert facts["env/docker/image_id"].startswith("sha256:")
    assert 256 << 20 == found["docker/memory_limit_bytes"]
    assert 5 < found["docker/cpu_percent"] < 75
    assert "planted" not in json.dumps(told["docker"])


def test_a_real_container_is_read_from_outside(docker_client, monkeypatch):
    path = docker_client.api._custom_adapter.socket_path
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    volumes = {place: {"bind": place, "mode": "ro"} for place in ("/usr", "/lib", "/lib64") if os.path.exists(place)}
    container = docker_client.containers.run(
        "tracelet-test:1", ["/usr/bin/sleep", "100"], network_mode="none", detach=True, name="asleep", volumes=volumes
    )
    collector = running(DockerCollector(), container="asleep")
    collector.collect()
    found = values(collector.collect())
    collector.stop()
    container.remove(force=True)
    assert 1 == found["docker/processes"]
    assert found["docker/cpu_percent"] < 50
