"""The summary of a run that has ended says what its journal says, or is not believed."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest

from tests.journal.support import log, new_writer
from tracelet import Experiment, Run, RunStatus
from tracelet.journal.summary import SUMMARY_FILE, RunSummary, write_summary


def ended(run_id: str = "r", **options: object) -> Path:
    with Experiment("e", run_id=run_id, config={"lr": 0.1}, tags={"k": "v"}, **options) as experiment:
        for step in range(5):
            experiment.log_metrics({"loss": float(step), "nan": math.nan, "inf": -math.inf}, step)
    return experiment.run_dir


def facts(run: Run) -> str:
    """As text, in which a NaN equals another one."""
    return repr((run.status, run.error, run.ended_s, run.duration_s, run.params, run.tags, run.latest(), run.last_step))


def test_a_run_says_the_same_with_and_without_it(monkeypatch: pytest.MonkeyPatch):
    path = ended()
    assert RunSummary.read(path) is not None
    with monkeypatch.context() as patch:  # The journal is not touched.
        patch.setattr(Run, "_writers", property(lambda _: pytest.fail("the journal was read")))
        told = facts(Run(path))
    os.remove(path / SUMMARY_FILE)
    assert told == facts(Run(path))
    assert "'loss': (4, 4.0)" in told


def test_a_failure_keeps_its_text():
    with pytest.raises(RuntimeError, match="no memory"), Experiment("e", run_id="f") as experiment:
        raise RuntimeError("no memory")
    summary = RunSummary.read(experiment.run_dir)
    assert summary is not None
    assert ("failed", True) == (summary.status, "no memory" in str(summary.error))


def test_it_is_not_believed_once_the_run_goes_on():
    path = ended()
    with Experiment("e", run_id="r") as experiment:
        assert RunSummary.read(path) is None
        assert RunStatus.RUNNING is Run(path).status
        experiment.log_metric("loss", 9.0, 9)
    assert (9, 9.0) == Run(path).latest()["loss"]
    assert RunSummary.read(path) is not None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 99}', '{"format": 1, "files": {}}', "[" * 100_000])
def test_one_that_is_damaged_or_of_another_version_is_left_out(text: str):
    path = ended()
    (path / SUMMARY_FILE).write_text(text)
    assert RunSummary.read(path) is None
    assert RunStatus.FINISHED is Run(path).status


def test_a_status_that_is_none_is_left_out():
    path = ended()
    fields = json.loads((path / SUMMARY_FILE).read_text())
    (path / SUMMARY_FILE).write_text(json.dumps({**fields, "status": "running"}))
    assert RunSummary.read(path) is None


def test_there_is_none_while_another_process_may_record_and_the_last_one_writes_it(tmp_path: Path):
    main, other = new_writer(tmp_path), new_writer(tmp_path, role="attached", rank=1)
    log(other, "loss", 0, 1.0)
    main.close()
    write_summary(main.run.path)
    assert not (main.run.path / SUMMARY_FILE).exists()
    other.close()
    write_summary(main.run.path)
    assert (0, 1.0) == RunSummary.read(main.run.path).latest["loss"]


def test_a_run_with_a_large_log_has_none_so_that_its_end_is_not_held_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tracelet.journal.summary._LARGEST_LOGS_BYTES", 100)
    assert not (ended() / SUMMARY_FILE).exists()


def test_nothing_happens_where_there_is_no_run(tmp_path: Path):
    write_summary(tmp_path / "nowhere")
    assert [] == os.listdir(tmp_path)
