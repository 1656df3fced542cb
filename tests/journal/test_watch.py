from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.unit.core.support import killed_run
from tracelet import Experiment
from tracelet.core.records import MetricData, MetricType
from tracelet.journal.directory import RunDirectory
from tracelet.journal.status import ProcessIdentity
from tracelet.journal.watch import RunWatch


def watch_of(path: Path, starter: ProcessIdentity | None = None) -> RunWatch:
    return RunWatch(RunDirectory.open(path), starter)


def value(end: MetricData | None) -> str | None:
    return None if end is None else end.value


def test_the_end_is_seen_when_it_comes():
    experiment = Experiment("e").start()
    watch = watch_of(experiment.run_dir)
    assert watch.look() is None
    experiment.log_text("note", "text")
    assert watch.look() is None
    experiment.stop("failed", error="the reason")
    end = watch.look()
    assert end is not None
    assert ("failed", MetricType.CUSTOM, "the reason") == (end.value, end.type, end.metadata["error"])
    assert end == watch.look()


def test_a_killed_run_ended_when_it_was_last_heard_of():
    path = killed_run()
    end = watch_of(path).look()
    assert end is not None
    assert "killed" == end.value
    assert end.timestamp == max(file.stat().st_mtime for file in path.iterdir() if file.is_file())


def test_a_run_that_is_started_again_runs_again():
    with Experiment("e", run_id="r1") as experiment:
        pass
    watch = watch_of(experiment.run_dir)
    assert "finished" == value(watch.look())
    again = Experiment("e", run_id="r1").start()
    assert watch.look() is None
    again.stop("failed")
    assert "failed" == value(watch.look()) == value(watch_of(experiment.run_dir).look())


def test_a_look_costs_the_new_lines_only(monkeypatch: pytest.MonkeyPatch):
    experiment = Experiment("e").start()
    for number in range(2000):
        experiment.log_text("note", "x" * 100 + str(number))
    watch = watch_of(experiment.run_dir)
    watch.look()
    seen: list[int] = []
    monkeypatch.setattr("tracelet.journal.reader.decode_lines", lambda data: seen.append(len(data)) or iter(()))
    watch.look()
    assert sum(seen) < 200
    experiment.stop()


def test_a_run_without_a_log_runs_as_long_as_its_starter():
    with Experiment("e") as experiment:
        pass
    for log in experiment.run_dir.glob("*.log"):
        log.unlink()
    own = ProcessIdentity.own()
    gone = ProcessIdentity(own.pid, 0, own.boot, own.pid_space, own.host)
    ends = [watch_of(experiment.run_dir, starter).look() for starter in (None, own, gone)]
    assert ["killed", None, "killed"] == [value(end) for end in ends]


def test_a_directory_that_is_taken_away_ends_nothing():
    experiment = Experiment("e").start()
    watch = watch_of(experiment.run_dir)
    assert watch.look() is None
    os.rename(experiment.run_dir, "moved")
    assert watch.look() is None
    shutil.move("moved", experiment.run_dir)
    experiment.stop()
    assert "finished" == value(watch.look())
