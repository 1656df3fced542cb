"""A run that went back to an earlier step is shown by its live line; the rest is there on request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tracelet import Experiment, MetricType, load_run
from tracelet.core.records import STATUS_NAME


@pytest.fixture(autouse=True)
def resumed() -> None:
    """A run of two attempts: steps 1 to 5, the last two with the value 0.5, then steps 4 to 6 with the value 2.0."""
    state: Any = None
    for first, last, value in ((1, 5, 1.0), (4, 6, 2.0)):
        with Experiment("digits", resume=state, run_id=None if state else "r", collectors=()) as experiment:
            state = experiment.resume_state(3)
            for step in range(first, last + 1):
                experiment.log_metric("loss", 0.5 if first == 1 and step > 3 else value, step)
                experiment.log_text("notes", f"attempt {first}, step {step}", step)
            experiment.log_table("odd", iteration=last, columns=["of"], rows=[[first]])
            experiment.stop("failed" if first == 1 else "finished")


def test_show_tells_the_attempts_and_the_live_line(tracelet: Any, read_json: Any):
    told = read_json("show", "r")
    assert [("failed", None), ("finished", 3)] == [(one["status"], one["rewound_to"]) for one in told["attempts"]]
    assert (6, 1.0, 2.0) == tuple(told["metrics"]["loss"][key] for key in ("count", "min", "last"))
    run = load_run("r")
    last = next(r for r in reversed(run.records(MetricType.CUSTOM)) if r.name == STATUS_NAME)
    assert run.duration_s > (last.metadata or {})["duration_s"]  # It counts both attempts.
    assert "attempts 2: failed, finished (from step 4)" in tracelet("show", "r").stdout


def test_show_has_texts_and_tables_of_the_live_line_and_the_rest_on_request(tracelet: Any, read_json: Any):
    live = [*(f"attempt 1, step {step}" for step in (1, 2, 3)), *(f"attempt 4, step {step}" for step in (4, 5, 6))]
    told = read_json("show", "r")
    assert live == [text["value"] for text in told["texts"]]
    assert [6] == [table["step"] for table in told["others"]]
    everything = read_json("show", "r", "--all-attempts")
    assert (8, 8, 2) == (everything["metrics"]["loss"]["count"], len(everything["texts"]), len(everything["others"]))
    assert "attempt 1, step 5" not in tracelet("show", "r").stdout
    shown = tracelet("show", "r", "--all-attempts").stdout
    assert "attempt 1, step 5" in shown
    assert "2 tables, last step 6" in shown


def test_compare_counts_what_holds(read_json: Any):
    with Experiment("other", run_id="s", collectors=()) as experiment:
        experiment.log_metric("loss", 3.0, 1)
    assert [1.0, 3.0] == read_json("compare", "r", "s")["metrics"]["loss"]["min"]


def test_plot_draws_each_attempt_on_request(tracelet: Any, read_json: Any):
    assert [[1, 2, 3, 4, 5, 6]] == [curve["x"] for curve in read_json("plot", "r", "loss")["curves"]]
    curves = read_json("plot", "r", "loss", "--all-attempts")["curves"]
    assert [[1, 2, 3, 4, 5], [4, 5, 6]] == [curve["x"] for curve in curves]
    assert "attempt 2" in tracelet("plot", "r", "loss", "--all-attempts").stdout


def test_export_writes_what_holds_and_all_with_the_attempt_on_request(tracelet: Any, read_json: Any):
    def rows(*arguments: str) -> list[str]:
        lines = tracelet("export", "r", "--metric", "loss", *arguments).stdout.splitlines()
        return [",".join(line.split(",")[1:3] + line.split(",")[4:]) for line in lines[1:]]

    assert ["1,1.0", "2,1.0", "3,1.0", "4,2.0", "5,2.0", "6,2.0"] == rows()
    superseded = ["4,0.5,1", "5,0.5,1"]
    first, second = ([f"{row},1" for row in rows()[:3]], [f"{row},2" for row in rows()[3:]])
    assert [*first, *superseded, *second] == rows("--all-attempts")
    told, everything = read_json("export", "r"), read_json("export", "r", "--all-attempts")
    assert [1, 2, 3, 4, 5, 6] == told["series"]["loss"]["steps"]
    assert {"attempts"} == everything["series"]["loss"].keys() - told["series"]["loss"].keys()
    assert [1] * 5 + [2] * 3 == everything["series"]["loss"]["attempts"]
    assert [1, 2, 3, 4, 5, 4, 5, 6] == everything["series"]["loss"]["steps"]
    assert (7, 10) == (len(told["records"]), len(everything["records"]))


def test_parquet_has_a_column_for_the_attempt(tracelet: Any):
    parquet = pytest.importorskip("pyarrow.parquet")
    tracelet("export", "r", "--metric", "loss", "--all-attempts", "-o", "r.parquet")
    table = parquet.read_table(Path("r.parquet"))
    assert ["name", "step", "value", "time_s", "attempt"] == table.column_names
    assert [1] * 5 + [2] * 3 == table.column("attempt").to_pylist()
