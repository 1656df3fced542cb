from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.journal.support import ROOT, log, new_run, new_writer
from tracelet.journal import status
from tracelet.journal.load import Run
from tracelet.journal.status import HEARTBEAT_LIMIT_S, ProcessIdentity, RunStatus

LOGS_AND_WAITS = (
    "import sys; from pathlib import Path; from tests.journal.support import new_writer, log\n"
    "writer = new_writer(Path(sys.argv[1]))\n"
    "log(writer, 'loss', 7, 0.5)\n"
    "print('logged', flush=True); sys.stdin.read()"
)


@pytest.fixture
def other_process(tmp_path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", LOGS_AND_WAITS, tmp_path],
        cwd=ROOT,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        assert "logged\n" == process.stdout.readline()
        yield process
        process.kill()


def status_of(path: Path) -> RunStatus:
    return Run(new_run(path).path).status


def test_a_run_of_another_process_runs_until_that_is_killed(tmp_path: Path, other_process: subprocess.Popen[str]):
    assert status_of(tmp_path) is RunStatus.RUNNING
    other_process.kill()
    # Its parent has not asked for it yet: a zombie has ended all the same.
    os.waitid(os.P_PID, other_process.pid, os.WEXITED | os.WNOWAIT)
    assert status_of(tmp_path) is RunStatus.KILLED
    other_process.wait()
    run = Run(new_run(tmp_path).path)
    assert (RunStatus.KILLED, 7) == (run.status, run.last_step)


def test_sigterm_leaves_a_killed_run(tmp_path: Path, other_process: subprocess.Popen[str]):
    other_process.send_signal(signal.SIGTERM)
    other_process.wait()
    assert status_of(tmp_path) is RunStatus.KILLED


def test_a_stopped_process_still_runs(tmp_path: Path, other_process: subprocess.Popen[str]):
    other_process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, other_process.pid, os.WSTOPPED | os.WNOWAIT)
    assert status_of(tmp_path) is RunStatus.RUNNING


def test_a_run_of_this_process_runs(tmp_path: Path):
    log(new_writer(tmp_path), "loss", 0, 0.0)
    assert status_of(tmp_path) is RunStatus.RUNNING


def test_an_identity_comes_back_from_its_fields():
    own = ProcessIdentity.own()
    assert own == ProcessIdentity.from_fields(own.fields())
    assert (os.getpid(), socket.gethostname()) == (own.pid, own.host)


@pytest.mark.parametrize(
    "fields", [{}, {"pid": "1"}, {"pid": 0}, {"pid": -1}, {"pid": 2**40}, {"pid": 1, "start_ticks": "x"}]
)
def test_fields_that_are_no_identity_are_none(fields: dict[str, object]):
    assert ProcessIdentity.from_fields(fields) is None


@pytest.mark.parametrize(
    ("change", "heartbeat_age_s", "expected"),
    [
        pytest.param({}, 1e9, True, id="a live process needs no heartbeat"),
        pytest.param({"start_ticks": 1}, 0, False, id="the pid has been given to another"),
        pytest.param({"boot": "another"}, 0, False, id="the host was started anew"),
        pytest.param({"pid": 2**22 + 1}, 0, False, id="there is no such process"),
        pytest.param({"host": "elsewhere"}, HEARTBEAT_LIMIT_S - 1, True, id="another host with a fresh heartbeat"),
        pytest.param({"host": "elsewhere"}, HEARTBEAT_LIMIT_S + 1, False, id="another host with a stale heartbeat"),
        pytest.param({"pid_space": "pid:[1]"}, HEARTBEAT_LIMIT_S - 1, True, id="another container, fresh"),
        pytest.param({"pid_space": "pid:[1]"}, HEARTBEAT_LIMIT_S + 1, False, id="another container, stale"),
        pytest.param({"start_ticks": None}, 1e9, True, id="it could not tell its start time"),
    ],
)
def test_a_process_is_alive(change: dict[str, object], heartbeat_age_s: float, expected: bool):
    assert expected is replace(ProcessIdentity.own(), **change).is_alive(heartbeat_age_s)


@pytest.mark.parametrize(("age_s", "expected"), [(0, True), (HEARTBEAT_LIMIT_S + 1, False)])
def test_a_process_that_is_hidden_from_us_goes_by_its_heartbeat(
    monkeypatch: pytest.MonkeyPatch, age_s: float, expected: bool
):
    own = ProcessIdentity.own()
    monkeypatch.setattr(status, "_stat", lambda _: None)  # As with /proc mounted `hidepid`.
    assert expected is own.is_alive(age_s)


def test_a_name_with_brackets_and_blanks_does_not_confuse(tmp_path: Path):
    program = tmp_path / "a) Z (b"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([program, "60"]) as process:
        found = status._stat(process.pid)
        process.kill()
    assert found is not None
    assert found[0] in "RSD"


def test_a_log_of_another_host_that_is_touched_keeps_a_run_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(socket, "gethostname", lambda: "elsewhere")
        writer = new_writer(tmp_path)
    assert status_of(tmp_path) is RunStatus.RUNNING
    os.utime(writer.run.path / f"{writer.id}.log", (1, 1))
    assert status_of(tmp_path) is RunStatus.KILLED
