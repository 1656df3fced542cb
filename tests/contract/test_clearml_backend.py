"""The ClearML backend under the suite of all backends: as an offline session, and against a server on loopback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.backends.clearml_service import ClearMLService, blocked, session_events
from tracelet.backends._clearml.names import NAMES, name_of_curve, name_of_parameter
from tracelet.backends.clearml_backend import ClearMLBackend
from tracelet.testing import BackendContract
from tracelet.testing.backend_contract import TIME_S, scalar

Row = tuple[str, int, float, float]


class ClearMLContract(BackendContract):
    """What both ways have in common: a subclass gives `config`, `events`, `task` and `read_file`."""

    subject = ClearMLBackend

    @pytest.fixture
    def backend(self):
        return ClearMLBackend()

    @pytest.fixture
    def stored(self, events):
        def read() -> list[Row]:
            points = [event for event in events() if event["type"] == "training_stats_scalar"]
            return [
                (name_of(event), event["iter"], event["value"], event["timestamp"] / 1000)
                for event in sorted(points, key=lambda event: event["iter"])
            ]

        return read

    @pytest.fixture
    def stored_params(self, task):
        def read() -> dict[str, Any]:
            sections = task()["hyperparams"].items()
            return {
                name_of_parameter(section, name): param["value"]
                for section, params in sections
                for name, param in params.items()
                if section not in ("properties", NAMES)
            }

        return read

    def param_as_stored(self, value: Any) -> Any:
        if value is None:
            return ""
        return json.dumps(value) if isinstance(value, (list, dict)) else str(value)

    @pytest.fixture
    def stored_texts(self, events, read_file):
        def read():
            samples = [event for event in events() if event["type"] == "training_debug_image"]
            return {name_of(event): read_file(event["url"]).decode() for event in samples}

        return read

    @pytest.fixture
    def stored_tags(self, task):
        return lambda: {name: param["value"] for name, param in task()["hyperparams"]["properties"].items()}


class TestClearMLOffline(ClearMLContract):
    @pytest.fixture
    def config(self, tmp_path: Path):
        return {"mode": "offline", "offline_dir": str(tmp_path / "sessions")}

    @pytest.fixture
    def folder(self, full_config: dict[str, Any]):
        return Path(full_config["offline_dir"], f"offline-{full_config['run_uuid']}")

    @pytest.fixture
    def events(self, folder: Path):
        return lambda: session_events(folder)

    @pytest.fixture
    def task(self, folder: Path):
        return lambda: json.loads((folder / "task.json").read_text())

    @pytest.fixture
    def read_file(self):
        return lambda url: Path(url).read_bytes()

    @pytest.fixture
    def outage(self, config: dict[str, Any]):
        return lambda: blocked(Path(config["offline_dir"]))


class TestClearMLOnline(ClearMLContract):
    @pytest.fixture
    def service(self):
        with ClearMLService() as service:
            yield service

    @pytest.fixture
    def config(self, service: ClearMLService):
        return service.settings

    @pytest.fixture
    def events(self, service: ClearMLService):
        return lambda: list(service.events.values())

    @pytest.fixture
    def task(self, service: ClearMLService):
        return service.only_task

    @pytest.fixture
    def read_file(self, service: ClearMLService):
        return lambda url: service.files[url]

    @pytest.fixture
    def outage(self, service: ClearMLService):
        return service.away

    def test_read_back_gives_what_was_sent(self, send: Any, started: ClearMLBackend, on_worker: Any) -> None:
        points = [(step, step / 3) for step in (-2, -1, 0, 7, 2**40)]
        send([scalar("a-b/c", value, step) for step, value in points] + [scalar("a/b-c", 9.0, 0)])
        found = on_worker(lambda: started.read_back("a-b/c"))
        assert [(step, value, TIME_S) for step, value in points] == found
        assert [] == on_worker(lambda: started.read_back("never logged"))


def name_of(event: dict[str, Any]) -> str:
    name = name_of_curve(event["metric"], event["variant"])
    assert name is not None
    return name
