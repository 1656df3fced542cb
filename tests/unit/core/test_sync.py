from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

import tracelet
from tests.unit.core.support import killed_run, stand_in
from tracelet import Experiment, TraceletSettings
from tracelet.core.plugins import PluginManager
from tracelet.core.records import STATUS_NAME
from tracelet.core.sync import sync_run
from tracelet.errors import PluginContractError, PluginNotFoundError, RetryableError, UsageError
from tracelet.testing import MemoryBackend


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> MemoryBackend:
    """What the name `memory` stands for, in place of a new one each time."""
    made = MemoryBackend()
    stand_in(made, monkeypatch)
    return made


def recorded(**options: Any) -> Path:
    with Experiment("e", config={"lr": 0.1}, **options) as experiment:
        for step in range(1000):
            experiment.log_metric("loss", float(step), step)
    return experiment.run_dir


def losses(backend: MemoryBackend) -> list[float]:
    return [record.value for record in backend.records if record.name == "loss"]


def test_a_backend_that_was_not_there_gets_everything_in_order(backend: MemoryBackend):
    path = recorded()
    stats = sync_run(path, ["memory"], TraceletSettings())["memory"]
    assert [float(step) for step in range(1000)] == losses(backend)
    assert "finished" == backend.records[-1].value
    assert (len(backend.records), 0, 0) == (stats.delivered, stats.rejected, stats.waiting)


def test_what_a_backend_has_is_not_sent_again(backend: MemoryBackend):
    path = recorded()
    first = sync_run(path, ["memory"], TraceletSettings())["memory"].delivered
    backend.records.clear()
    again = sync_run(path, ["memory"], TraceletSettings())["memory"]
    assert ([], first) == (backend.records, again.delivered)


def test_after_an_outage_the_rest_arrives_once(backend: MemoryBackend):
    dead = MemoryBackend()
    dead.fail(RetryableError("away"))
    path = recorded(backend=dead, settings=TraceletSettings(stop_timeout_s=0))
    assert [] == dead.records
    sync_run(path, ["memory"], TraceletSettings())
    assert [float(step) for step in range(1000)] == losses(backend)


def test_a_backend_that_stays_away_is_given_up_in_time_and_its_records_wait(backend: MemoryBackend):
    path = recorded()
    backend.fail(RetryableError("away"))
    stats = sync_run(path, ["memory"], TraceletSettings(), timeout_s=0.1)["memory"]
    assert (0, 1002) == (stats.delivered, stats.waiting)
    assert "RetryableError: away" == stats.report.last_error


def test_nothing_is_added_to_the_journal(backend: MemoryBackend):
    path = recorded()
    before = {file.name: file.stat().st_size for file in path.glob("*.*")}
    backend.reject(lambda record: record.name == "loss")
    sync_run(path, ["memory"], TraceletSettings())
    assert before == {file.name: file.stat().st_size for file in path.glob("*.*")}


def test_a_backend_that_the_run_itself_delivers_to_is_refused(backend: MemoryBackend):
    own = MemoryBackend()
    with Experiment("e", backend=own) as experiment:
        assert own.wait_until(lambda: own.count("start") == 1)
        with pytest.raises(UsageError, match=rf"being delivered to 'memory' by process {os.getpid()}"):
            sync_run(experiment.run_dir, ["memory"], TraceletSettings())
    assert [] == backend.records


def test_a_run_that_is_running_is_sent_as_far_as_it_has_come(backend: MemoryBackend):
    with Experiment("e") as experiment:
        experiment.log_metric("loss", 1.0, 0)
        stats = sync_run(experiment.run_dir, ["memory"], TraceletSettings())["memory"]
        assert ([1.0], 0, None) == (losses(backend), stats.waiting, stats.closed)
        experiment.log_metric("loss", 2.0, 1)
    assert 2 == sync_run(experiment.run_dir, ["memory"], TraceletSettings(), follow=True)["memory"].delivered - 1
    assert ["loss", "loss", STATUS_NAME] == [record.name for record in backend.records]


def test_a_run_is_followed_until_it_ends(backend: MemoryBackend):
    experiment = Experiment("e").start()
    thread = threading.Thread(
        target=sync_run, args=(experiment.run_dir, ["memory"], TraceletSettings()), kwargs={"follow": True}
    )
    thread.start()
    for step in range(3):
        experiment.log_metric("loss", float(step), step)
        assert backend.wait_until(lambda step=step: len(losses(backend)) == step + 1)
    experiment.stop("failed", error="the reason")
    thread.join()
    last = backend.records[-1]
    assert (STATUS_NAME, "failed", "the reason") == (last.name, last.value, last.metadata["error"])


def test_a_run_that_was_killed_is_told_so(backend: MemoryBackend):
    path = killed_run()
    status = sync_run(path, ["memory"], TraceletSettings())["memory"]
    assert [("loss", 1.0), (STATUS_NAME, "killed")] == [(record.name, record.value) for record in backend.records]
    assert "killed" == status.closed
    assert sync_run(path, ["memory"], TraceletSettings())["memory"].delivered == 2 == len(backend.records)


def test_what_is_no_backend_is_refused_before_anything_is_sent(backend: MemoryBackend):
    path = recorded()
    with pytest.raises(PluginNotFoundError, match="nowhere"):
        sync_run(path, ["memory", "nowhere"], TraceletSettings())
    assert [] == backend.records


def test_no_thread_is_left(backend: MemoryBackend):
    before = set(threading.enumerate())
    sync_run(recorded(), ["memory"], TraceletSettings())
    assert before == set(threading.enumerate())


def test_the_status_of_the_run_stays(backend: MemoryBackend):
    path = recorded()
    sync_run(path, ["memory"], TraceletSettings())
    assert tracelet.RunStatus.FINISHED is tracelet.load_run(path).status


def test_a_plugin_of_another_kind_is_refused(monkeypatch: pytest.MonkeyPatch):
    from tracelet.core.plugins import CollectorPlugin, PluginMetadata, PluginType

    class Collector(CollectorPlugin):
        @classmethod
        def get_metadata(cls) -> PluginMetadata:
            return PluginMetadata("probe", "1", PluginType.COLLECTOR)

        def initialize(self, config: dict[str, Any]) -> None: ...
        def start(self) -> None: ...
        def stop(self) -> None: ...
        def get_status(self) -> dict[str, Any]:
            return {}

        def collect(self) -> list[Any]:
            return []

    monkeypatch.setattr(PluginManager, "load", lambda self, name: self.register_plugin(Collector()))
    with pytest.raises(PluginContractError, match="'probe' is a collector"):
        sync_run(recorded(), ["probe"], TraceletSettings())
