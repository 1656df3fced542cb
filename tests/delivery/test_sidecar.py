"""Delivery in a process of its own: what it delivers, when it ends, and what becomes of it in trouble."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.delivery.support import WAIT_S, Processor, names
from tracelet import Experiment, MetricType, RoutingRule, RunStatus, TraceletSettings, load_run
from tracelet.core.records import PLUGIN_ERRORS_NAME, STATUS_NAME
from tracelet.delivery.report import DeliveryReport
from tracelet.errors import UsageError
from tracelet.testing import MemoryBackend


def started(settings: dict[str, Any] | None = None, **options: Any) -> Experiment:
    chosen = TraceletSettings(delivery="process", **(settings or {}))
    return Experiment("test", **{"backend": ["jsonl"], "settings": chosen, **options}).start()


def folder(run_dir: Path) -> Path:
    return run_dir / "delivery" / "jsonl"


def delivered(run_dir: Path) -> list[tuple[str, Any]]:
    lines = (folder(run_dir) / "records.jsonl").read_text().splitlines()
    return [(fields["name"], fields["value"]) for fields in map(json.loads, lines)]


def wait_for(condition: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def is_gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


def pid_of(experiment: Experiment) -> int:
    wait_for(lambda: DeliveryReport.read(folder(experiment.run_dir)).pid)
    pid = DeliveryReport.read(folder(experiment.run_dir)).pid
    assert pid is not None
    return pid


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    wait_for(lambda: not set(threading.enumerate()) - before)


# -- what it delivers --------------------------------------------------------------------------------------------------


def test_another_process_delivers_everything_and_ends():
    experiment = started()
    for step in range(2000):
        experiment.log_metric("loss", float(step), step)
    pid = pid_of(experiment)
    assert pid != os.getpid()
    experiment.stop("failed", error="the reason")
    expected = [("loss", float(step)) for step in range(2000)]
    assert [*expected, (STATUS_NAME, "failed")] == delivered(experiment.run_dir)
    stats = experiment.status()["backends"]["jsonl"]
    assert (2001, 0, "ended") == (stats.delivered, stats.waiting, stats.state)
    wait_for(lambda: is_gone(pid))
    assert RunStatus.FAILED is load_run(experiment.run_dir).status


def test_flush_waits_for_it():
    experiment = started()
    for step in range(100):
        experiment.log_metric("loss", float(step), step)
    assert experiment.flush(WAIT_S)
    assert 100 == len(delivered(experiment.run_dir))
    assert (folder(experiment.run_dir) / "records.jsonl").as_uri() == experiment.url("jsonl")
    experiment.stop()


def test_it_gets_settings_and_rules_and_shows_no_setting_to_others(tmp_path: Path):
    experiment = started({"plugins": {"jsonl": {"path": str(tmp_path / "s3cret.jsonl")}}})
    experiment.log_metric("train/loss", 1.0, 0)
    assert experiment.flush(WAIT_S)
    process = Path("/proc", str(pid_of(experiment)))
    assert b"s3cret" not in (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
    experiment.add_routing_rule(RoutingRule(("jsonl",), "val/*", frozenset({MetricType.SCALAR})))
    assert experiment.flush(WAIT_S)  # It has read the rule.
    experiment.log_metric("train/loss", 2.0, 1)
    experiment.log_metric("val/loss", 3.0, 1)
    experiment.stop()
    values = [json.loads(line)["value"] for line in (tmp_path / "s3cret.jsonl").read_text().splitlines()]
    assert [1.0, 3.0, "finished"] == values


def test_a_rule_of_before_the_start_holds():
    experiment = Experiment("test", backend=["jsonl"], settings=TraceletSettings(delivery="process"))
    experiment.add_routing_rule(RoutingRule(("jsonl",), "a", exclude=True))
    with experiment:
        experiment.log_metrics({"a": 1.0, "b": 2.0}, 0)
    assert [("b", 2.0), (STATUS_NAME, "finished")] == delivered(experiment.run_dir)


def test_its_warnings_are_said_here_and_its_errors_are_in_the_run(caplog: pytest.LogCaptureFixture, tmp_path: Path):
    experiment = started({"plugins": {"jsonl": {"path": str(tmp_path)}}, "stop_timeout_s": 0.0})
    experiment.log_metric("loss", 1.0, 0)
    wait_for(lambda: any("'jsonl' takes no records now" in record.getMessage() for record in caplog.records))
    wait_for(lambda: PLUGIN_ERRORS_NAME in load_run(experiment.run_dir).names())
    os.kill(pid_of(experiment), signal.SIGKILL)
    experiment.stop()


def test_a_run_that_is_started_again_is_delivered_by_the_next_process():
    first = started(run_id="r1")
    first.log_metric("loss", 1.0, 0)
    first.stop()
    second = started(run_id="r1")
    second.log_metric("loss", 2.0, 1)
    second.stop()
    end = (STATUS_NAME, "finished")
    assert [("loss", 1.0), end, ("loss", 2.0), end] == delivered(second.run_dir)


# -- what it can't have ------------------------------------------------------------------------------------------------


def test_an_instance_stays_in_this_process():
    backend = MemoryBackend()
    with started(backend=["jsonl", backend]) as experiment:
        experiment.log_metric("loss", 1.0, 0)
        assert experiment.flush(WAIT_S)
        assert pid_of(experiment) != os.getpid()
    assert ["loss", STATUS_NAME] == names(backend.records)
    assert [("loss", 1.0), (STATUS_NAME, "finished")] == delivered(experiment.run_dir)


def test_processors_and_filters_keep_delivery_here():
    for prepare in (
        lambda experiment: experiment.register_plugin(Processor()),
        lambda experiment: experiment.add_routing_rule(RoutingRule(("jsonl",), filter=lambda metric: True)),
    ):
        experiment = Experiment("test", backend=["jsonl"], settings=TraceletSettings(delivery="process"))
        prepare(experiment)
        with experiment:
            assert os.getpid() == pid_of(experiment)


def test_a_filter_that_comes_too_late_is_an_error():
    with started() as experiment, pytest.raises(UsageError, match='set delivery="thread"'):
        experiment.add_routing_rule(RoutingRule(("jsonl",), filter=lambda metric: True))


def test_without_an_interpreter_delivery_runs_here(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with started() as experiment:
        assert os.getpid() == pid_of(experiment)
    assert "no delivery process can be started" in caplog.text
    assert [(STATUS_NAME, "finished")] == delivered(experiment.run_dir)


# -- deaths ------------------------------------------------------------------------------------------------------------


def test_a_killed_training_is_delivered_to_the_last_record_and_told_as_killed():
    code = """
    import os, signal
    from tracelet import Experiment

    experiment = Experiment("test", backend=["jsonl"]).start()
    for step in range(5000):
        experiment.log_metric("loss", float(step), step)
    print(experiment.run_dir, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
    """
    environment = {**os.environ, "TRACELET_DELIVERY": "process"}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True, env=environment)
    assert -signal.SIGKILL == done.returncode
    run_dir = Path(done.stdout.strip())
    wait_for((folder(run_dir) / "cursor.json").exists)
    wait_for(lambda: json.loads((folder(run_dir) / "cursor.json").read_text())["closed"])
    assert [*(("loss", float(step)) for step in range(5000)), (STATUS_NAME, "killed")] == delivered(run_dir)
    pid = DeliveryReport.read(folder(run_dir)).pid
    assert pid is not None
    wait_for(lambda: is_gone(pid))


def test_a_killed_delivery_is_started_again_and_loses_nothing(caplog: pytest.LogCaptureFixture):
    experiment = started()
    for step in range(100):
        experiment.log_metric("loss", float(step), step)
    assert experiment.flush(WAIT_S)
    first = pid_of(experiment)
    os.kill(first, signal.SIGKILL)
    for step in range(100, 200):
        experiment.log_metric("loss", float(step), step)
    wait_for(lambda: pid_of(experiment) != first)
    experiment.stop()
    values = [value for name, value in delivered(experiment.run_dir) if name == "loss"]
    assert [float(step) for step in range(200)] == list(dict.fromkeys(values))
    assert "ended with exit code -9; it is started again" in caplog.text


def test_a_delivery_that_is_killed_at_the_end_is_left_to_sync(caplog: pytest.LogCaptureFixture, tmp_path: Path):
    experiment = started({"plugins": {"jsonl": {"path": str(tmp_path)}}}, run_id="r1")
    experiment.log_metric("loss", 1.0, 0)
    pid = pid_of(experiment)
    threading.Timer(0.5, os.kill, (pid, signal.SIGKILL)).start()
    experiment.stop()  # The backend is away: this would wait for a minute.
    assert "tracelet sync r1 --to jsonl" in caplog.text


def test_with_a_backend_that_is_away_it_goes_on_when_nobody_waits_any_more(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
):
    place = tmp_path / "records"
    place.mkdir()
    experiment = started(
        {"plugins": {"jsonl": {"path": str(place)}}, "stop_timeout_s": 0.0, "delivery_linger_s": WAIT_S}, run_id="r1"
    )
    experiment.log_metric("loss", 1.0, 0)
    pid = pid_of(experiment)
    with caplog.at_level(logging.WARNING):
        experiment.stop()
    assert f"are still on their way to 'jsonl': the delivery process {pid}, for up to 60 s" in caplog.text
    place.rmdir()  # Now it is reachable.
    wait_for(lambda: is_gone(pid))
    values = [json.loads(line)["value"] for line in place.read_text().splitlines()]
    assert 1.0 in values
    assert "finished" == values[-1]


def test_ctrl_c_at_the_terminal_does_not_reach_it():
    with started() as experiment:
        assert os.getpgid(pid_of(experiment)) != os.getpgid(0)
