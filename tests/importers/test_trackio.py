"""What Trackio wrote, imported."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing

import numpy as np
import pytest

from tests.importers.sources import LOSSES
from tracelet.core.records import MetricType
from tracelet.core.sync import sync_run
from tracelet.errors import UsageError
from tracelet.journal.load import Run
from tracelet.settings import TraceletSettings

LEGACY = """
CREATE TABLE metrics (id INTEGER PRIMARY KEY, timestamp TEXT, run_name TEXT, step INTEGER, metrics TEXT);
INSERT INTO metrics VALUES (1, '2025-08-01T10:00:00', 'old', 0, '{"x": 1.5}');
INSERT INTO metrics VALUES (2, '2025-08-01T10:00:01', 'old', 1, '{"x": ');
INSERT INTO metrics VALUES (3, '2025-08-01T10:00:02', 'old', 2, '{"x": 2.5}');
"""


@pytest.fixture
def folder(trackio_folder, tmp_path):
    return shutil.copytree(trackio_folder, tmp_path / "trackio")


def left_out(result):
    return {one.what: count for one, count in result.omitted.items()}


def test_all_that_trackio_wrote_is_there(bring, trackio_folder):
    result, second = bring("trackio", trackio_folder)
    run = Run(result.path)
    assert (run.name, run.project, run.status.value) == ("n", "p", "finished")
    assert run.params == {"lr": 0.1, "m/d": 3}
    assert run.tags["group"] == "g"
    assert run.series("train/loss").steps.tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(run.series("train/loss").values, LOSSES)
    assert run.series("inner/x").values.tolist() == [1.0] * 4
    assert run.series("most").values.tolist() == [float("inf")] * 4
    assert run.series("system/gpu/util").values.tolist() == [3.5]
    assert run.created_s <= run.series("train/loss").times_s[0] <= run.ended_s < run.created_s + 60
    assert run.texts("word") == [(step, "w") for step in range(4)]
    assert run.texts("md") == [(8, "# hi")]
    assert [text for _, text in run.texts("alerts")] == ["warn: spike: loss too high"]
    (picture,) = run.records(MetricType.IMAGE)
    assert (picture.name, picture.iteration, picture.metadata["caption"]) == ("picture", 7, "black")
    (counts,) = run.records(MetricType.HISTOGRAM)
    assert sum(counts.value["counts"]) == 9
    (table,) = run.records(MetricType.TABLE)
    assert table.value == {"columns": ["a", "b"], "rows": [[1, "x"], [2, "y"]]}
    (tone,) = run.records(MetricType.AUDIO)
    assert tone.iteration == 9
    files = {artifact.name: artifact for artifact in run.artifacts()}
    assert (files["data/f.txt"].type, files["data/f.txt"].path.read_text()) == ("dataset", "hello")
    assert "<b>hi</b>" in files["page"].path.read_text()
    told = ["a trace of 'talk'", "the files of `trackio.save`", "values of the type list"]
    assert sorted(left_out(result)) == told
    assert sorted(path.name for path in trackio_folder.iterdir()) == ["artifacts", "media", "p.db", "p.lock"]
    assert (Run(second.path).name, Run(second.path).series("x").values.tolist()) == ("second", [1.0])


def test_rows_of_a_run_that_goes_on_are_added(bring, folder):
    first, _ = bring("trackio", folder)
    with closing(sqlite3.connect(folder / "p.db")) as live:  # As a training that runs: they are in the log beside it.
        columns = "run_id, timestamp, run_name, step, metrics"
        live.execute(
            f"INSERT INTO metrics ({columns}) SELECT run_id, timestamp, run_name, 9, metrics FROM metrics WHERE id = 1"
        )
        live.commit()
        assert (folder / "p.db-wal").stat().st_size > 0
        again, _ = bring("trackio", folder)
    assert (again.run_id, again.points, again.records) == (first.run_id, 3, 1)
    assert Run(first.path).series("train/loss").steps.tolist() == [0, 1, 2, 3, 9]


def test_run_of_trackio_sent_on_to_wandb_is_equal_there(bring, trackio_folder, tmp_path):
    result, _ = bring("trackio", trackio_folder)
    settings = TraceletSettings(plugins={"wandb": {"mode": "offline", "dir": str(tmp_path)}})
    assert sync_run(result.path, ["wandb"], settings)["wandb"].waiting == 0
    (back,) = bring("wandb", tmp_path / "wandb")
    original, returned = Run(result.path), Run(back.path)
    for name in ("train/loss", "inner/x", "most"):
        np.testing.assert_array_equal(returned.series(name).steps, original.series(name).steps)
        np.testing.assert_array_equal(returned.series(name).values, original.series(name).values)
        np.testing.assert_allclose(returned.series(name).times_s, original.series(name).times_s, atol=1e-3, rtol=0)
    assert returned.params.items() >= original.params.items()
    assert returned.status == original.status


def test_files_outside_of_trackios_folder_are_not_read(bring, folder, tmp_path):
    (tmp_path / "secret.png").write_bytes(b"secret")
    with closing(sqlite3.connect(folder / "p.db")) as database:
        hostile = '{"picture": {"_type": "trackio.image", "file_path": "../../secret.png"}}'
        database.execute("UPDATE metrics SET metrics = ? WHERE step = 7", (hostile,))
        database.execute("UPDATE artifact_versions SET manifest = ?", ('[{"path": "f", "digest": "/etc/passwd"}]',))
        database.commit()
    result, _ = bring("trackio", folder)
    assert Run(result.path).records(MetricType.IMAGE) == []
    assert {"the file '../../secret.png'", "the file 'data/f'"} <= set(left_out(result))


def test_database_from_before_there_were_run_ids_is_read(bring, tmp_path):
    with closing(sqlite3.connect(tmp_path / "old.db")) as database:
        database.executescript(LEGACY)
    (result,) = bring("trackio", tmp_path / "old.db")
    assert (result.key, Run(result.path).series("x").values.tolist()) == ("old/old", [1.5, 2.5])
    assert left_out(result) == {"a row of metrics": 1}


def test_values_that_are_none_cost_only_themselves(bring, folder):
    odd = '{"h": {"_type": "trackio.histogram", "bins": [0], "values": "x"}}'
    with closing(sqlite3.connect(folder / "p.db")) as database:
        database.execute("UPDATE metrics SET metrics = ? WHERE step = 7", (odd,))
        database.execute("UPDATE system_metrics SET metrics = ?", ('{"a": null, "b": 1}',))
        database.execute("UPDATE run_artifact_links SET direction = 'input'")
        database.commit()
    result, _ = bring("trackio", folder)
    expected = {"a row of metrics", "readings of the type NoneType", "that the run read the artifact 'data'"}
    assert expected <= set(left_out(result))
    assert Run(result.path).series("system/b").values.tolist() == [1.0]


def test_damaged_and_foreign_databases_are_told(bring, folder, tmp_path):
    whole = (folder / "p.db").read_bytes()
    (folder / "p.db").write_bytes(whole[:4096])
    with pytest.raises(UsageError, match=r"p\.db' can't be read as a database of Trackio: "):
        bring("trackio", folder)
    (tmp_path / "foreign.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(UsageError, match="there are no runs of Trackio"):
        bring("trackio", tmp_path / "foreign.db")
