"""What W&B, MLflow, Neptune and ClearML wrote, imported; and sent on to another tracker, and read back."""

from __future__ import annotations

import json
import shutil
import struct
import zipfile
import zlib
from datetime import UTC, datetime
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.importers.sources import LOSSES
from tracelet.core.records import MetricType
from tracelet.core.sync import sync_run
from tracelet.errors import UsageError
from tracelet.journal.load import Run
from tracelet.settings import TraceletSettings


def left_out(result):
    return {one.what: count for one, count in result.omitted.items()}


def assert_losses(run, values=LOSSES):
    assert run.series("train/loss").steps.tolist() == list(range(len(values)))
    np.testing.assert_array_equal(run.series("train/loss").values, values)


def test_offline_run_of_wandb(bring, wandb_folder):
    (result,) = bring("wandb", wandb_folder / "wandb", files=wandb_folder)
    run = Run(result.path)
    assert (run.name, run.project, run.status.value, run.description) == ("n", "p", "finished", "about")
    assert_losses(run)
    assert run.series("inner/x").values.tolist() == [1, 1, 1, 1]
    assert run.created_s <= run.series("train/loss").times_s[0] <= run.ended_s
    assert run.params == {"lr": 0.1, "m/d": 3, "summary/best": 3}
    assert "t1" in run.tags
    assert run.texts("word") == [(step, "w") for step in range(4)]
    (table,) = run.records(MetricType.TABLE)
    assert table.value == {"columns": ["a"], "rows": [[1]]}
    (counts,) = run.records(MetricType.HISTOGRAM)
    assert sum(counts.value["counts"]) == 9
    (picture,) = run.records(MetricType.IMAGE)
    assert picture.iteration == 4
    (artifact,) = run.artifacts()
    assert (artifact.name, artifact.type, artifact.path.read_text()) == ("data/f.txt", "dataset", "hello")
    assert left_out(result) == {}


def test_files_outside_of_a_wandb_folder_are_not_read_unless_allowed(bring, wandb_folder):
    (result,) = bring("wandb", wandb_folder / "wandb")
    assert Run(result.path).artifacts() == []
    assert left_out(result) == {"the file 'f.txt' of the artifact 'data'": 1}


def test_log_of_wandb_that_was_cut_off_is_a_killed_run(bring, wandb_folder, tmp_path):
    folder = shutil.copytree(wandb_folder / "wandb", tmp_path / "wandb", symlinks=True)
    (log,) = folder.glob("offline-run-*/*.wandb")
    whole = log.read_bytes()
    log.write_bytes(whole[:-20])
    (result,) = bring("wandb", folder)
    assert (Run(result.path).status.value, len(Run(result.path).series("train/loss"))) == ("killed", 4)
    assert f"a part of {log.name}" in left_out(result)
    log.write_bytes(whole)
    (again,) = bring("wandb", folder)
    assert (again.points, Run(again.path).status.value) == (0, "finished")


def test_value_in_a_log_of_wandb_that_is_none_costs_only_itself(bring, tmp_path):
    from wandb.proto.wandb_internal_pb2 import Record

    log = b":W&B\0\0\0"
    for value in ('{"_type": "histogram", "bins": [0], "values": [1, 2]}', "1" + "0" * 400, "0.5"):
        record = Record()
        record.history.item.add(key="a", value_json=value)
        data = record.SerializeToString()
        log += struct.pack("<IHB", zlib.crc32(b"\1" + data), len(data), 1) + data
    (tmp_path / "run-x.wandb").write_bytes(log)
    (result,) = bring("wandb", tmp_path)
    assert Run(result.path).series("a").values.tolist() == [0.5]
    assert (set(left_out(result)), result.omitted.total()) == ({"a record of run-x.wandb"}, 2)


def test_hostile_path_in_a_log_of_wandb_reads_nothing(bring, wandb_folder, tmp_path):
    folder = shutil.copytree(wandb_folder / "wandb", tmp_path / "wandb", symlinks=True)
    (picture,) = folder.glob("offline-run-*/files/media/images/*.png")
    (tmp_path / "secret.png").write_bytes(picture.read_bytes())
    picture.unlink()
    picture.symlink_to(tmp_path / "secret.png")
    (result,) = bring("wandb", folder)
    assert Run(result.path).records(MetricType.IMAGE) == []
    assert any(what.startswith("the file 'media/images/") for what in left_out(result))


def test_runs_of_a_database_of_mlflow(bring, mlflow_folder):
    first, second = bring("mlflow", f"sqlite:///{mlflow_folder}/m.db", experiment="p")
    run = Run(first.path)
    assert (run.name, run.project, run.status.value, run.description) == ("n", "p", "finished", "about")
    assert_losses(run)
    assert (run.params, run.tags["k"]) == ({"lr": "0.1"}, "v")
    (artifact,) = run.artifacts()
    assert (artifact.name, artifact.path.read_text()) == ("d/f.txt", "hello")
    assert Run(second.path).status.value == "failed"
    with pytest.raises(UsageError, match="no runs in the experiment 'q'"):
        bring("mlflow", f"sqlite:///{mlflow_folder}/m.db", experiment="q")


def test_folder_of_an_old_file_store_of_mlflow(bring, tmp_path):
    """As MLflow 1 and 2 wrote it, which MLflow 3.17 refuses to do."""
    folder = tmp_path / "mlruns" / "123" / ("a" * 32)
    for name, text in {
        "metrics/train/loss": "1700000000000 1.0 0\n1700000001000 nan 1\n1700000002000 0.25 -2\n17000",
        "params/lr": "0.1",
        "tags/mlflow.runName": "n",
        "tags/mlflow.note.content": "about",
        "tags/k": "v",
        "artifacts/d/meta.yaml": "run_id: wrong",
        "meta.yaml": f"run_uuid: {'a' * 32}\nstatus: 4\nstart_time: 1700000000000\nend_time: 1700000009000\n",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder.parent / "meta.yaml").write_text("experiment_id: 123\nname: p\n")
    (folder / "artifacts" / "link").symlink_to("/etc/hostname")
    (result,) = bring("mlflow", tmp_path / "mlruns")
    run = Run(result.path)
    assert (run.name, run.project, run.status.value, run.description) == ("n", "p", "failed", "about")
    assert run.series("train/loss").steps.tolist() == [0, 1, -2]
    assert (run.created_s, run.ended_s) == (1_700_000_000.0, 1_700_000_009.0)
    assert [artifact.name for artifact in run.artifacts()] == ["d/meta.yaml"]
    assert left_out(result) == {"a line of the metric 'train/loss'": 1}


def test_offline_run_of_neptune(bring, neptune_folder):
    (result,) = bring("neptune", neptune_folder / ".neptune", files=neptune_folder)
    run = Run(result.path)
    assert (run.name, run.description) == ("n", "about")
    assert_losses(run, [1.0, 0.5, 0.25])
    assert run.series("train/loss").times_s.tolist() == [1_700_000_000.0, 1_700_000_001.0, 1_700_000_002.0]
    assert run.params["params/lr"] == 0.1
    assert run.params["params/n/k"] == 2
    assert "t1" in run.tags
    assert run.texts("log") == [(0, "line")]
    assert [artifact.path.read_text() for artifact in run.artifacts()] == ["hello"]
    (other,) = bring("neptune", neptune_folder / ".neptune")
    assert "the file 'file'" in left_out(other)


def test_files_of_neptunes_exporter(bring, tmp_path):
    """A table with the columns and types that its documentation lists."""
    moment = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    kinds = {
        "step": pa.decimal128(18, 6),
        "timestamp": pa.timestamp("ms", tz="UTC"),
        "int_value": pa.int64(),
        "float_value": pa.float64(),
        "bool_value": pa.bool_(),
        "datetime_value": pa.timestamp("ms", tz="UTC"),
        "string_set_value": pa.list_(pa.string()),
        "file_value": pa.struct([("path", pa.string())]),
        "histogram_value": pa.struct(
            [("type", pa.string()), ("edges", pa.list_(pa.float64())), ("values", pa.list_(pa.float64()))]
        ),
    }
    names = ["project_id", "run_id", "attribute_path", "attribute_type", "string_value", *kinds]

    def row(path, kind, run="R-1", **values):
        return {"project_id": "w/p", "run_id": run, "attribute_path": path, "attribute_type": kind, **values}

    def point(step, value, run="R-1"):
        return row("loss", "float_series", run, step=Decimal(step), timestamp=moment, float_value=value)

    histogram = {"type": "COUNTING", "edges": [0.0, 1.0, 2.0], "values": [3.0, 4.0]}
    rows = [
        row("sys/name", "string", string_value="n"),
        row("sys/creation_time", "datetime", datetime_value=moment),
        row("sys/tags", "string_set", string_set_value=["t1"]),
        row("sys/failed", "bool", bool_value=True),
        row("lr", "float", float_value=0.1),
        point(0, 1.0), point("1.5", float("nan")), point(2, 0.25), point(0, 9.0, run="R-2"),
        row("h", "histogram_series", step=Decimal(0), timestamp=moment),
        *(row("h", "histogram_series", step=Decimal(0), timestamp=moment, histogram_value=histogram | wrong)
          for wrong in ({"edges": None}, {"edges": [0.0, 1.0]}, {"edges": [0.0, 2.0, 1.0]}, {"values": [1.0, None]})),
        row("when", "datetime"),
        row("h", "histogram_series", step=Decimal(1), timestamp=moment, histogram_value=histogram),
        row("f", "file", file_value={"path": "../secret.txt"}),
    ]  # fmt: skip
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in names])
    (tmp_path / "data").mkdir()
    (tmp_path / "files").mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    for part, some in enumerate((rows[:6], rows[6:])):
        pq.write_table(pa.Table.from_pylist(some, schema), tmp_path / "data" / f"R_part_{part}.parquet")
    first, second = bring("neptune", tmp_path / "data", files=tmp_path / "files")
    run = Run(first.path)
    assert (run.name, run.project, run.status.value, run.created_s) == ("n", "p", "failed", moment.timestamp())
    assert run.series("loss").steps.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(run.series("loss").values, [1.0, float("nan"), 0.25])
    assert (run.params["lr"], "t1" in run.tags) == (0.1, True)
    (counts,) = run.records(MetricType.HISTOGRAM)
    assert (counts.value["edges"], counts.value["counts"]) == (histogram["edges"], histogram["values"])
    assert counts.iteration == 1
    assert left_out(first) == {
        "the fractions of 1 steps": 1,
        "the file '../secret.txt'": 1,
        "a value of 'h'": 5,
        "a value of 'when'": 1,
    }
    assert Run(second.path).series("loss").values.tolist() == [9.0]


def test_offline_session_of_clearml(bring, clearml_folder):
    (result,) = bring("clearml", clearml_folder / "cache")
    run = Run(result.path)
    assert (run.name, run.project) == ("n", "p")
    assert_losses(run, [1.0, 0.5, 0.25])
    assert run.params == {"General/lr": "0.1", "summary/best": 3.0}
    assert "t1" in run.tags
    assert [artifact.path.read_text() for artifact in run.artifacts()] == ["hello"]
    assert left_out(result) == {"the console output": 1}


def test_zip_with_paths_that_lead_out_of_it_writes_nothing_there(bring, tmp_path):
    task = {"id": "offline-1", "name": "n", "execution": {"artifacts": [{"key": "k", "uri": "x/data/../../f"}]}}
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as file:
        file.writestr("task.json", json.dumps(task))
        file.writestr("../../escaped", "x")
    (result,) = bring("clearml", tmp_path / "s.zip")
    assert left_out(result) == {"the artifact 'k'": 1}
    (tmp_path / "half.zip").write_bytes((tmp_path / "s.zip").read_bytes()[:40])
    with pytest.raises(UsageError, match="no whole zip file"):
        bring("clearml", tmp_path / "half.zip")


def test_run_of_wandb_sent_on_to_mlflow_is_equal_there(bring, wandb_folder, mlflow_folder, tmp_path):
    import mlflow

    (result,) = bring("wandb", wandb_folder / "wandb")
    shutil.copy(mlflow_folder / "m.db", tmp_path / "m.db")
    address = f"sqlite:///{tmp_path}/m.db"
    settings = TraceletSettings(plugins={"mlflow": {"tracking_uri": address}})
    status = sync_run(result.path, ["mlflow"], settings)["mlflow"]
    assert (status.waiting, status.rejected) == (0, 0)
    client = mlflow.MlflowClient(address)
    (experiment,) = client.search_experiments(filter_string="name = 'p'")
    (sent,) = [run for run in client.search_runs([experiment.experiment_id]) if "imported_from" in run.data.tags]
    run = Run(result.path)
    assert (sent.info.status, sent.data.params["lr"], sent.data.tags["imported_from"]) == ("FINISHED", "0.1", "wandb")
    history = client.get_metric_history(sent.info.run_id, "train/loss")
    assert [point.step for point in history] == [0, 1, 2, 3]
    np.testing.assert_array_equal([point.value for point in history], LOSSES)
    times_s = run.series("train/loss").times_s
    np.testing.assert_allclose([point.timestamp / 1e3 for point in history], times_s, atol=1e-3, rtol=0)


def test_run_of_mlflow_sent_on_to_wandb_comes_back_equal(bring, mlflow_folder, tmp_path):
    first, _ = bring("mlflow", f"sqlite:///{mlflow_folder}/m.db")
    settings = TraceletSettings(plugins={"wandb": {"mode": "offline", "dir": str(tmp_path)}})
    assert sync_run(first.path, ["wandb"], settings)["wandb"].waiting == 0
    (back,) = bring("wandb", tmp_path / "wandb")
    original, returned = Run(first.path), Run(back.path)
    assert_losses(returned)
    np.testing.assert_allclose(
        returned.series("train/loss").times_s, original.series("train/loss").times_s, atol=1e-3, rtol=0
    )
    assert (returned.params["lr"], returned.status) == (original.params["lr"], original.status)
