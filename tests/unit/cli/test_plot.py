from __future__ import annotations

import math
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from tracelet.cli.plot import nice_ticks
from tracelet.journal.curves import Curve, thinned


def test_the_main_metrics_are_drawn_within_80_columns(demo, tracelet):
    output = tracelet("plot", "mlp-small").stdout
    lines = output.splitlines()
    assert "val/acc" == lines[0]
    assert "val/loss" in lines
    assert all(len(line) <= 80 for line in lines)
    assert set("⠉⠒⠤⣀") & set(output)


def test_metrics_of_one_kind_share_a_chart(demo, tracelet):
    lines = tracelet("plot", "mlp-small", "*/loss", "val/acc").stdout.splitlines()
    assert "loss" == lines[0]
    assert {"  * train/loss", "  o val/loss"} <= set(lines)  # What tells them apart without colours.
    assert any("*" in line and "o" in line and "│" in line for line in lines)
    assert 1 == lines.count("val/acc")


def test_runs_are_laid_over_each_other(demo, tracelet, read_json):
    lines = tracelet("plot", "mlp-small", "val/acc", "--with", "mlp-large").stdout.splitlines()
    assert {"  * mlp-small (k3v9x2ab)", "  o mlp-large (p7dqm4we)"} <= set(lines)
    curves = read_json("plot", "mlp-small", "val/acc", "--with", "mlp-large")["curves"]
    assert ["mlp-small (k3v9x2ab)", "mlp-large (p7dqm4we)"] == [curve["run"] for curve in curves]


def test_nan_infinities_and_steps_that_go_back_are_drawn_around(make_run, tracelet, read_json):
    make_run(series={"loss": {5: 1.0, 6: math.nan, 2: math.inf, 3: 2.0, 4: -math.inf}})
    assert "(3 points not drawn)" in tracelet("plot", "latest", "loss").stdout
    (curve,) = read_json("plot", "latest", "loss")["curves"]
    assert [5.0, 6.0, 2.0, 3.0, 4.0] == curve["x"]
    assert [1.0, "NaN", "Infinity", 2.0, "-Infinity"] == curve["y"]


@pytest.mark.parametrize(
    "values", [[], [math.nan, math.nan], [5.0], [2.0] * 3, [1e300, -1e300], [1e-300, 2e-300], [0.0, 5e-324]]
)
def test_any_series_can_be_drawn(make_run, tracelet, values):
    make_run(series={"odd": values})
    output = tracelet("plot", "latest", "odd").stdout
    drawn = any(map(math.isfinite, values))
    assert drawn == ("┤" in output)
    assert drawn != ("(no finite value)" in output)


@pytest.mark.parametrize(("axis", "label"), [("time", "time (s)"), ("epoch", "epoch"), ("step", "step")])
def test_the_x_axis_can_be_chosen(make_run, read_json, axis, label):
    make_run(series={"acc": {10: 0.5, 20: 0.6}, "epoch": {10: 1.0, 15: 2.0, 20: 3.0}})
    (curve,) = read_json("plot", "latest", "acc", "--x", axis)["curves"]
    expected = {"time": [0.0, 1.0], "epoch": [1.0, 3.0], "step": [10.0, 20.0]}[axis]
    assert (label, expected) == (curve["x_label"], curve["x"])


def test_the_x_axis_is_the_defined_one(make_run, tracelet, read_json):
    make_run(series={"acc": {4: 0.1, 10: 0.5}, "samples": {10: 320.0}}, axes={"acc": "samples"})
    (curve,) = read_json("plot", "latest", "acc")["curves"]
    assert ("samples", ["NaN", 320.0]) == (curve["x_label"], curve["x"])
    assert "x: samples" in tracelet("plot", "latest", "acc").stdout


def test_a_run_without_metrics_says_so(make_run, tracelet):
    make_run()
    assert "The run run1 has no metrics." in tracelet("plot").stdout


def test_an_unknown_metric_names_the_known_ones(make_run, tracelet):
    make_run(series={"val/loss": [1.0]})
    error = tracelet("plot", "latest", "val/los", code=1).stderr
    assert "Error: no metric answers to 'val/los' (did you mean 'val/loss'?); there are: val/loss\n" == error


def test_a_name_with_pattern_characters_means_itself(make_run, read_json):
    make_run(series={"a[0]": [1.0], "a0": [2.0]})
    assert ["a[0]"] == [curve["name"] for curve in read_json("plot", "latest", "a[0]")["curves"]]


def test_a_png_is_a_picture(demo, tmp_path, tracelet):
    output = tracelet("plot", "mlp-small", "*/loss", "-o", "loss.png").stdout
    assert "2 curves in loss.png\n" == output
    with Image.open(tmp_path / "loss.png") as image:
        assert "PNG" == image.format
        assert len(image.convert("RGB").getcolors(1 << 20)) > 10
    assert ["loss.png"] == [file.name for file in tmp_path.glob("*loss*")]


def test_hostile_names_are_only_text_in_a_file(make_run, tmp_path, tracelet):
    make_run(name="$\\frac{$ <script>\x1b😀", series={"_<b>$x_{$😀": [1.0, math.nan, 3.0], "empty": []})
    for file in ("chart.svg", "chart.png"):
        tracelet("plot", "latest", "*", "-o", file)
    root = ElementTree.parse(tmp_path / "chart.svg").getroot()
    assert root.tag.endswith("svg")
    assert not [element for element in root.iter() if element.tag.endswith("script")]


@pytest.mark.parametrize(("file", "code"), [("chart.bmp", 2), ("missing/chart.png", 1)])
def test_a_file_that_cannot_be_written_is_an_error(demo, tracelet, file, code):
    assert file in tracelet("plot", "mlp-small", "-o", file, code=code).stderr


def test_a_file_holds_50_charts_at_most(make_run, tracelet, tmp_path):
    make_run(series={f"metric{number}": [1.0] for number in range(51)})
    assert "51 charts are too many" in tracelet("plot", "latest", "*", "-o", "all.svg", code=1).stderr


def test_thinning_keeps_peaks_and_the_order():
    values = np.zeros(100_000)
    values[[12_345, 67_890]] = 9.0, -9.0
    values[50_000:60_000] = np.nan
    curve = Curve("run", "name", "step", np.arange(100_000.0), values)
    x, y = thinned(curve, 80)
    assert len(x) <= 160
    assert {9.0, -9.0} <= set(y)
    assert np.isnan(y).any()
    assert np.all(np.diff(x[~np.isnan(x)]) > 0)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.0, 1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (19.0, 199.0, [50.0, 100.0, 150.0]),
        (3.0, 3.0, [3.0]),
        (-1e308, 1.5e308, [-1e308, 1.5e308]),
    ],
)
def test_ticks_are_round(low, high, ticks):
    assert ticks == pytest.approx(nice_ticks(low, high, 5))
