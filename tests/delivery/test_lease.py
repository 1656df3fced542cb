from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.delivery.support import Delivery, arrived, names
from tracelet.delivery.lease import LOCK_FILE, Lease, is_leased
from tracelet.testing import MemoryBackend


def test_one_has_it_at_a_time(tmp_path: Path):
    first, second = Lease(tmp_path), Lease(tmp_path)
    assert not is_leased(tmp_path)
    assert first.acquire()
    assert (True, False) == (is_leased(tmp_path), second.acquire())
    first.release()
    assert second.acquire()
    second.release()
    assert not is_leased(tmp_path)
    assert 0o600 == (tmp_path / LOCK_FILE).stat().st_mode & 0o777


def test_the_death_of_its_process_frees_it(tmp_path: Path):
    code = (
        "import sys, time, pathlib; from tracelet.delivery.lease import Lease\n"
        "assert Lease(pathlib.Path(sys.argv[1])).acquire(); lease = Lease(pathlib.Path(sys.argv[1], 'b'))\n"
        "assert lease.acquire(); print('held', flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "held\n" == process.stdout.readline()
        assert is_leased(tmp_path / "b")
        process.send_signal(signal.SIGKILL)
    assert not is_leased(tmp_path / "b")


def test_a_forked_child_does_not_keep_its_parents(tmp_path: Path):
    lease = Lease(tmp_path)
    assert lease.acquire()
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:  # It outlives the lease.
        theirs.send(b"here")
        theirs.recv(1)
        os._exit(0)
    assert b"here" == ours.recv(4)
    lease.release()
    assert not is_leased(tmp_path)
    ours.send(b".")
    os.waitpid(child, 0)
    ours.close()
    theirs.close()


def test_a_filesystem_without_locks_does_not_stop_delivery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def no_locks(descriptor: int, operation: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    lease = Lease(tmp_path)
    assert lease.acquire()
    lease.release()


def test_a_worker_waits_for_another_process_and_goes_on_where_that_ended(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    with Delivery(tmp_path) as delivery:
        delivery.log(["a", "b"])
        first, second = MemoryBackend(), MemoryBackend()
        delivering, waiting = delivery.worker(first), delivery.worker(second)
        delivering.start()
        assert arrived(first, 2)
        waiting.start()
        delivery.log(["c"])
        assert arrived(first, 3)
        delivering.request_stop(60.0)
        assert delivering.join(60.0)
        delivery.log(["d"])
        assert arrived(second, 1)
    assert (["a", "b", "c"], ["d"]) == (names(first.records), names(second.records))
    assert 1 == sum("another process delivers" in record.getMessage() for record in caplog.records)
