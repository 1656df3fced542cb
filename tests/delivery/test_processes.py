"""Delivery when the process ends in ways that no `stop()` sees, or has children."""

from __future__ import annotations

import json
import multiprocessing
import os
import pty
import random
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests.delivery.support import WAIT_S
from tests.delivery.training import log_for_ever
from tracelet import Experiment, load_run
from tracelet.backends.jsonl_backend import JsonLinesBackend
from tracelet.core.records import STATUS_NAME
from tracelet.journal.directory import RunDirectory
from tracelet.journal.reader import JournalReader

ROOT = Path(__file__).parents[2]
RUN_DIR = Path("tracelet_runs", "default", "r1")

START = """
from tracelet import Experiment
from tracelet.backends.jsonl_backend import JsonLinesBackend

experiment = Experiment("test", backend=JsonLinesBackend(), run_id="r1").start()
experiment.log_metric("loss", 0.5, 0)
"""


def environment(**settings: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **settings}


def run_script(code: str, **settings: str) -> subprocess.CompletedProcess[str]:
    Path("train.py").write_text(textwrap.dedent(code))
    # Since Python 3.12 a fork beside threads is warned of; here it is what is tested.
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "train.py"]
    return subprocess.run(command, check=False, capture_output=True, text=True, env=environment(**settings))


def delivered(run_dir: Path = RUN_DIR) -> list[dict[str, Any]]:
    lines = (run_dir / "delivery" / "jsonl" / "records.jsonl").read_bytes().splitlines()
    records = []
    for index, line in enumerate(lines):
        try:
            records.append(json.loads(line))
        except ValueError:  # Cut short by a kill: it comes again as a whole.
            assert index + 1 < len(lines)
    return records


def identity(name: str, step: int | None, time_s: float | None, value: Any) -> tuple[Any, ...]:
    return (name, step, time_s, json.dumps(value))


@pytest.fixture(scope="module")
def processes():
    """Processes that begin with the library imported, so that twenty of them take no time."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["pytest", "tests.delivery.training", "tracelet.settings", "tracelet.delivery.worker"]
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        yield context


def test_twenty_kills_lose_nothing_and_change_no_order(processes, tmp_path: Path):
    run_dir = tmp_path / "runs" / "default" / "r1"
    for attempt in range(20):
        under_way = processes.Event()
        process = processes.Process(target=log_for_ever, args=(run_dir, attempt, under_way))
        process.start()
        assert under_way.wait(WAIT_S)
        process.join(random.uniform(0.0, 0.05))  # Any moment will do: that is what is tested.
        process.kill()
        process.join()
    with Experiment("killed", backend=JsonLinesBackend(), run_id="r1", dir=tmp_path / "runs") as experiment:
        assert experiment.flush(WAIT_S)

    written = [
        identity(record.name, record.iteration, record.timestamp, record.value)
        for _, entry in JournalReader(RunDirectory.open(run_dir))
        if (record := entry.record) is not None
    ]
    found = [identity(line["name"], line["step"], line["time_s"], line["value"]) for line in delivered(run_dir)]
    assert len(written) > 20 * 1000
    assert written == list(dict.fromkeys(found))  # Without what came twice, it is the journal.


def test_end_of_the_program_without_stop_delivers_and_says_finished():
    done = run_script(START)
    assert (0, "") == (done.returncode, done.stderr)
    assert [("loss", 0.5), (STATUS_NAME, "finished")] == [(line["name"], line["value"]) for line in delivered()]
    assert "finished" == load_run(RUN_DIR).status.value


@pytest.mark.parametrize("error", ["ValueError('boom')", "KeyboardInterrupt()"])
def test_uncaught_exception_is_a_failed_run_with_its_traceback(error: str):
    done = run_script(START + f"\ndef train():\n    raise {error}\n\ntrain()\n")
    assert done.returncode != 0
    assert f"raise {error}" in done.stderr  # The user sees it as ever.
    run = load_run(RUN_DIR)
    assert ("failed", True) == (run.status.value, "in train" in run.error)
    status = delivered()[-1]
    assert (STATUS_NAME, "failed") == (status["name"], status["value"])
    assert f"raise {error}" in status["metadata"]["error"]


def test_exception_of_before_the_start_is_no_failure():
    before = "import sys\nsys.last_value = ValueError('of an earlier cell of a notebook')\n"
    assert 0 == run_script(before + START).returncode
    assert "finished" == load_run(RUN_DIR).status.value


def test_end_of_the_program_with_a_dead_backend_says_which_command_sends_the_rest():
    code = """
    from tracelet import Experiment
    from tracelet.testing import MemoryBackend

    backend = MemoryBackend("dead")
    backend.fail(ConnectionError("no route"))
    Experiment("test", backend=backend, run_id="r1").start().log_metric("loss", 0.5, 0)
    """
    done = run_script(code, TRACELET_STOP_TIMEOUT_S="0.05")
    assert 0 == done.returncode
    assert "records have not reached 'dead'" in done.stderr  # With the record of an error, if there was time for one.
    assert "tracelet sync r1 --to dead" in done.stderr


def test_forked_child_logs_but_never_delivers_or_ends_the_run():
    code = """
    import os
    from tracelet import Experiment
    from tracelet.testing import MemoryBackend

    class Own(MemoryBackend.__base__):
        get_metadata = MemoryBackend.get_metadata
        def initialize(self, config): self.pids = set()
        def start(self): pass
        def stop(self): print("pids", len(self.pids), os.getpid() in self.pids)
        def get_status(self): return {}
        def handle_metric(self, metric):
            self.pids.add(os.getpid())
            names.append(metric.name)

    names = []
    experiment = Experiment("test", backend=Own(), run_id="r1").start()
    experiment.log_metric("parent", 0.5, 0)
    assert experiment.flush(60)
    if os.fork() == 0:
        experiment.log_metric("child", 0.25, 0)
        assert experiment.flush(60)
        experiment.stop()
        raise SystemExit(7)
    assert os.waitstatus_to_exitcode(os.wait()[1]) == 7
    experiment.log_metric("parent", 0.5, 1)
    experiment.stop()
    print(*sorted(names))
    """
    done = run_script(code)
    assert (0, "") == (done.returncode, done.stderr)
    assert "pids 1 True\nchild parent parent tracelet/status\n" == done.stdout


def test_progress_of_the_last_deliveries_is_shown_on_a_terminal():
    code = """
    import sys, threading
    from tracelet import Experiment
    from tracelet.testing import MemoryBackend

    backend, go_on = MemoryBackend("slow"), threading.Event()
    backend.stall(go_on)
    experiment = Experiment("test", backend=backend).start()
    for step in range(100):
        experiment.log_metric("loss", 0.5, step)
    threading.Thread(target=lambda: (sys.stdin.readline(), go_on.set()), daemon=True).start()
    """
    Path("train.py").write_text(textwrap.dedent(code))
    ours, theirs = pty.openpty()
    settings = environment(TERM="xterm", COLUMNS="100")
    process = subprocess.Popen([sys.executable, "train.py"], stdin=subprocess.PIPE, stderr=theirs, env=settings)
    os.close(theirs)
    shown = b""
    while b"slow: delivering" not in shown or b"0/101" not in shown:
        shown += os.read(ours, 4096)
    process.communicate(b"\n", timeout=WAIT_S)
    os.close(ours)
    assert 0 == process.returncode
