from __future__ import annotations

import math

import pytest


def words(text, start):
    (line,) = [line for line in text.splitlines() if line.startswith(start)]
    return line.split()


def test_parameters_that_differ_are_shown_and_equal_ones_are_not(make_run, tracelet):
    make_run("a", params={"lr": 0.1, "seed": 1, "only": "x", "type": 1})
    make_run("b", params={"lr": 0.2, "seed": 1, "type": "1"})
    output = tracelet("compare", "a", "b").stdout
    assert ["lr", "0.1", "0.2"] == words(output, "lr")
    assert ["only", "x", "-"] == words(output, "only")
    assert "seed" not in output
    assert ["seed", "1", "1"] == words(tracelet("compare", "a", "b", "--all").stdout, "seed")


def test_metrics_are_side_by_side_with_the_difference(make_run, tracelet):
    make_run("a", series={"acc": [0.5, 0.75], "mine": [1.0]})
    make_run("b", series={"acc": [0.25, 1.0, 0.5], "bad": [math.nan]})
    output = tracelet("compare", "a", "b").stdout
    assert ["acc", "last", "0.75", "0.5", "-0.25"] == words(output, "acc")
    assert ["min", "0.5", "0.25", "-0.25"] == output.partition("\nacc")[2].splitlines()[1].split()
    assert ["mine", "last", "1", "-"] == words(output, "mine")
    assert ["bad", "last", "-", "NaN"] == words(output, "bad")


@pytest.mark.parametrize("metric", ["acc", "a metric with quite a long name"])
def test_more_runs_than_fit_come_in_blocks_with_the_first_in_each(make_run, tracelet, metric):
    for number in range(6):
        series = {metric: [-1.2345e-7 * number]}
        make_run(f"run{number}", "name " * 9, params={"p" * 40: f"{number}" * 40}, series=series)
    output = tracelet("compare", *(f"run{number}" for number in range(6))).stdout
    assert all(len(line) <= 80 for line in output.splitlines())
    assert "no room" not in output
    headers = [line.split()[1:] for line in output.splitlines() if line.startswith("RUN")]
    assert {f"run{number}" for number in range(6)} == {run for header in headers for run in header}
    assert {"run0"} == {header[0] for header in headers}


def test_metrics_can_be_chosen(make_run, tracelet):
    for run_id in "ab":
        make_run(run_id, series={"val/acc": [1.0], "val/loss": [1.0], "lr": [1.0]})
    output = tracelet("compare", "a", "b", "--metric", "val/*").stdout
    assert "val/acc" in output
    assert "lr" not in output


def test_runs_that_hold_nothing_can_be_compared(make_run, tracelet):
    make_run("a")
    make_run("b")
    output = tracelet("compare", "a", "b").stdout
    assert "There are no parameters." in output
    assert "There are no metrics." in output


def test_equal_parameters_are_told_to_be_so(make_run, tracelet):
    make_run("a", params={"lr": 1})
    make_run("b", params={"lr": 1})
    assert "No parameter differs." in tracelet("compare", "a", "b").stdout


def test_one_run_is_no_comparison(make_run, tracelet):
    make_run("a")
    assert "two runs or more" in tracelet("compare", "a", "a", code=1).stderr


def test_json_has_a_value_a_run(make_run, read_json):
    make_run("a", params={"lr": 0.1}, series={"acc": [0.5, math.inf]})
    make_run("b", params={"lr": 0.2})
    facts = read_json("compare", "a", "b")
    assert {"lr": [0.1, 0.2]} == facts["params"]
    assert {"acc": {"last": ["Infinity", None], "min": [0.5, None], "max": ["Infinity", None]}} == facts["metrics"]
    assert ["a", "b"] == [run["id"] for run in facts["runs"]]
