from __future__ import annotations

import pytest

from tracelet.journal.load import Run


def shown(text):
    """The first words of the table's rows."""
    return [line.split()[0] for line in text.splitlines()[1:]]


def test_the_newest_run_comes_first(make_run, tracelet):
    make_run("old", created_s=1000)
    make_run("new", created_s=2000)
    assert ["new", "old"] == shown(tracelet("runs").stdout)


def test_a_row_says_how_the_run_went(make_run, tracelet, monkeypatch):
    make_run("a", "digits", series={"val/acc": {7: 0.91234}}, tags={"team": "vision", "base": ""}, duration_s=125)
    monkeypatch.setattr("time.time", lambda: 1_790_000_000 + 300)
    header, row = tracelet("runs").stdout.splitlines()
    assert ["ID", "NAME", "STATUS", "STARTED", "TIME", "STEP", "val/acc", "TAGS"] == header.split()
    assert "a digits finished 5 min ago 2 m 05 s 7 0.9123 team=vision base" == " ".join(row.split())


def test_the_status_is_told_of_runs_that_never_said_it(make_run, read_json):
    make_run("killed", status=None)
    make_run("running", status=None, closed=False)
    make_run("failed", status="failed", error="boom")
    statuses = {run["id"]: (run["status"], run["error"]) for run in read_json("runs")}
    assert {"killed": ("killed", None), "running": ("running", None), "failed": ("failed", "boom")} == statuses


def test_filters_must_all_hold(make_run, tracelet):
    make_run("a", params={"lr": 0.1}, series={"acc": [0.95]})
    make_run("b", params={"lr": 0.1}, series={"acc": [0.5]})
    make_run("c", params={"lr": 0.001}, series={"acc": [0.99]})
    assert ["a"] == shown(tracelet("runs", "--filter", "params.lr>0.01", "--filter", "metric.acc>=0.9").stdout)


def test_what_is_filtered_and_sorted_by_is_shown(make_run, tracelet):
    make_run("a", params={"lr": 0.1}, series={"acc": [0.95], "loss": [1.0]})
    header = tracelet("runs", "--filter", "params.lr>0", "--sort", "metric.loss").stdout.splitlines()[0]
    assert ["loss", "lr", "acc"] == header.split()[6:]


def test_runs_are_sorted_and_those_without_a_value_come_last(make_run, tracelet):
    for run_id, values in {"a": [0.5], "b": [0.9], "none": [], "nan": [float("nan")], "c": [0.7]}.items():
        make_run(run_id, series={"acc": values})
    assert ["a", "c", "b"] == shown(tracelet("runs", "--sort", "metric.acc").stdout)[:3]
    assert ["b", "c", "a"] == shown(tracelet("runs", "--sort", "metric.acc:desc").stdout)[:3]


def test_only_the_shown_runs_are_read_to_the_end(make_run, tracelet, monkeypatch):
    for number in range(5):
        make_run(f"run{number}", created_s=number, series={"loss": [1.0]})
    read = []
    latest = Run.latest
    monkeypatch.setattr(Run, "latest", lambda run: read.append(run.id) or latest(run))
    output = tracelet("runs", "--limit", "2").stdout
    assert {"run4", "run3"} == set(read)
    assert "2 of 5 runs; --limit 0 shows all" in output


def test_limit_0_shows_all(make_run, tracelet):
    for number in range(25):
        make_run(f"run{number}")
    assert 25 == len(shown(tracelet("runs", "--limit", "0").stdout))


def test_the_metrics_shown_can_be_chosen(make_run, tracelet):
    make_run(series={"val/acc": [0.9], "odd": [5.0]})
    header = tracelet("runs", "--metric", "odd").stdout.splitlines()[0]
    assert header.endswith("odd")
    assert "val/acc" not in header


def test_columns_that_do_not_fit_are_named_and_no_line_is_broken(make_run, tracelet):
    series = {f"val/a_metric_with_a_long_name_{number}": [1.0] for number in range(3)}
    make_run("a" * 30, "name " * 30, series=series, tags={"key": "value" * 10})
    lines = tracelet("runs").stdout.splitlines()
    assert 3 == len(lines)
    assert all(len(line) <= 80 for line in lines)
    assert lines[2].startswith("(no room for: val/a_metric_with_a_long_name_")


def test_one_project_can_be_chosen_and_several_are_told_apart(make_run, tracelet):
    make_run("a", project="one")
    make_run("b", project="two")
    assert "PROJECT" in tracelet("runs").stdout
    output = tracelet("runs", "--project", "one").stdout
    assert ["a"] == shown(output)
    assert "PROJECT" not in output


def test_an_empty_directory_says_what_to_do(tracelet, read_json):
    output = tracelet("runs").stdout
    assert "There are no runs in tracelet_runs." in output
    assert "log_metric" in output
    assert "TRACELET_DIR" in output
    assert [] == read_json("runs")


def test_a_filter_that_nothing_answers_to_says_so(make_run, tracelet):
    make_run()
    assert "None of 1 run answers to the filter." in tracelet("runs", "--filter", "status=failed").stdout


def test_a_run_that_cannot_be_read_is_left_out_with_a_warning(make_run, tracelet):
    make_run("good")
    (make_run("bad") / "run.json").write_text("{")
    result = tracelet("runs")
    assert ["good"] == shown(result.stdout)
    assert result.stderr.startswith("Warning: a run is left out:")


def test_json_has_what_the_table_has(make_run, read_json):
    make_run("a", params={"lr": float("nan")}, tags={"t": "x"}, series={"loss": {0: 1.0, 4: float("inf")}})
    (run,) = read_json("runs")
    assert {"loss": {"step": 4, "value": "Infinity"}} == run["metrics"]
    assert ({"lr": "NaN"}, {"t": "x"}, 4, 65.0) == (run["params"], run["tags"], run["last_step"], run["duration_s"])


@pytest.mark.parametrize("option", [("--filter", "nonsense"), ("--sort", "stauts"), ("--filter", "step>soon")])
def test_a_wrong_expression_is_a_usage_error(make_run, tracelet, option):
    assert f"Invalid value for {option[0]}: " in tracelet("runs", *option, code=2).stderr
