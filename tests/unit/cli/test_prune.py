"""`tracelet prune`: real runs in a directory; what goes is gone, and what must stay is whole."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tracelet as library
from tests.unit.cli.conftest import Tracelet
from tracelet.core import pruning
from tracelet.core.pruning import Part
from tracelet.delivery.lease import Lease

ROOT = Path("tracelet_runs")


def record(name: str, *, status: str = "finished", project: str = "default", megabytes: int = 0, **more: Any) -> Path:
    with library.Experiment(name, run_id=name, project=project, collectors=[], **more) as experiment:
        experiment.log_metric("loss", 1.0, 0)
        experiment.log_image("picture", b"\x89PNG\r\n\x1a\n" + bytes(50_000))
        if megabytes:
            Path("model.bin").write_bytes(os.urandom(megabytes << 20))
            experiment.log_artifact("model.bin", "model", "model")
        experiment.stop(status)
    return experiment.run_dir


def left() -> set[str]:
    return {file.parent.name for file in ROOT.glob("*/*/run.json")}


@pytest.fixture
def running() -> Iterator[Path]:
    """A run of another process that goes on until it is killed."""
    code = (
        "import tracelet, time; e = tracelet.Experiment('alive', run_id='alive', collectors=[]).start(); "
        "e.log_metric('x', 1.0); print(flush=True); time.sleep(600)"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    yield ROOT / "default" / "alive"
    child.kill()
    child.wait()
    child.stdout.close()


def test_without_yes_nothing_goes_and_the_table_says_what_would(tracelet: Tracelet):
    record("first", status="failed")
    record("second")
    shown = tracelet("prune", "--status", "failed").stdout
    assert "first" in shown
    assert "goes" in shown
    assert "second" not in shown
    assert "Would delete 1 run" in shown
    assert {"first", "second"} == left()


def test_what_answers_to_all_criteria_goes(tracelet: Tracelet):
    record("good")
    record("bad", status="failed")
    record("other", status="failed", project="p")
    record("large", megabytes=3)
    tracelet("prune", "--status", "failed,killed", "--project", "default", "--yes")
    assert {"good", "other", "large"} == left()
    tracelet("prune", "--larger-than", "2.5MB", "--yes")
    assert {"good", "other"} == left()
    tracelet("prune", "--older-than", "1h", "--yes")
    assert {"good", "other"} == left()
    assert [] == list(ROOT.glob(".trash"))


def test_the_newest_stay_in_each_project(tracelet: Tracelet):
    for name in ("a1", "a2", "a3"):
        record(name)
    record("b1", project="b")
    tracelet("prune", "--keep", "1", "--yes")
    assert {"a3", "b1"} == left()


def test_a_run_that_is_written_stays_and_one_that_was_killed_goes(tracelet: Tracelet, running: Path):
    shown = tracelet("prune", "--keep", "0", "--json").stdout
    assert "a process is writing it" == json.loads(shown)["runs"][0]["kept_because"]
    tracelet("prune", "--status", "running,killed", "--yes")
    assert {"alive"} == left()
    (pid,) = {json.loads(line)["process"]["pid"] for line in first_lines(running)}
    os.kill(pid, signal.SIGKILL)
    while library.Run(running).status is library.RunStatus.RUNNING:
        time.sleep(0.02)
    tracelet("prune", "--status", "killed", "--yes")
    assert set() == left()


def first_lines(run: Path) -> Iterator[str]:
    for log in run.glob("*.log"):
        text = log.read_text().splitlines()[0]
        yield text[text.index("{") : text.rindex("}") + 1]


def test_what_a_backend_has_not_got_stays(tracelet: Tracelet, monkeypatch: pytest.MonkeyPatch):
    sent, unsent = record("sent", backend="jsonl"), record("unsent")
    monkeypatch.setenv("TRACELET_BACKEND", "jsonl")  # Since then.
    shown = json.loads(tracelet("prune", "--status", "finished", "--yes", "--json").stdout)
    assert {"unsent"} == left()
    reasons = {row["run"]: row["kept_because"] for row in shown["runs"]}
    assert None is reasons["sent"]
    assert "records are not at jsonl yet" in reasons["unsent"]
    assert not sent.exists()
    tracelet("sync", "unsent", "--to", "jsonl")
    tracelet("prune", "--status", "finished", "--yes")
    assert not unsent.exists()


def test_a_run_that_is_being_sent_stays(tracelet: Tracelet):
    run = record("sent", backend="jsonl")
    lease = Lease(run / "delivery" / "jsonl")
    assert lease.acquire()
    assert "it is being sent to jsonl" in tracelet("prune", "--keep", "0").stdout.replace("\n", " ")
    tracelet("prune", "--status", "finished", "--yes")
    assert {"sent"} == left()
    lease.release()
    tracelet("prune", "--status", "finished", "--yes")
    assert set() == left()


@pytest.mark.parametrize("option", ["--artifacts-only", "--media-only"])
def test_files_go_and_the_record_stays(tracelet: Tracelet, option: str):
    run = record("large", megabytes=2)
    tracelet("prune", option, "--yes", "--status", "finished")
    found = library.load_run("large")
    assert [1.0] == found.series("loss").values.tolist()
    kept = found.artifact("model").is_kept
    assert (option == "--media-only", option == "--artifacts-only") == (kept, (run / "media").is_dir())
    assert "v0" == found.artifact("model").version
    assert "No run answers" in tracelet("prune", option, "--status", "finished").stdout


def test_a_file_with_a_link_elsewhere_frees_nothing(tracelet: Tracelet):
    record("large", megabytes=3)
    linked = json.loads(tracelet("prune", "--artifacts-only", "--json").stdout)
    Path("model.bin").unlink()
    alone = json.loads(tracelet("prune", "--artifacts-only", "--json").stdout)
    assert 3 << 20 <= linked["runs"][0]["size_bytes"]
    assert linked["freed_bytes"] < 1 << 20
    assert 3 << 20 <= alone["freed_bytes"]


def test_a_kill_leaves_a_run_whole_or_gone(tracelet: Tracelet, monkeypatch: pytest.MonkeyPatch):
    run = record("doomed")

    class KilledError(BaseException):
        pass

    def kill(*arguments: object, **more: object) -> None:
        raise KilledError

    with monkeypatch.context() as context:
        context.setattr(pruning.shutil, "rmtree", kill)
        with pytest.raises(KilledError):
            pruning.remove(run, Part.ALL, ())
    assert set() == left()
    assert not run.exists()
    assert list(ROOT.glob(".trash/*/*/run.json"))
    other = record("other")
    pruning.remove(other, Part.MEDIA, ())
    assert not (ROOT / ".trash").exists()


def test_wrong_options_say_what_is_right(tracelet: Tracelet):
    assert "say which" in tracelet("prune", "--yes", code=1).stderr
    for arguments in (["--older-than", "soon"], ["--larger-than", "5 metres"], ["--status", "lost"]):
        tracelet("prune", *arguments, code=2)
    tracelet("prune", "--artifacts-only", "--media-only", code=2)


PROGRAM = """
import sys, tracelet
from tracelet import TraceletSettings
settings = TraceletSettings(keep_local=sys.argv[1], delivery=sys.argv[2])
backend = sys.argv[3] or None
with tracelet.Experiment("one", backend, run_id="one", collectors=[], settings=settings) as experiment:
    experiment.log_metric("loss", 1.0)
    experiment.log_artifact(sys.argv[0], "program", "code")
assert tracelet.load_run(experiment.run_dir).artifact("program").is_kept
"""


def run_program(*arguments: str) -> Path:
    Path("program.py").write_text(PROGRAM)
    subprocess.run([sys.executable, "program.py", *arguments], check=True)
    return ROOT / "default" / "one"


def wait_until(is_so: Callable[[], bool]) -> None:
    while not is_so():
        time.sleep(0.02)


def test_the_delivery_process_keeps_what_the_setting_says_when_the_program_has_ended():
    run = run_program("metrics", "process", "jsonl")
    wait_until(lambda: not library.Run(run).artifact("program").is_kept)
    assert [1.0] == library.Run(run).series("loss").values.tolist()
    assert "program" in (run / "delivery" / "jsonl" / "records.jsonl").read_text()


def test_a_sync_keeps_what_the_setting_says(tracelet: Tracelet, monkeypatch: pytest.MonkeyPatch):
    run = run_program("none", "thread", "jsonl")
    monkeypatch.setenv("TRACELET_KEEP_LOCAL", "none")
    monkeypatch.setenv("TRACELET_BACKEND", "memory")  # Has not got it.
    tracelet("sync", "one", "--to", "jsonl")
    assert run.exists()
    monkeypatch.setenv("TRACELET_BACKEND", "jsonl")
    tracelet("sync", "one")
    assert not run.exists()


def test_a_run_that_was_sent_nowhere_is_kept_whatever_the_setting_says():
    run = run_program("none", "process", "")
    pruning.let_go(run, "none", ())
    assert library.Run(run).artifact("program").is_kept
