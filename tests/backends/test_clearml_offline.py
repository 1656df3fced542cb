"""Offline sessions of ClearML: what chooses them, their files, and that ClearML's own client imports them."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.backends.clearml_service import ClearMLService, blocked, session_events
from tracelet import Experiment
from tracelet.backends.clearml_backend import ClearMLBackend
from tracelet.core.records import STATUS_NAME, TAG_PREFIX, MetricData, MetricType
from tracelet.delivery.retry import Verdict, judge
from tracelet.errors import PermanentError

TIME_S = 1_750_000_000.125
Run = Callable[..., ClearMLBackend]


def point(name: str, value: float, step: int) -> MetricData:
    return MetricData(name, value, MetricType.SCALAR, step, TIME_S)


@pytest.fixture(autouse=True)
def no_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the developer's `clearml.conf` nor their variables."""
    monkeypatch.setenv("CLEARML_CONFIG_FILE", str(tmp_path / "clearml.conf"))
    for name in (
        "API_HOST",
        "WEB_HOST",
        "FILES_HOST",
        "API_ACCESS_KEY",
        "API_SECRET_KEY",
        "AUTH_TOKEN",
        "OFFLINE_MODE",
    ):
        monkeypatch.delenv(f"CLEARML_{name}", raising=False)


@pytest.fixture
def service() -> Iterator[ClearMLService]:
    with ClearMLService() as service:
        yield service


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    state_dir = tmp_path / "run" / "delivery" / "clearml"
    facts = {"run_name": "digits", "run_id": "r1", "run_uuid": uuid.uuid4().hex, "run_project": "vision"}
    return {**facts, "run_created_s": TIME_S, "run_dir": tmp_path / "run", "state_dir": state_dir}


@pytest.fixture
def folder(config: dict[str, Any]) -> Path:
    return Path(config["state_dir"], f"offline-{config['run_uuid']}")


@pytest.fixture
def run(config: dict[str, Any]) -> Run:
    def start(*records: MetricData, **settings: Any) -> ClearMLBackend:
        backend = ClearMLBackend()
        backend.initialize({**config, **settings})
        backend.start()
        backend.handle_batch(records)
        return backend

    return start


# -- which of the two --------------------------------------------------------------------------------------------------


def test_without_keys_a_run_is_an_offline_session(run: Run, folder: Path):
    backend = run(point("a", 1.0, 0))
    assert ("offline", folder.as_uri()) == (backend.get_status()["mode"], backend.get_url())
    assert [1.0] == [event["value"] for event in session_events(folder)]


def test_keys_in_the_environment_mean_a_server(run: Run, service: ClearMLService, monkeypatch: pytest.MonkeyPatch):
    for name, value in service.environment.items():
        monkeypatch.setenv(name, value)
    assert "online" == run(point("a", 1.0, 0)).get_status()["mode"]
    assert "digits" == service.only_task()["name"]


def test_keys_in_clearml_conf_mean_a_server(run: Run, service: ClearMLService, tmp_path: Path):
    hosts = [f'{name}_server: "{service.url}"' for name in ("api", "web", "files")]
    keys = 'credentials {access_key: "the access key", secret_key: "the secret key"}'
    (tmp_path / "clearml.conf").write_text("api {\n" + "\n".join([*hosts, keys]) + "\n}\n")
    backend = run(point("a", 1.0, 0))
    assert ("online", True) == (backend.get_status()["mode"], str(backend.get_url()).startswith(service.url))


def test_clearml_offline_mode_wins_over_keys(run: Run, service: ClearMLService, monkeypatch: pytest.MonkeyPatch):
    for name, value in {**service.environment, "CLEARML_OFFLINE_MODE": "1"}.items():
        monkeypatch.setenv(name, value)
    assert "offline" == run(point("a", 1.0, 0)).get_status()["mode"]
    assert [] == service.calls


def test_online_without_keys_says_what_to_do(run: Run):
    with pytest.raises(PermanentError, match="there are no keys: run 'clearml-init'"):
        run(mode="online")


def test_a_run_that_began_offline_is_not_torn_in_two(
    run: Run, service: ClearMLService, monkeypatch: pytest.MonkeyPatch
):
    run(point("a", 1.0, 0))
    for name, value in service.environment.items():
        monkeypatch.setenv(name, value)
    assert "offline" == run(point("a", 2.0, 1)).get_status()["mode"]
    with pytest.raises(PermanentError, match="'tracelet sync'"):
        run(mode="online")
    assert [] == service.calls


def test_an_experiment_needs_no_setting():
    with Experiment("digits", project="vision", backend=ClearMLBackend()) as experiment:
        experiment.log_metric("train/loss", 0.5, 3)
    folder = Path(str(experiment.url("clearml")).removeprefix("file://"))
    assert [("loss", "train", 3, 0.5)] == [
        (event["metric"], event["variant"], event["iter"], event["value"])
        for event in session_events(folder)
        if event["metric"] == "loss"
    ]
    task = json.loads((folder / "task.json").read_text())
    assert ("digits", "vision") == (task["name"], task["project_name"])
    assert "finished" == task["hyperparams"]["properties"]["tracelet:status"]["value"]


# -- the session -------------------------------------------------------------------------------------------------------


def test_a_line_that_was_cut_short_is_removed(run: Run, folder: Path):
    run(point("a", 1.0, 0)).stop()
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('[{"type": "training_stats_sca' + "x" * 100_000)
    run(point("a", 2.0, 1))
    assert [1.0, 2.0] == [event["value"] for event in session_events(folder)]


def test_a_place_that_takes_no_files_is_waited_for(run: Run, tmp_path: Path):
    backend = run(point("a", 1.0, 0), offline_dir=str(tmp_path / "sessions"))
    with blocked(tmp_path / "sessions"), pytest.raises(OSError, match="sessions") as caught:
        backend.handle_metric(MetricData("note", "text", MetricType.TEXT, 0, TIME_S))
    assert judge(caught.value) is Verdict.RETRY


def test_a_session_goes_on_where_it_was(run: Run, folder: Path):
    run(MetricData("lr", 0.1, MetricType.PARAMETER), MetricData(STATUS_NAME, "killed", MetricType.CUSTOM)).stop()
    run(MetricData("seed", 1, MetricType.PARAMETER))
    hyperparams = json.loads((folder / "task.json").read_text())["hyperparams"]
    assert {"lr", "seed"} == hyperparams["General"].keys()
    assert {"tracelet:run"} == hyperparams["properties"].keys()


def test_clearml_itself_is_not_imported(tmp_path: Path, config: dict[str, Any]):
    code = """
        import json, sys
        from tracelet.backends.clearml_backend import ClearMLBackend
        from tracelet.core.records import MetricData, MetricType
        backend = ClearMLBackend()
        backend.initialize({**json.loads(sys.argv[1]), "mode": "offline"})
        backend.start()
        backend.handle_metric(MetricData("a", 1.0, MetricType.SCALAR, 0, 1.0))
        backend.stop()
        print([name for name in sys.modules if name.partition(".")[0] == "clearml"])
    """
    assert "[]" == python(code, json.dumps(config, default=str), folder=tmp_path)


def test_clearml_imports_a_session_as_it_is(run: Run, folder: Path, service: ClearMLService, tmp_path: Path):
    for name in ("image.png", "model.bin"):
        (tmp_path / name).write_bytes(name.encode())
    run(
        point("train/loss", 0.1 + 0.2, 0),
        point("train/loss", float("nan"), 1),
        point("train/loss", 2.0, 2**40),
        MetricData("optimizer/lr", 0.1, MetricType.PARAMETER),
        MetricData(TAG_PREFIX + "baseline", "", MetricType.CUSTOM),
        MetricData("cat", str(tmp_path / "image.png"), MetricType.IMAGE, 3, TIME_S),
        MetricData("note", "größer", MetricType.TEXT, 4, TIME_S),
        MetricData("weights", {"edges": [0.0, 1.0], "counts": [2.0]}, MetricType.HISTOGRAM, 5, TIME_S),
        MetricData("model", str(tmp_path / "model.bin"), MetricType.ARTIFACT, None, TIME_S),
        MetricData(STATUS_NAME, "failed", MetricType.CUSTOM, None, TIME_S, None, {"error": "ValueError: no"}),
    ).stop()
    code = """
        import sys
        from clearml import Task
        print(Task.import_offline_session(sys.argv[1]))
    """
    key = python(code, str(folder), folder=tmp_path, **service.environment).splitlines()[-1]
    task = service.only_task()
    assert (key, "digits", ["NaN", "baseline"]) == (task["id"], task["name"], task["tags"])
    assert ["vision"] == list(service.projects)
    assert "0.1" == task["hyperparams"]["optimizer"]["lr"]["value"]
    assert "failed: ValueError: no" == task["hyperparams"]["properties"]["tracelet:status"]["value"]
    assert [(0, 0.1 + 0.2, 1_750_000_000_125), (2**40, 2.0, 1_750_000_000_125)] == [
        (event["iter"], event["value"], event["timestamp"]) for event in service.stored("training_stats_scalar")
    ]
    assert ["train/loss is nan at step 1"] == [line["msg"] for line in service.logs if "nan" in line["msg"]]
    assert [("cat", b"image.png"), ("note", "größer".encode())] == [
        (event["metric"], service.files[event["url"]]) for event in service.stored("training_debug_image")
    ]
    assert [[2.0]] == [json.loads(event["plot_str"])["data"][0]["y"] for event in service.stored("plot")]
    (artifact,) = task["execution"]["artifacts"]
    assert ("model", b"model.bin") == (artifact["key"], service.files[artifact["uri"]])
    assert {key} == {event["task"] for event in service.events.values()}


def python(code: str, *arguments: str, folder: Path, **environment: str) -> str:
    """Runs a program of its own: ClearML's client keeps much for the life of a process."""
    import os
    import textwrap

    clean = {name: value for name, value in os.environ.items() if not name.startswith("CLEARML_")}
    clean |= {"HOME": str(folder), "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        check=False,
        capture_output=True,
        text=True,
        env={**clean, "CLEARML_CONFIG_FILE": str(folder / "none.conf"), **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
