from __future__ import annotations

import csv
import io
import os
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.ui.conftest import TOKEN
from tests.ui.demo import HOSTILE, SCRIPT_FILE, experiment
from tracelet.journal.directory import RunDirectory, RunIdentity
from tracelet.journal.load import Run
from tracelet.journal.writer import JournalWriter
from tracelet.ui.server import make_app

# -- the table ---------------------------------------------------------------------------------------------------------


def test_the_newest_run_comes_first_with_its_facts(ask):
    answer = ask("runs")
    assert [row["id"] for row in answer["rows"][:2]] == ["everything", "study5"]
    row = answer["rows"][1]
    assert (row["status"], row["last_step"], row["params"]["lr"], row["tags"]) == (
        "failed",
        399,
        0.01,
        {"team": "vision"},
    )
    assert answer["total"] == answer["all"] == 10


def test_filters_search_sorting_and_pages_go_together(ask):
    answer = ask(
        "runs", filter=["status=finished", "params.lr<=0.003"], search="CNN", sort="metric.val/loss:asc", limit=2
    )
    assert [row["id"] for row in answer["rows"]] == ["study1", "study4"]
    assert answer["total"] == 4
    rest = ask("runs", filter=["status=finished", "params.lr<=0.003"], search="cnn", sort="metric.val/loss", offset=2)
    assert [row["id"] for row in rest["rows"]] == ["study3", "study0"]


def test_what_is_wrong_with_a_filter_is_said(ask):
    assert "is no comparison" in ask("runs", code=400, filter="nonsense")["error"]
    assert "there is no key" in ask("runs", code=400, sort="nonsense")["error"]


def test_a_run_that_cannot_be_read_is_named_and_hides_no_other(ask):
    assert [one["path"] for one in ask("runs")["unreadable"]] == ["digits/broken"]


def test_a_killed_and_a_failed_run_are_shown_as_such(ask):
    assert (ask("run", run="killed")["status"], ask("run", run="killed")["last_step"]) == ("killed", 49)
    assert ask("run", run="study5")["attempts"][0]["status"] == "failed"


def test_a_run_that_is_there_twice_goes_by_its_uuid(tmp_path):
    from tracelet.ui.catalog import Catalog

    for project in ("one", "two"):
        experiment(tmp_path, "same", run_id="same", project=project).start().stop()
    keys = [entry.key for entry in Catalog(tmp_path).entries]
    assert len({*keys}) == 2
    assert [Catalog(tmp_path).find(key).uuid for key in keys] == keys


# -- a run -------------------------------------------------------------------------------------------------------------


def test_damage_is_told(ask):
    assert ask("run", run="damaged")["damage"]["records"] == 1
    assert ask("series", run="damaged", name="train/loss")["series"][0]["total"] == 99


def test_no_run_is_an_answer_too(ask):
    assert "no run 'study9' (did you mean 'study5'?)" in ask("run", code=404, run="study9")["error"]
    assert "missing" in ask("run", code=400)["error"]


def test_records_come_by_type_and_name(ask):
    table = ask("records", run="everything", type="table", name="per class")["records"][0]["value"]
    assert table == {"columns": ["class", "precision"], "rows": [["cat", "0.91"], ["dog", "0.87"]], "total": 2}
    images = ask("records", run="everything", type="image", name="samples")
    assert (images["total"], images["records"][0]["step"]) == (10, 270)
    assert "there is no type" in ask("records", code=400, run="everything", type="nonsense", name="x")["error"]


def test_records_of_superseded_steps_come_on_request(tmp_path):
    with experiment(tmp_path, "rewound", run_id="rewound") as run:
        for step in (1, 2, 3):
            run.log_text("notes", f"first {step}", step)
        run.rewind(1)
        run.log_text("notes", "again 2", 2)
    client = TestClient(make_app(tmp_path, TOKEN), base_url="http://127.0.0.1:6070")
    client.get(f"/?token={TOKEN}")

    def ask(what: str, **query: str) -> Any:
        return client.get(f"/api/{what}", params={"run": "rewound"} | query).json()

    assert [{"type": "text", "name": "notes", "count": 2, "superseded": 2}] == ask("run")["records"]
    live = ask("records", type="text", name="notes")
    assert (2, ["again 2", "first 1"]) == (live["total"], [record["value"] for record in live["records"]])
    assert 4 == ask("records", type="text", name="notes", all="1")["total"]


def test_the_console_is_read_from_its_end(ask):
    page = ask("console", run="everything", name="console/stdout")
    assert (page["total"], page["first"], page["lines"][-1][:9]) == (30, 0, "epoch 29:")
    assert ask("console", run="everything", name="console/stdout", before=2)["lines"][-1][:8] == "epoch 1:"


# -- files -------------------------------------------------------------------------------------------------------------


def test_an_image_is_shown_and_anything_that_can_hold_a_script_is_an_attachment(ask, client):
    image = ask("records", run="everything", type="image", name="samples")["records"][0]["value"]
    shown = client.get("/file", params={"run": "everything", "path": image, "show": 1})
    assert (shown.headers["content-type"], shown.headers["content-disposition"][:6]) == ("image/png", "inline")
    files = [file for made in ask("run", run="hostile")["artifacts"]["made"] for file in made["files"]]
    assert [file["name"] for file in files] == ["evil.html", "evil.svg"]
    for file in files:
        for show in ({}, {"show": 1}):
            answer = client.get("/file", params={"run": "hostile", "path": file["path"], **show})
            assert answer.text == SCRIPT_FILE
            assert answer.headers["content-type"] in ("application/octet-stream", "text/plain; charset=utf-8")
            assert "sandbox" in answer.headers["content-security-policy"]
            assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path",
    [
        "../study0/run.json",
        "artifacts/../../study0/run.json",
        "/etc/passwd",
        "run.json\x00",
        ".",
        "artifacts",
        "a\\..\\b",
        "./run.json",
        "artifacts//x",
        "%2e%2e/study0/run.json",
        "link",
        "linked/run.json",
    ],
)
def test_nothing_outside_of_the_run_is_handed_out(client, runs, path):
    inside = runs / "digits" / "everything"
    for name, target in (("link", "/etc/passwd"), ("linked", "../study0")):
        if not os.path.lexists(inside / name):
            os.symlink(target, inside / name)
    answer = client.get("/file", params={"run": "everything", "path": path})
    assert (answer.status_code, "has no file" in answer.json()["error"]) == (400, True)


def test_static_files_are_no_way_out(client):
    for path in ("/static/../server.py", "/static/%2e%2e/server.py", "/static/..%2fserver.py"):
        assert client.get(path).status_code == 404


def test_the_server_writes_nothing_into_a_run(ask, client, runs):
    def state() -> dict[str, tuple[int, int]]:
        files = (path for path in runs.rglob("*") if not path.is_symlink())
        return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in files}

    before = state()
    for name in ("run", "names", "pulse", "compare"):
        ask(name, run="everything")
    ask("series", run="everything", name="train/loss")
    assert state() == before


# -- curves ------------------------------------------------------------------------------------------------------------


def test_a_curve_is_what_was_logged(ask, runs):
    curve = ask("series", run="study0", name="train/loss")["series"][0]
    series = Run(runs / "digits" / "study0").series("train/loss")
    assert (curve["x"], curve["y"]) == (series.steps.tolist(), series.values.tolist())


def test_what_cannot_be_drawn_is_marked(ask):
    curve = ask("series", run="everything", name="train/loss", points=20)["series"][0]
    assert curve["marks"] == [[120.0, "NaN"], [121.0, "NaN"], [200.0, "inf"]]
    assert (curve["not_finite"], curve["total"]) == (3, 300)


def test_a_zoom_has_every_point_and_one_on_either_side(ask):
    question = {"run": "study0", "name": "train/loss", "points": 50}
    assert len(ask("series", **question)["series"][0]["x"]) < 60
    zoomed = ask("series", **question, **{"from": 100, "to": 110})["series"][0]["x"]
    assert zoomed == list(map(float, range(99, 112)))


def test_any_series_can_be_the_x_axis(ask):
    curve = ask("series", run="study0", name="val/loss", x="epoch")["series"][0]
    assert (curve["x_label"], curve["x"]) == ("epoch", list(map(float, range(20))))
    assert ask("series", run="study0", name="val/loss", x="relative")["series"][0]["x"][0] >= 0
    assert ask("series", run="study0", name="val/loss", x="nonsense")["series"][0]["x_label"] == "step"


def test_a_band_is_mean_and_extremes_over_runs(ask):
    both = ask("series", run=["study0", "study1"], name="val/loss")["series"]
    band = ask("band", run=["study0", "study1"], name="val/loss")
    low, high = zip(*(sorted(pair) for pair in zip(both[0]["y"], both[1]["y"], strict=True)), strict=True)
    assert (band["low"], band["high"]) == (list(low), list(high))
    assert band["mean"] == pytest.approx([(a + b) / 2 for a, b in zip(low, high, strict=True)])


def test_csv_has_all_points_and_no_formula(ask, client):
    text = client.get("/api/csv", params={"run": "study0", "name": "train/loss"}).text
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [float(row["value"]) for row in rows] == ask("series", run="study0", name="train/loss")["series"][0]["y"]
    assert client.get("/api/csv", params={"run": "hostile", "name": HOSTILE}).text.count(HOSTILE) == 20


def test_runs_are_compared(ask):
    answer = ask("compare", run=["study0", "study1"])
    assert answer["params"]["lr"] == [{"value": 0.001}, {"value": 0.003}]
    assert [one["count"] for one in answer["metrics"]["train/loss"]] == [400, 400]


def test_bounds_hold(ask):
    assert "too many" in ask("pulse", code=400, run=[f"run{index}" for index in range(101)])["error"]
    assert "is none" in ask("series", code=400, run="study0", name="train/loss", points="many")["error"]
    assert "is none" in ask("series", code=400, run="study0", name="train/loss", smooth="nan")["error"]
    assert len(ask("series", run="study0", name="train/loss", points=-5)["series"][0]["x"]) < 10


def test_the_ranks_of_a_run_are_not_mixed_and_have_a_band(tmp_path):
    run = RunDirectory(tmp_path / "default" / "ranks", RunIdentity("0" * 32, "ranks", "ranks", "default", 0))
    for rank, value in ((0, 1.0), (1, 3.0)):
        writer = JournalWriter(run, role="attached" if rank else "main", rank=rank)
        writer.open()
        defined = writer.define("loss")
        assert defined is not None
        for step in range(3):
            writer.append(defined.key, step, value, step)
        writer.close()
    client = TestClient(make_app(tmp_path, TOKEN), base_url="http://127.0.0.1:6070")
    client.get(f"/?token={TOKEN}")
    question = {"run": "ranks", "name": "loss"}
    assert client.get("/api/series", params=question).json()["series"][0]["y"] == [1, 1, 1]
    band = client.get("/api/band", params={**question, "ranks": 1}).json()
    assert (band["low"], band["mean"], band["high"]) == ([1, 1, 1], [2, 2, 2], [3, 3, 3])


def test_artifacts_are_listed_with_who_used_them(tmp_path):
    from tracelet.ui.details import run_facts

    (tmp_path / "model.bin").write_bytes(b"weights")
    with experiment(tmp_path, "maker", run_id="maker") as maker:
        maker.log_artifact(tmp_path / "model.bin", "model", "model", aliases=["best"])
        maker.flush(10)
        with experiment(tmp_path, "user", run_id="user") as user:
            user.use_artifact("model:best", run=maker.run_dir)
    made = run_facts(Run(maker.run_dir))["artifacts"]["made"]
    assert [(one["name"], one["version"], one["type"], one["used_by"]) for one in made] == [
        ("model", "v0", "model", ["user"])
    ]
    assert {"best", "latest"} == {*made[0]["aliases"]}
    assert [used["run_id"] for used in run_facts(Run(user.run_dir))["artifacts"]["used"]] == ["maker"]
