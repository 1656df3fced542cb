"""What Aim wrote, imported; the files are as Aim left them, and as it puts them in order when it reads them."""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
from contextlib import closing

import numpy as np
import pytest

from tests.importers.sources import LOSSES
from tracelet.core.records import MetricType
from tracelet.errors import MissingDependencyError, UsageError
from tracelet.journal.load import Run

aimrocks = pytest.importorskip("aimrocks", reason="it has no build for Python 3.13 and later")
NAMES = {"loss": "train/loss", "__system__gpu": "system/gpu/0/gpu", "__system__cpu": "system/cpu", "count": "count"}
FOLD = {"subset": "val", "fold": 1}


@pytest.fixture
def told(aim_folder):
    return json.loads((aim_folder / "told.json").read_text())


@pytest.fixture
def folder(aim_folder, tmp_path):
    return shutil.copytree(aim_folder / "written", tmp_path / "written")


@pytest.fixture
def chunk(folder, told):
    return lambda part: folder / ".aim" / part / "chunks" / told["id"]


def left_out(result):
    return {one.what: count for one, count in result.omitted.items()}


@pytest.mark.parametrize("below", ["written", "."])
def test_all_that_aim_wrote_is_there(bring, aim_folder, told, below):
    result, killed = bring("aim", aim_folder / below, files=aim_folder)
    run = Run(result.path)
    assert (run.name, run.project, run.status.value, run.description) == ("n", "p", "finished", "about")
    assert (result.key, [run.created_s, run.ended_s]) == (told["id"], pytest.approx(told["times_s"], abs=1e-5))
    assert "t1" in run.tags
    assert run.params == {
        "hparams/lr": 0.1, "hparams/m/d": 3, "hparams/l": [1, 2], "system_params/arguments": ["train.py"]
    }  # fmt: skip
    np.testing.assert_array_equal(run.series("train/loss").values, LOSSES)
    for name, context, steps, (values, _, times_s) in told["metrics"]:
        if context.get("subset") != "val":
            series = run.series(NAMES[name])
            np.testing.assert_array_equal(series.steps, steps)
            np.testing.assert_array_equal(series.values, values)
            np.testing.assert_allclose(series.times_s, times_s, atol=1e-6, rtol=0)
    fold = run.series("val/fold/1/loss")  # A sequence with this very name is in it, too.
    ((steps, (values, *_)),) = (columns for _, context, *columns in told["metrics"] if context == FOLD)
    assert sorted(zip(fold.steps, fold.values, strict=True)) == sorted(zip([*steps, 0], [*values, 7.0], strict=True))
    assert run.series("old").values.tolist() == [0.5, 1.5]
    assert run.series("old").times_s.tolist() == [1_700_000_000.0, 1_700_000_001.0]
    assert [run.texts(name) for name in ("train/note", "log", "notes")] == [
        [(3, "hello")], [(0, "INFO: hi")], [(None, "look")]
    ]  # fmt: skip
    pictures = {one.name: one for one in run.records(MetricType.IMAGE)}
    assert pictures.keys() == {"picture", "pictures/0", "pictures/1"}
    assert (pictures["picture"].iteration, pictures["picture"].metadata["caption"]) == (3, "black")
    (counts,) = run.records(MetricType.HISTOGRAM)
    assert (counts.value["edges"], counts.value["counts"]) == ([0.0, 1.0, 2.0, 3.0], [2.0, 3.0, 4.0])
    (tone,) = run.records(MetricType.AUDIO)
    (figure,) = run.records(MetricType.FIGURE)
    assert (tone.iteration, figure.iteration) == (3, 3)
    assert json.loads((run.path / figure.value).read_text())["data"][0]["y"] == [1, 2]
    files = {artifact.name: artifact for artifact in run.artifacts()}
    assert (files["f.txt"].path.read_text(), files["far"].reference) == ("hello", "s3://bucket/far")
    assert left_out(result) == {
        "what Aim noted of the machine": 1, "the terminal's output": 1, "the epochs of a sequence": 1,
        "the fractions of 1 steps": 1,
    }  # fmt: skip
    other = Run(killed.path)
    assert (other.status.value, other.series("x").values.tolist(), "archived" in other.tags) == ("killed", [1.0], True)
    assert left_out(killed) == {"the status 'active'": 1}


def test_training_that_goes_on_is_read_beside_it_and_its_rest_added(bring, aim_folder, told, tmp_path, monkeypatch):
    early = shutil.copytree(aim_folder / "early", tmp_path / "early")
    rows, opened, real = str(early / ".aim" / "seqs" / "chunks" / told["id"]), [], aimrocks.DB
    writing = real(rows, aimrocks.Options())  # Locks it.

    def open_while_it_is_written(path, *arguments, **more):
        database = real(path, *arguments, **more)
        if path == rows and rows not in opened:
            writing.put(b"other", b"\x00")
            writing.flush()
        opened.append(path)
        return database

    monkeypatch.setattr(aimrocks, "DB", open_while_it_is_written)
    (first,) = bring("aim", early)
    assert opened.count(rows) == 2
    assert (Run(first.path).status.value, len(Run(first.path).series("val/fold/1/loss"))) == ("killed", 401)
    again, _ = bring("aim", aim_folder / "written")
    fold = Run(again.path).series("val/fold/1/loss")
    assert sorted(fold.steps) == [0, *range(0, 10_000, 10)]
    assert (again.run_id, again.known >= 405, Run(again.path).status.value) == (first.run_id, True, "finished")


def test_files_outside_of_a_repository_are_not_read_unless_allowed(bring, folder, told, chunk):
    moved = shutil.move(chunk("seqs"), folder.parent / "elsewhere")
    chunk("seqs").symlink_to(moved)
    result, _ = bring("aim", folder / ".aim")
    assert result.points == 0
    assert {"the file 'f.txt'", "all that was logged"} <= left_out(result).keys()


def test_text_in_the_place_of_an_image_is_not_taken_for_a_path(bring, folder, chunk):
    (folder / "secret.png").write_bytes(b"secret")
    rows = aimrocks.DB(str(chunk("seqs")), aimrocks.Options())
    items = rows.iteritems()
    items.seek(b"BLOBS")
    changed = [key for key, raw in items if key.startswith(b"BLOBS") and b"\xfepicture\xfe" in key]
    for key in changed:
        rows.put(key, b"\x04" + str(folder / "secret.png").encode())
    del items, rows
    result, _ = bring("aim", folder)
    assert (len(changed), "the rest of 'picture'" in left_out(result)) == (1, True)
    assert {one.name for one in Run(result.path).records(MetricType.IMAGE)} == {"pictures/0", "pictures/1"}


def test_damage_costs_only_what_is_damaged(bring, folder, chunk):
    (table, *_) = sorted(chunk("seqs").glob("*.sst"))
    table.write_bytes(table.read_bytes()[:-1000])
    result, other = bring("aim", folder)
    assert (result.points, Run(result.path).params["hparams/lr"]) == (0, 0.1)
    assert "all that was logged" in left_out(result)
    assert Run(other.path).series("x").values.tolist() == [1.0]
    (chunk("meta") / "CURRENT").unlink()
    result, other = bring("aim", folder, dry_run=True)
    assert "the parameters, and all that was logged" in left_out(result)


def test_end_that_a_cut_log_lacks_is_told_and_comes_later(bring, folder, chunk):
    (log,) = (path for path in chunk("seqs").glob("*.log") if path.stat().st_size)
    whole = log.read_bytes()
    log.write_bytes(whole[: len(whole) // 2])
    first, _ = bring("aim", folder)
    assert left_out(first)["the end of 'val/fold/1/loss'"] == 1
    log.write_bytes(whole)
    second, _ = bring("aim", folder)
    assert (first.points + second.points, "the end of 'val/fold/1/loss'" in left_out(second)) == (1010, False)


def test_value_that_is_none_costs_only_its_sequence(bring, folder, chunk):
    from tracelet.importers._aim.store import key_of, path_of

    rows = aimrocks.DB(str(chunk("seqs")), aimrocks.Options())
    items = rows.iteritems()
    items.seek(key_of("seqs", "v2"))
    loss = next(key for key, _ in items if path_of(key)[-3:-1] == ["loss", "val"])
    rows.put(loss, b"\x63")
    del items, rows
    result, _ = bring("aim", folder)
    (lost,) = (what for what in left_out(result) if what.startswith("the rest of"))
    assert lost in {"the rest of 'train/loss'", "the rest of 'val/fold/1/loss'"}
    assert Run(result.path).texts("train/note") == [(3, "hello")]


def test_run_without_the_database_of_names_has_its_hash_for_one(bring, folder, told):
    (folder / ".aim" / "run_metadata.sqlite").unlink()
    names = {result.name for result in bring("aim", folder)}
    assert told["id"] in names


def test_what_is_no_repository_is_told(bring, folder, tmp_path):
    with pytest.raises(UsageError, match="there are no runs of Aim 3"):
        bring("aim", tmp_path)
    database = folder / ".aim" / "run_metadata.sqlite"
    with closing(sqlite3.connect(database)) as foreign:
        foreign.execute("DROP TABLE run")
        foreign.commit()
    with pytest.raises(UsageError, match="can't be read as a database of Aim: no such table: run"):
        bring("aim", folder)
    database.write_bytes(b"x" * 100)
    with pytest.raises(UsageError, match="can't be read as a database of Aim: it is none of SQLite's"):
        bring("aim", folder)


def test_missing_package_is_told_with_what_to_type(bring, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "aimrocks", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'tracelet\[aim\]'"):
        bring("aim", folder)
