"""Kills, forks, resuming, and what the Neptune client would do to the user's process."""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest

from tests.backends.neptune_files import StoredRun, folders, neptune, operations, stored_run
from tests.backends.neptune_support import ROOT, custom, deliver, facts_in, run_python, scalar
from tracelet import Experiment
from tracelet.backends.neptune_backend import NeptuneBackend
from tracelet.core.records import DESCRIPTION_NAME, STATUS_NAME

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from neptune.cli.collect import collect_offline_containers
    from neptune.internal.operation import Operation

KILLED = """
import os, signal, sys
from pathlib import Path
from tests.backends.neptune_support import facts_in, scalar
from tracelet.backends.neptune_backend import NeptuneBackend

backend = NeptuneBackend()
backend.initialize(facts_in(Path(sys.argv[1])))
backend.start()
for batch in range(3):
    backend.handle_batch([scalar("a", float(step), step) for step in range(batch * 100, batch * 100 + 100)])
os.kill(os.getpid(), signal.SIGKILL)
"""


def killed(folder: Path) -> None:
    """A process that is killed when its third batch has been taken."""
    assert -signal.SIGKILL == run_python(KILLED, str(folder)).returncode


def steps_of(run: StoredRun, path: str = "a") -> list[int]:
    return [step for step, _, _ in run.series[path]]


def sent_by_sync() -> list[Operation]:
    """What the client's own `neptune sync` sends of the only run that it finds."""
    sent: list[Operation] = []

    class Server:
        def execute_operations(self, operations: list[Operation], **_: Any) -> tuple[int, list[Exception]]:
            sent.extend(operations)
            return len(operations), []

    (container,) = collect_offline_containers(path=Path(".neptune"))
    for directory in container.execution_dirs:
        directory.sync(backend=Server(), container_id=container.container_id, container_type=container.container_type)
    return sent


# -- kills and resuming ------------------------------------------------------------------------------------------------


def test_a_kill_loses_nothing_that_was_taken(tmp_path: Path):
    killed(tmp_path)
    assert list(range(300)) == steps_of(stored_run())


def test_a_batch_that_comes_again_after_a_kill_is_stored_once(tmp_path: Path):
    killed(tmp_path)
    deliver(tmp_path, [scalar("a", float(step), step) for step in range(200, 301)])
    run = stored_run()
    assert list(range(301)) == steps_of(run)
    assert ["a"] == [path for path in run.series if path.startswith("a")]
    assert [("a", step) for step in range(200, 300)] == run.refused


def test_a_run_that_is_started_again_is_one_run_for_neptune_sync(tmp_path: Path):
    killed(tmp_path)
    killed(tmp_path)
    assert 2 == len(folders())
    backend = deliver(tmp_path, [scalar("a", 1.0, 300), custom(STATUS_NAME, "finished")])
    assert list(range(301)) == steps_of(stored_run())
    there = [operation["path"] for operation in operations(*folders())]
    assert there == [operation.path for operation in sent_by_sync()]
    assert {"active": False, "run_id": None, "folder": None} == backend.get_status()


def test_a_resumed_run_keeps_its_overlap_its_paths_and_its_description(tmp_path: Path):
    deliver(tmp_path, [scalar("a/b", 0.0, 0), custom(DESCRIPTION_NAME, "a try")], [scalar("a/b", 1.0, 7)])
    deliver(tmp_path, [scalar("a", 2.0, 0), scalar("a/b", 3.0, 5), scalar("a/b", 4.0, 8)])
    run = stored_run()
    assert ([0, 7, 8], [5.0]) == (steps_of(run, "a/b"), [value for _, value, _ in run.series["a/b_late_step"]])
    assert [2.0] == [value for _, value, _ in run.series["a_"]]
    assert "a try" == run.values["sys/description"]


def test_a_run_whose_folder_was_synced_begins_a_new_one(tmp_path: Path):
    deliver(tmp_path, [scalar("a", 1.0, 0)])
    sent_by_sync()
    folders()[0].rename(tmp_path / "taken away")
    deliver(tmp_path, [scalar("a", 2.0, 1)])
    assert [1] == steps_of(stored_run())


def test_a_line_that_a_kill_cut_short_is_left_out(tmp_path: Path):
    killed(tmp_path)
    killed(tmp_path)
    for folder in folders():
        with open(folder / "data-1.log", "a") as log:
            log.write('{"obj": {"type": "LogFlo')
    deliver(tmp_path, [scalar("a", 1.0, 300)])
    assert list(range(301)) == steps_of(stored_run())
    there = list(operations(*folders()))
    assert len(there) == len(sent_by_sync())


def test_status_says_where_the_run_is(tmp_path: Path):
    backend = NeptuneBackend()
    backend.initialize(facts_in(tmp_path))
    backend.start()
    (folder,) = folders()
    expected = {"active": True, "run_id": folder.name.split("__")[1], "folder": str(folder.resolve())}
    assert (expected, None) == (backend.get_status(), backend.get_url())
    backend.stop()


def test_a_changed_working_directory_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    deliver(tmp_path, [scalar("a", 0.0, 0)])
    backend = NeptuneBackend()
    backend.initialize(facts_in(tmp_path))
    backend.start()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with monkeypatch.context() as moved:
        moved.chdir(elsewhere)
        backend.handle_batch([scalar("a", 1.0, 1)])
        backend.stop()
    assert [0, 1] == steps_of(stored_run())
    assert [] == list(elsewhere.iterdir())


# -- forks -------------------------------------------------------------------------------------------------------------


def test_forks_beside_a_busy_backend_hang_in_no_child_and_double_no_record(tmp_path: Path):
    backend, enough = NeptuneBackend(), threading.Event()
    sent: list[int] = []

    def work() -> None:
        backend.initialize(facts_in(tmp_path))
        backend.start()
        while not enough.is_set():
            steps = range(len(sent) * 100, len(sent) * 100 + 100)
            backend.handle_batch([scalar(f"s{step % 7}", 1.0, step) for step in steps])
            sent.append(1)
        backend.stop()

    worker = threading.Thread(target=work)
    worker.start()
    try:
        for number in range(40):
            child = os.fork()
            if child == 0:
                os._exit(0)
            assert (child, 0) == os.waitpid(child, 0), number  # A child that hangs is a test that times out.
    finally:
        enough.set()
        worker.join()
    run = stored_run()
    assert [] == run.refused
    assert len(sent) * 100 == sum(len(points) for points in run.series.values())


def test_a_child_that_ends_as_a_program_does_leaves_its_parents_run_alone(tmp_path: Path):
    code = """
import os, sys
from pathlib import Path
from tests.backends.neptune_support import facts_in, scalar
from tracelet.backends.neptune_backend import NeptuneBackend

backend = NeptuneBackend()
backend.initialize(facts_in(Path(sys.argv[1])))
backend.start()
backend.handle_batch([scalar("a", 1.0, 0)])
if os.fork() == 0:
    sys.exit(0)
assert os.wait()[1] == 0
backend.handle_batch([scalar("a", 2.0, 1)])
backend.stop()
"""
    done = run_python(code, str(tmp_path))
    assert (0, "") == (done.returncode, done.stdout), done.stderr
    run = stored_run()
    assert ([0, 1], []) == (steps_of(run), run.refused)


# -- the user's process ------------------------------------------------------------------------------------------------

QUIET = """
import atexit, sys, threading, warnings
from pathlib import Path
from tests.backends.neptune_support import deliver, facts_in, scalar
from tracelet.backends.neptune_backend import NeptuneBackend

hook, handlers = sys.excepthook, atexit._ncallbacks()
deliver(Path(sys.argv[1]), [scalar("a", 1.0, 0), scalar("a", float("nan"), 1)])
backend = NeptuneBackend()
backend.initialize(facts_in(Path(sys.argv[1])))  # Never stopped: the end of the process waits for nothing.
run = backend._run
assert sys.excepthook is hook
assert not [item for item in warnings.filters if item[2].__module__.startswith("neptune")]
assert run.get_state() == "started"
atexit.register(lambda: print(run.get_state()))
"""


def test_the_client_says_nothing_and_leaves_no_hook(tmp_path: Path):
    done = run_python(QUIET, str(tmp_path))
    assert (0, "started\n") == (done.returncode, done.stdout), done.stderr


def test_a_run_of_the_users_own_stays_as_it_is(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    before = sys.excepthook
    mine = neptune.init_run(mode="offline", git_ref=False, source_files=[], capture_hardware_metrics=False)
    hook = sys.excepthook
    try:
        deliver(tmp_path, [scalar("a", 1.0, 0)])
        assert (hook, "started") == (sys.excepthook, mine.get_state())
        assert hook is not before
        capfd.readouterr()
    finally:
        mine.stop()
        sys.modules["neptune.internal.utils.uncaught_exception_handler"].instance.deactivate()
    assert "Shutting down" in capfd.readouterr().out


def test_an_experiment_ends_in_a_complete_run(tmp_path: Path):
    with Experiment("digits", backend=NeptuneBackend(), tags=["best"]) as experiment:
        experiment.log_params({"lr": 0.1})
        for step in range(1_000):
            experiment.log_metric("loss", 1 / (step + 1), step)
    run = stored_run()
    assert list(range(1_000)) == steps_of(run, "loss")
    assert (0.1, "finished", {"best"}) == (run.values["parameters/lr"], run.values["tracelet/status"], run.tags)
    assert {} == experiment.status()["errors"]


# -- a client that is not there ----------------------------------------------------------------------------------------


def test_a_missing_client_is_an_error_at_the_start_that_names_the_remedy(tmp_path: Path):
    packages = tmp_path / "packages"
    packages.mkdir()
    for path in map(Path, sys.path):
        for entry in path.iterdir() if path.name == "site-packages" else ():
            if not entry.name.startswith("neptune") and not entry.name.endswith(".pth"):
                (packages / entry.name).symlink_to(entry)
    code = """
from tracelet import Experiment
from tracelet.backends.neptune_backend import NeptuneBackend
from tracelet.errors import MissingDependencyError
try:
    Experiment("digits", backend=NeptuneBackend()).start()
except MissingDependencyError as error:
    print(error)
"""
    done = run_python(code, options=["-S"], PYTHONPATH=f"{packages}{os.pathsep}{ROOT}")
    assert "pip install 'tracelet[neptune]'" in done.stdout, done.stderr


def test_another_client_is_looked_for_by_its_own_name():
    with pytest.raises(
        ImportError, match=r"The Neptune backend needs the package 'no_such_client'.*pip install no_such"
    ):
        NeptuneBackend.validate_config({"client": "no_such_client.neptune_v2"})
