"""Files in MLflow, read back by MLflow's own client: on a disk without a server, and through a server."""

# ruff: noqa: F811  The fixtures are imported.

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient
from PIL import Image
from typer.testing import CliRunner

from tests.backends import wandb_files
from tests.backends.mlflow_server import MlflowServer, mlflow_on_sqlite  # noqa: F401 - imported fixtures
from tests.backends.mlflow_support import QUIET, TIME_MS, TIME_S, Remote, database, file, make_remote, scalar  # noqa: F401 - imported fixtures
from tracelet.backends.mlflow_backend import MLflowBackend
from tracelet.cli import make_app
from tracelet.core.changes import ChangeKind
from tracelet.core.records import MetricData, MetricType
from tracelet.delivery.retry import Verdict, judge
from tracelet.errors import PartialDeliveryError

pytestmark = QUIET


@pytest.fixture(params=["database", "mlflow_on_sqlite"])
def remote(request: pytest.FixtureRequest, make_remote: Callable[[str], Remote]) -> Remote:
    place = request.getfixturevalue(request.param)
    return make_remote(place.uri if isinstance(place, MlflowServer) else place)


def picture(path: Path, kind: str = "PNG") -> Path:
    Image.new("RGB", (600, 300), "red").save(path, kind)
    return path


def value(name: str, what: object, kind: MetricType) -> MetricData:
    return MetricData(name, what, kind, 3, TIME_S)


def test_image_stands_in_the_grid_under_its_name_and_step(remote: Remote, tmp_path: Path):
    record = file("val/größe", picture(tmp_path / "a.png"), MetricType.IMAGE, caption="a <b>")
    remote.deliver(record, record)
    small, full, caption = remote.artifacts()[1], remote.artifacts()[2], remote.artifacts()[0]
    # As MLflow's pages take it apart; they read `~` as a slash.
    pattern = rf"images/val~gr_x00F6__x00DF_e\+step\+3\+timestamp\+{TIME_MS}\+[0-9a-f]+"
    assert re.fullmatch(rf"{pattern}\.png", full)
    assert small == full.replace(".png", "+compressed.webp")
    assert (tmp_path / "a.png").read_bytes() == remote.read(full)
    assert Image.open(io.BytesIO(remote.read(small))).size == (256, 128)
    assert remote.run.data.tags["mlflow.loggedImages"] == "True"
    assert (f"image_files/val/größe/00000003_{TIME_MS}.caption.txt", b"a <b>") == (caption, remote.read(caption))


def test_image_of_another_format_is_kept_and_converted_for_the_grid(remote: Remote, tmp_path: Path):
    source = picture(tmp_path / "a.jpg", "JPEG")
    remote.deliver(file("a", source, MetricType.IMAGE))
    original, small, full = remote.artifacts()
    assert (f"image_files/a/00000003_{TIME_MS}.jpg", source.read_bytes()) == (original, remote.read(original))
    assert (small[-5:], Image.open(io.BytesIO(remote.read(full))).size) == (".webp", (600, 300))


def test_image_that_can_not_be_read_is_kept_as_a_file(remote: Remote, tmp_path: Path):
    (tmp_path / "a.svg").write_text("<svg/>")
    remote.deliver(file("a", tmp_path / "a.svg", MetricType.IMAGE))
    assert [f"image_files/a/00000003_{TIME_MS}.svg"] == list(remote.artifacts())


def test_table_is_one_that_mlflow_loads_and_shows(remote: Remote):
    table = {"columns": ["question", "score"], "rows": [["why", 0.5], ["how", None]]}
    remote.deliver(value("qa", table, MetricType.TABLE), scalar("a", 1.0), value("qa", table, MetricType.TABLE))
    run, path = remote.run, f"tables/qa/00000003_{TIME_MS}.json"
    assert json.loads(run.data.tags["mlflow.loggedArtifacts"]) == [{"path": path, "type": "table"}]
    loaded = remote.client.load_table(run.info.experiment_id, path, [run.info.run_id])
    assert (["why", "how"], 0.5) == (list(loaded["question"]), loaded["score"][0])
    remote.deliver(value("qa2", table, MetricType.TABLE))
    assert len(json.loads(remote.run.data.tags["mlflow.loggedArtifacts"])) == 2


def test_list_of_tables_ends_where_a_tag_ends(remote: Remote):
    table = {"columns": ["a"], "rows": [[1]]}
    records = [MetricData("t", table, MetricType.TABLE, step, TIME_S) for step in range(150)]
    remote.deliver(*records)
    listed = json.loads(remote.run.data.tags["mlflow.loggedArtifacts"])
    assert listed[0]["path"] == f"tables/t/00000000_{TIME_MS}.json"
    assert 100 < len(listed) < len(remote.artifacts()) == 150


def test_text_histogram_and_media_are_files_by_step_and_time(remote: Remote, tmp_path: Path):
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    (tmp_path / "b.npy").write_bytes(b"")
    histogram = {"edges": [0.0, 1.0], "counts": [float("nan")], "nan": 0, "inf": 0}
    records = [
        value("note", "größer\r\n2", MetricType.TEXT),
        MetricData("note", "again", MetricType.TEXT, 3, TIME_S + 1),
        value("weights", histogram, MetricType.HISTOGRAM),
        file("sound", tmp_path / "a.wav", MetricType.AUDIO),
        file("empty", tmp_path / "b.npy", MetricType.TENSOR, None),
    ]
    remote.deliver(*records)
    stem = f"00000003_{TIME_MS}"
    assert {path: remote.read(path) for path in remote.artifacts()} == {
        f"texts/note/{stem}.txt": "größer\r\n2".encode(),
        f"texts/note/00000003_{TIME_MS + 1000}.txt": b"again",
        f"histograms/weights/{stem}.json": b'{"edges": [0.0, 1.0], "counts": ["nan"], "nan": 0, "inf": 0}',
        f"audio/sound/{stem}.wav": b"RIFF",
        f"tensors/empty/{TIME_MS}.npy": b"",
    }
    (change,) = MLflowBackend().plan(records[2])
    assert (ChangeKind.CHANGED, "their texts") == (change.kind, change.becomes)


def test_artifacts_keep_their_names_and_directories_their_order(remote: Remote, tmp_path: Path):
    folder = tmp_path / "model"
    (folder / "layers").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "layers" / "0#weights%.bin").write_bytes(b"\x00")
    checkpoint = tmp_path / "checkpoint"
    checkpoint.write_bytes(b"1")
    remote.deliver(
        file("model", folder, MetricType.ARTIFACT, None, type="model"),
        file("epoch=3-step=10.ckpt", checkpoint, MetricType.ARTIFACT, None),
        file("../日本/a", checkpoint, MetricType.ARTIFACT, None),
        file("x" * 400, checkpoint, MetricType.ARTIFACT, None),
    )
    *short, long = remote.artifacts()
    expected = [
        "_x002E_./日本/a",
        "epoch=3-step=10.ckpt",
        "model/config.json",
        "model/layers/0_x0023_weights_x0025_.bin",
    ]
    assert (expected, 200) == (sorted(short), len(long))
    assert remote.read("epoch=3-step=10.ckpt") == b"1"
    tags = remote.run.data.tags
    assert ("model", "../日本/a") == (tags["tracelet.artifact_type.model"], tags["tracelet.name.../日本/a"])


def test_artifact_that_comes_again_replaces_itself(remote: Remote, tmp_path: Path):
    path = tmp_path / "a"
    for text in ("first", "second"):
        path.write_text(text)
        remote.deliver(file("a", path, MetricType.ARTIFACT))
    assert (["a"], b"second") == (list(remote.artifacts()), remote.read("a"))


@pytest.mark.parametrize("names", [("a", "a/b"), ("a/b/c", "a/b"), ("a", "a/b/c")])
def test_file_that_has_no_place_is_rejected_and_holds_up_nothing(
    remote: Remote, tmp_path: Path, names: tuple[str, str]
):
    (tmp_path / "f").write_text("f")
    backend = remote.start()
    first, second = (file(name, tmp_path / "f", MetricType.ARTIFACT) for name in names)
    with pytest.raises(PartialDeliveryError) as caught:
        backend.handle_batch([first, scalar("a", 1.0), second, scalar("a", 2.0, 1)])
    reason = caught.value.__cause__
    assert reason is not None
    assert (2, Verdict.REJECT) == (caught.value.delivered, judge(reason))
    assert "a" in str(reason)
    backend.handle_batch([scalar("a", 2.0, 1)])
    assert remote.points("a") == [(0, 1.0), (1, 2.0)]


def test_file_that_is_gone_is_rejected(remote: Remote, tmp_path: Path):
    with pytest.raises(PartialDeliveryError) as caught:
        remote.start().handle_batch([scalar("a", 1.0), file("gone", tmp_path / "gone", MetricType.AUDIO)])
    reason = caught.value.__cause__
    assert reason is not None
    assert (1, Verdict.REJECT) == (caught.value.delivered, judge(reason))
    assert "no longer in the run directory" in str(reason)


def test_runs_of_a_server_are_imported_and_passed_straight_on(mlflow_on_sqlite, tmp_path, monkeypatch):
    client = MlflowClient(mlflow_on_sqlite.uri)
    for name, value in {"WANDB_MODE": "offline", "TRACELET_PLUGINS__MLFLOW__TRACKING_URI": client.tracking_uri}.items():
        monkeypatch.setenv(name, value)
    source = client.create_experiment("imported from")
    for name, status in {"whole": "FINISHED", "broken": "FAILED"}.items():
        run_id = client.create_run(source, run_name=name).info.run_id
        client.log_param(run_id, "lr", 0.1)
        client.log_metric(run_id, "loss", 1.5, timestamp=TIME_MS, step=0)
        client.log_metric(run_id, "loss", 0.5, timestamp=TIME_MS + 1000, step=7)
        client.log_text(run_id, f"of {name}", "d/f.txt")
        client.set_terminated(run_id, status)
    asked = ["mlflow", client.tracking_uri, "--experiment", "imported from", "--project", "passed on"]
    done = CliRunner().invoke(make_app(), ["import", *asked, "--to", "mlflow,wandb", "--json"], catch_exceptions=False)
    assert (done.exit_code, done.stderr) == (0, "")
    facts = json.loads(done.stdout)
    assert [(run["points"], run["omitted"]) for run in facts["runs"]] == [(2, [])] * 2
    assert [(sent["backend"], sent["state"]) for sent in facts["deliveries"]] == [
        ("mlflow", "complete"),
        ("wandb", "complete"),
    ] * 2
    there = client.get_experiment_by_name("passed on")
    found = {run.info.run_name: run for run in client.search_runs([there.experiment_id])}
    assert {name: run.info.status for name, run in found.items()} == {"whole": "FINISHED", "broken": "FAILED"}
    for name, run in found.items():
        points = [(one.step, one.value, one.timestamp) for one in client.get_metric_history(run.info.run_id, "loss")]
        assert points == [(0, 1.5, TIME_MS), (7, 0.5, TIME_MS + 1000)]
        assert run.data.params == {"lr": "0.1"}
        path = client.download_artifacts(run.info.run_id, "d/f.txt", str(tmp_path))
        assert Path(path).read_text() == f"of {name}"
    stored = [wandb_files.read([path]) for path in wandb_files.files_of(tmp_path)]
    assert [wandb_files.points(one) for one in stored] == [
        [("loss", 0, 1.5, pytest.approx(TIME_S)), ("loss", 7, 0.5, pytest.approx(TIME_S + 1))]
    ] * 2
    assert [(one.runs[-1].project, one.config["lr"], one.exits[0].exit_code) for one in stored] == [
        ("passed on", "0.1", 0),
        ("passed on", "0.1", 1),
    ]
    assert all(len(one.artifacts) == 1 for one in stored)
