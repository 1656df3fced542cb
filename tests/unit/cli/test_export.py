from __future__ import annotations

import csv
import io
import json
import math
import os

import numpy as np
import pyarrow.parquet
import pytest

import tracelet as library

SERIES = {
    "loss": {0: 0.1 + 0.2, 5: math.nan, 3: math.inf, 2**62: -math.inf, -1: 5e-324},
    "=1+1": [1.7976931348623157e308],
    'na"me,\nwith all': [1.0],
    "empty": [],
}


def same(expected, actual):
    """The same numbers, NaN included."""
    return np.array_equal(np.array(expected, np.float64), np.array(actual, np.float64), equal_nan=True)


def numbers(texts):
    return [float(text) for text in texts]


@pytest.fixture
def points(make_run):
    """What was logged: steps and values of each series."""
    make_run(series=SERIES)
    pairs = {name: values if isinstance(values, dict) else dict(enumerate(values)) for name, values in SERIES.items()}
    return {name: (list(values), list(values.values())) for name, values in pairs.items()}


def test_csv_comes_back_as_it_was(points, tracelet):
    rows = list(csv.DictReader(io.StringIO(tracelet("export").stdout)))
    for name, (steps, values) in points.items():
        mine = [row for row in rows if row["name"].removeprefix("'") == name]
        assert steps == [int(row["step"]) for row in mine]
        assert same(values, numbers(row["value"] for row in mine))
        assert same([1_790_000_000 + second for second in range(len(steps))], numbers(row["time_s"] for row in mine))


def test_csv_has_no_cell_that_a_spreadsheet_would_run(make_run, tracelet):
    make_run(series={start + "cmd": [1.0] for start in ("=", "+", "-", "@", "\t", "\r")})
    names = [row[0] for row in csv.reader(io.StringIO(tracelet("export").stdout, newline=""))][1:]
    assert 6 == len(names)
    assert all(name.startswith("'") for name in names)


def test_json_comes_back_as_it_was(points, read_json):
    run = read_json("export")
    assert points.keys() == run["series"].keys()
    for name, (steps, values) in points.items():
        series = run["series"][name]
        assert steps == series["steps"]
        assert same(values, numbers(series["values"]))
        assert same([1_790_000_000 + second for second in range(len(steps))], series["times_s"])


def test_parquet_comes_back_as_it_was(points, tmp_path, tracelet):
    tracelet("export", "-o", "run.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "run.parquet")
    assert ["name", "step", "value", "time_s"] == table.column_names
    columns = table.to_pydict()
    for name, (steps, values) in points.items():
        mine = [row for row, found in enumerate(columns["name"]) if found == name]
        assert steps == [columns["step"][row] for row in mine]
        assert same(values, [columns["value"][row] for row in mine])


def test_a_long_series_is_whole(make_run, tracelet, read_json, monkeypatch):
    monkeypatch.setattr("tracelet.cli.export._CHUNK", 7)
    make_run(series={"long": [number / 3 for number in range(100)]})
    assert same([number / 3 for number in range(100)], read_json("export")["series"]["long"]["values"])
    assert 101 == len(tracelet("export").stdout.splitlines())


def test_json_has_everything_else_too(tmp_path, read_json):
    (tmp_path / "file.txt").write_text("content")
    with library.Experiment("all", config={"lr": 0.1}, tags={"k": "v"}) as experiment:
        experiment.log_text("note", "hello", iteration=2)
        experiment.log_artifact(tmp_path / "file.txt", type="data")
        experiment.log_table("t", columns=["a"], rows=[[1.5]])
        experiment.define_metric("acc", step="epoch")
    run = read_json("export")
    assert ({"lr": 0.1}, {"k": "v"}, {"acc": "epoch"}) == (run["params"], run["tags"], run["step_metrics"])
    records = {record["name"]: record for record in run["records"]}
    assert ("hello", 2) == (records["note"]["value"], records["note"]["step"])
    assert [[1.5]] == records["t"]["value"]["rows"]
    assert "content" == (experiment.run_dir / records["file.txt"]["value"]).read_text()
    assert not os.path.isabs(records["file.txt"]["value"])


def test_metrics_can_be_chosen(points, read_json):
    assert ["loss"] == list(read_json("export", "--metric", "lo*")["series"])


@pytest.mark.parametrize("file", ["run.csv", "run.json", "run.parquet"])
def test_the_ending_of_the_file_says_the_format(points, tmp_path, tracelet, file):
    assert "" == tracelet("export", "-o", file).stdout
    start = {"run.csv": b"name,", "run.json": b'{"id"', "run.parquet": b"PAR1"}[file]
    assert (tmp_path / file).read_bytes().startswith(start)
    assert [file] == [found.name for found in tmp_path.iterdir() if "run." in found.name]


def test_json_in_a_file_is_strict(points, tmp_path, tracelet):
    tracelet("export", "--json", "-o", "out.txt")
    assert "loss" in json.loads((tmp_path / "out.txt").read_text(), parse_constant=pytest.fail)["series"]


def test_an_export_that_fails_leaves_the_old_file(points, tmp_path, tracelet, monkeypatch):
    (tmp_path / "run.csv").write_text("old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tracelet.cli.export._write_csv", fail)
    assert "'run.csv' can't be written: No space left" in tracelet("export", "-o", "run.csv", code=1).stderr
    assert "old" == (tmp_path / "run.csv").read_text()
    assert ["run.csv"] == [found.name for found in tmp_path.iterdir() if "run." in found.name]


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["-o", "run.xlsx"], 2, "is run.xlsx csv, json or parquet?"),
        (["--format", "csv", "--json"], 2, "contradicts"),
        (["--format", "parquet"], 1, "-o FILE.parquet"),
        (["-o", "missing/run.csv"], 1, "No such file or directory"),
    ],
)
def test_what_cannot_be_exported_is_refused(points, tracelet, arguments, code, complaint):
    assert complaint in tracelet("export", "latest", *arguments, code=code).stderr


def test_names_that_no_encoding_holds_are_exported(make_run, tmp_path, tracelet, read_json):
    make_run(series={"lone \ud800": [1.0]})
    assert ["lone \ud800"] == list(read_json("export")["series"])
    for file in ("run.csv", "run.parquet"):
        tracelet("export", "-o", file)
    assert "lone \\ud800,0,1.0" in (tmp_path / "run.csv").read_text()
    assert ["lone \\ud800"] == pyarrow.parquet.read_table(tmp_path / "run.parquet").to_pydict()["name"]
