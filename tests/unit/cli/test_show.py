from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys

import pytest

import tracelet as library
from tracelet.delivery.cursor import CURSOR_FILE
from tracelet.errors import RejectedError


def line_of(text, start):
    """The words of the line that begins with `start`."""
    (line,) = [line for line in text.splitlines() if line.strip().startswith(start)]
    return line.split()


def test_everything_of_a_run_is_on_one_screen(demo, tracelet):
    lines = tracelet("show", "mlp-large").stdout.splitlines()
    assert len(lines) < 24
    assert "mlp-large  finished" == lines[0]
    text = "\n".join(lines)
    for part in ("p7dqm4we, project digits", "took 23 m 51 s", "team=vision, baseline", "notes @3", "adam", "val/acc"):
        assert part in text


def test_a_series_is_summed_up_in_the_order_in_which_it_was_logged(make_run, tracelet):
    make_run(series={"loss": {10: 5.0, 3: 1.0, 4: 9.0, 2: 4.0}})
    assert ["loss", "4", "5", "4", "1", "9", "▅▁█▄"] == line_of(tracelet("show").stdout, "loss")


def test_nan_and_infinities_are_shown_and_counted(make_run, tracelet, read_json):
    make_run(series={"bad": [1.0, math.nan, math.inf, 3.0], "worse": [math.nan], "low": [-math.inf]})
    output = tracelet("show").stdout
    assert ["bad", "4", "1", "3", "1", "inf", "▁··█", "2", "not", "finite"] == line_of(output, "bad")
    assert ["worse", "1", "NaN", "NaN", "-", "-", "·", "1", "not", "finite"] == line_of(output, "worse")
    bad = {"count": 4, "first": 1.0, "last": 3.0, "min": 1.0, "max": "Infinity", "last_step": 3, "not_finite": 2}
    assert bad == read_json("show")["metrics"]["bad"]


def test_series_of_no_and_one_point_and_system_series_are_shown(make_run, tracelet):
    make_run(series={"none": [], "one": [5.0]}, system={"cpu": [50.0]})
    output = tracelet("show").stdout
    assert ["none", "0", "-", "-", "-", "-"] == line_of(output, "none")
    assert ["one", "1", "5", "5", "5", "5", "▅"] == line_of(output, "one")
    assert output.index("System") < output.index("cpu")


def test_names_are_sorted_as_people_count(make_run, tracelet):
    make_run(params={"layer10": 1, "layer9": 1}, series={"a/10": [1.0], "a/9": [1.0]})
    output = tracelet("show").stdout
    assert output.index("layer9") < output.index("layer10")
    assert output.index("a/9") < output.index("a/10")


def test_long_lists_are_cut_unless_all_is_asked_for(make_run, tracelet):
    make_run(params={f"p{number}": number for number in range(50)})
    assert "… 30 more: --all" in tracelet("show").stdout
    output = tracelet("show", "--all").stdout
    assert "p49" in output
    assert "more" not in output


def test_a_failed_run_shows_the_last_line_of_its_error(demo, tracelet, read_json):
    assert "error    RuntimeError: the loss is NaN\n" in tracelet("show", "cnn").stdout
    assert read_json("show", "cnn")["error"].startswith("Traceback")


def test_files_are_shown_with_their_place_and_a_lost_one_is_marked(tmp_path, tracelet, read_json):
    (tmp_path / "model.bin").write_bytes(b"weights")
    with library.Experiment("files") as experiment:
        for step in range(2):
            experiment.log_histogram("weights", [1.0, 2.0, 3.0], iteration=step)
        experiment.log_artifact(tmp_path / "model.bin")
    output = tracelet("show").stdout
    assert ["weights", "2", "histograms,", "last", "step", "1"] == line_of(output, "weights")
    assert line_of(output, "model.bin")[2].startswith("artifacts/model.bin/")
    (file,) = read_json("show")["files"]
    os.remove(file["value"])
    assert "artifact, the file is gone" in tracelet("show").stdout


def test_delivery_is_told_for_each_backend(tmp_path, tracelet, read_json):
    class Picky(library.BackendPlugin):
        @classmethod
        def get_metadata(cls):
            return library.PluginMetadata("picky", "1", library.PluginType.BACKEND)

        def initialize(self, config): ...
        def start(self): ...
        def stop(self): ...
        def get_status(self):
            return {}

        def handle_metric(self, metric):
            if metric.name == "bad":
                raise RejectedError("no")

    with library.Experiment("delivered", backend=Picky()) as experiment:
        experiment.log_metrics({"good": 1.0, "bad": 2.0})
    delivery = read_json("show")["delivery"]["picky"]
    assert (1, 0) == (delivery["rejected"], delivery["waiting"])
    cursor = {"format": 1, "delivered": 0, "rejected": 0, "positions": {}}
    (experiment.run_dir / "delivery" / "picky" / CURSOR_FILE).write_text(json.dumps(cursor))
    line = line_of(tracelet("show").stdout, "picky")
    assert ["0", "records", "delivered,"] == line[1:4]
    assert "waiting" == line[-1]
    assert int(line[-2]) >= 3


def test_a_killed_run_shows_what_it_had(tmp_path, tracelet):
    code = """
import os, signal, tracelet
experiment = tracelet.Experiment("killed", config={"lr": 0.1}).start()
for step in range(5000):
    experiment.log_metric("loss", float(step), step)
os.kill(os.getpid(), signal.SIGKILL)
"""
    process = subprocess.run([sys.executable, "-c", code], check=False, cwd=tmp_path)
    assert -signal.SIGKILL == process.returncode
    output = tracelet("show", "killed").stdout
    assert output.startswith("killed  killed\n")
    assert ["loss", "5000", "0", "4999", "0", "4999"] == line_of(output, "loss")[:6]


def test_damage_is_reported_and_the_rest_is_shown(make_run, tracelet, read_json):
    path = make_run(params={"lr": 0.1}, series={"loss": [1.0, 2.0, 3.0]})
    (segment,) = path.glob("*.seg")
    data = bytearray(segment.read_bytes())
    data[4096 + 32] ^= 0xFF  # In the second record.
    segment.write_bytes(data)
    output = tracelet("show").stdout
    assert ["loss", "2", "1", "3"] == line_of(output, "loss")[:4]
    assert "Not whole: 1 damaged record" == output.splitlines()[-1]
    assert 1 == read_json("show")["damage"]["records"]


@pytest.mark.parametrize("content", [b"", b"rubbish\n", b"\0" * 5000])
def test_a_run_whose_files_are_rubbish_is_shown_all_the_same(make_run, tracelet, content):
    path = make_run(series={"loss": [1.0]})
    for file in (*path.glob("*.seg"), *path.glob("*.log")):
        file.write_bytes(content)
    assert tracelet("show").stdout.startswith("digits  killed\n")


def test_a_run_goes_by_id_beginning_name_path_or_latest(demo, tracelet):
    references = ["p7dqm4we", "p7", "mlp-large", "tracelet_runs/digits/p7dqm4we"]
    outputs = {tracelet("show", reference).stdout for reference in references}
    assert 1 == len(outputs)
    assert tracelet("show", "latest").stdout == tracelet("show").stdout
    assert tracelet("show").stdout.startswith("cnn  failed")


def test_what_collectors_tell_has_its_own_places(make_run, tracelet):
    make_run(
        params={"lr": 0.1, "env/memory/total_bytes": 3 << 30, "env/git/branch": "main", "env/git/is_dirty": True},
        system={"system/memory/rss_bytes": [1 << 20, 3 << 20], "system/disk/read_bytes_per_s": [1536.0]},
        texts={"console/output": "\n".join(f"line {n}" for n in range(11)), "note": "mine"},
    )
    output = tracelet("show").stdout
    assert ["commit", "branch", "main,", "with", "changes"] == line_of(output, "commit")
    assert ["lr", "0.1"] == line_of(output[output.index("Parameters") : output.index("Environment")], "lr")
    assert ["env/memory/total_bytes", "3", "GiB"] == line_of(output, "env/memory")
    assert ["3", "MiB", "1", "MiB", "3", "MiB"] == line_of(output, "system/memory/rss_bytes")[2:8]
    assert ["1.5", "KiB/s"] == line_of(output, "system/disk")[2:4]
    console = output[output.index("Console") :].splitlines()
    assert "  … 1 more before: --all" == console[1]
    assert [f"  line {n}" for n in range(1, 11)] == console[2:12]
    assert "console/" not in output
    assert "mine" in output[output.index("Texts") : output.index("Console")]
    assert "line 0" in tracelet("show", "--all").stdout


def test_what_a_program_printed_can_give_the_terminal_no_command(make_run, tracelet):
    make_run(texts={"console/stderr": "\x1b[31mred [bold]x[/bold]"})
    output = tracelet("show").stdout
    assert "Console: stderr" in output
    assert r"\x1b[31mred [bold]x[/bold]" in output
