"""However a process ends: what was logged is there, and the run says how it ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import tracelet
from tracelet import Run

START = """
import gc, os, signal, sys, threading
import tracelet
experiment = tracelet.Experiment("e", run_id="r").start()
for step in range(100):
    experiment.log_metric("loss", float(step), step)
"""


# One process imports Tracelet, and a fork of it runs a test's code as its main program: ten times as fast as a new one.
LAUNCHER = """
import os, sys, tracelet
tracelet.TraceletSettings(), tracelet.Experiment, tracelet.load_run
for folder in sys.stdin:
    if os.fork() == 0:
        os.chdir(folder.strip())
        output = os.open("output", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(output, 1), os.dup2(output, 2), os.close(output)
        exec(open("code.py").read())
        break
    print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""


class End(NamedTuple):
    code: int
    output: str


@pytest.fixture(scope="module")
def launcher() -> Iterator[subprocess.Popen[str]]:
    pipe = subprocess.PIPE
    environment = {**os.environ, "TRACELET_COLLECTORS": ""}
    command = [sys.executable, "-c", LAUNCHER]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment) as process:
        yield process


@pytest.fixture
def run_to_its_end(launcher: subprocess.Popen[str], tmp_path: Path) -> Callable[[str], End]:
    def run(code: str) -> End:
        assert launcher.stdin is not None
        assert launcher.stdout is not None
        (tmp_path / "code.py").write_text(code)
        (tmp_path / "output").write_text("")
        launcher.stdin.write(f"{tmp_path}\n")
        launcher.stdin.flush()
        return End(int(launcher.stdout.readline()), (tmp_path / "output").read_text())

    return run


def read() -> Run:
    run = tracelet.load_run("r")
    assert list(range(100)) == run.series("loss").steps.tolist()
    assert 99 == run.last_step
    assert (0, 0, 0) == (run.lost, run.damage.records, run.damage.lines)
    return run


CAUGHT = "try: 1 / 0\nexcept ZeroDivisionError: pass"
HANDLED = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); signal.raise_signal(signal.SIGTERM)"
IN_THREAD = "thread = threading.Thread(target=lambda: 1 / 0); thread.start(); thread.join()"
EXECUTED = "import atexit; atexit.register(exec, '1', {})\nsignal.raise_signal(signal.SIGINT)"

ENDINGS = {
    "the last line": ("", 0, "finished", ""),
    "sys.exit()": ("sys.exit()", 0, "finished", ""),
    "sys.exit(3), of which the interpreter tells nobody": ("sys.exit(3)", 3, "finished", ""),
    "sys.exit(3) in a with block": ("with experiment: sys.exit(3)", 3, "failed", ""),
    "sys.exit(0) in a with block": ("with experiment: sys.exit(0)", 0, "finished", ""),
    "an exception": ("raise ValueError('bad batch')", 1, "failed", "ValueError: bad batch"),
    "an exception in a with block": ("with experiment: raise ValueError('bad')", 1, "failed", "ValueError: bad"),
    "an exception that was caught": (CAUGHT, 0, "finished", ""),
    "a thread's exception": (IN_THREAD, 0, "finished", "ZeroDivisionError: division by zero"),
    "Ctrl-C": ("signal.raise_signal(signal.SIGINT)", -signal.SIGINT, "failed", "KeyboardInterrupt"),
    "Ctrl-C, and code that is executed at the end": (EXECUTED, -signal.SIGINT, "failed", "KeyboardInterrupt"),
    "SIGTERM": ("signal.raise_signal(signal.SIGTERM)", -signal.SIGTERM, "killed", ""),
    "SIGTERM, handled": (HANDLED, 0, "finished", ""),
    "SIGKILL": ("signal.raise_signal(signal.SIGKILL)", -signal.SIGKILL, "killed", ""),
    "SIGSEGV": ("signal.raise_signal(signal.SIGSEGV)", -signal.SIGSEGV, "killed", ""),
    "os._exit": ("os._exit(0)", 0, "killed", ""),
}


@pytest.mark.parametrize(("ending", "code", "status", "last_line"), ENDINGS.values(), ids=ENDINGS)
def test_a_run_ends_as_its_process_does(
    ending: str, code: int, status: str, last_line: str, run_to_its_end: Callable[[str], End]
):
    end = run_to_its_end(START + ending)
    assert (code, status) == (end.code, read().status.value)
    assert [last_line] == (end.output.splitlines() or [""])[-1:]
    assert 1 >= end.output.count("Traceback")


def test_the_text_of_the_exception_that_ended_the_program_is_kept(run_to_its_end: Callable[[str], End]):
    end = run_to_its_end(START + "def train(): raise ValueError('bad batch')\ntrain()")
    run = read()
    assert run.error is not None
    assert "in train" in run.error
    assert run.error.endswith("ValueError: bad batch\n")
    assert end.output == run.error  # As Python prints it, too, and nothing else.


def test_every_experiment_of_a_process_is_ended(run_to_its_end: Callable[[str], End]):
    run_to_its_end(
        START + "other = tracelet.Experiment('other', run_id='o').start(); other.log_metric('a', 1.0); 1 / 0"
    )
    assert "failed" == read().status.value
    assert ("failed", ["a"]) == (tracelet.load_run("o").status.value, tracelet.load_run("o").names())


def test_an_experiment_that_was_stopped_before_the_exception_stays_finished(run_to_its_end: Callable[[str], End]):
    run_to_its_end(START + "experiment.stop(); 1 / 0")
    assert "finished" == read().status.value


def test_an_exception_of_before_the_start_does_not_fail_the_run(run_to_its_end: Callable[[str], End]):
    """As in a notebook, where one cell has failed and the next one starts a run."""
    assert 0 == run_to_its_end("import sys; sys.last_value = ValueError('of another cell')" + START).code
    assert "finished" == read().status.value


def test_records_of_threads_that_go_on_after_the_last_line_are_kept(run_to_its_end: Callable[[str], End]):
    threads = """
def log():
    threading.main_thread().join()
    for step in range(100):
        experiment.log_metric("thread", float(step), step)
threading.Thread(target=log).start()
"""
    assert (0, "") == run_to_its_end(START + threads)
    assert list(range(100)) == read().series("thread").steps.tolist()


def test_a_record_that_is_logged_while_the_interpreter_ends_is_kept(run_to_its_end: Callable[[str], End]):
    end = run_to_its_end(START + "import atexit; atexit.register(lambda: experiment.log_metric('at exit', 1.0))")
    assert (0, "") == end
    assert "at exit" in read().names()


@pytest.mark.parametrize(
    "ending",
    [
        "loop = [experiment]; loop.append(loop); del experiment, loop",
        "class Holder: pass\nholder = Holder(); holder.me, holder.experiment = holder, experiment\ngc.disable()",
        "sys.modules['holder'] = experiment",
        "new = tracelet.Experiment('new')",
        "experiment.stop(); attached = tracelet.Experiment.attach(experiment.run_dir); attached.log_metric('a', 1.0)",
        "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()",
    ],
)
def test_the_end_of_the_interpreter_makes_no_noise(ending: str, run_to_its_end: Callable[[str], End]):
    assert (0, "") == run_to_its_end(START + ending)
    assert "finished" == read().status.value


FORKS = {
    "sys.exit()": "sys.exit(0)",
    "os._exit()": "os._exit(0)",
    "an exception": "raise ValueError('of the child')",
    "the last line": "",
    "SIGKILL": "os.kill(os.getpid(), signal.SIGKILL)",
    "stop()": "experiment.stop('failed')",
}


@pytest.mark.parametrize("ending", FORKS.values(), ids=FORKS)
def test_however_a_forked_child_ends_its_records_are_kept_and_its_parents_run_is_unharmed(
    ending: str, run_to_its_end: Callable[[str], End]
):
    fork = f"""
if os.fork() == 0:
    experiment.log_metric("child", 1.0)
    experiment.log_text("child", "text")
    {ending or "pass"}
else:
    os.wait()
    assert "running" == tracelet.load_run("r").status.value
    experiment.log_metric("parent", 1.0)
    experiment.stop()
"""
    assert 0 == run_to_its_end(START + fork).code
    run = read()
    assert ("finished", None) == (run.status.value, run.error)
    assert (["child", "loss", "parent"], [(None, "text")]) == (run.names(), run.texts("child"))


def test_a_process_that_lives_reads_as_running_and_as_killed_once_it_is_gone():
    process = subprocess.Popen([sys.executable, "-c", START + "print('ready', flush=True); input()"],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
    with process:
        assert process.stdout is not None
        assert b"ready\n" == process.stdout.readline()
        assert "running" == read().status.value
        process.kill()
    assert "killed" == read().status.value


def test_what_a_killed_run_left_goes_on_under_the_same_id(run_to_its_end: Callable[[str], End]):
    run_to_its_end(START + "signal.raise_signal(signal.SIGKILL)")
    again = START.replace("range(100)", "range(100, 200)").replace('run_id="r"', 'run_id="r", resume="must"')
    assert (0, "") == run_to_its_end(again)
    run = tracelet.load_run("r")
    assert list(range(200)) == run.series("loss").steps.tolist()
    assert "finished" == run.status.value


def test_nothing_but_the_run_is_left_behind(run_to_its_end: Callable[[str], End], tmp_path: Path):
    run_to_its_end(START)
    assert {"code.py", "output", "tracelet_runs"} == set(os.listdir(tmp_path))
    assert [] == list(tmp_path.rglob("*.tmp"))
