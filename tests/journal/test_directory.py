from __future__ import annotations

import json
import os
import stat
import threading
from pathlib import Path

import pytest

from tests.journal.support import lines_of, log, new_run, new_writer
from tracelet.errors import CorruptJournalError, UnsupportedVersionError
from tracelet.journal import directory
from tracelet.journal.directory import RunDirectory, make_private_directory, new_run_id, write_atomically
from tracelet.journal.load import Run, list_runs


def test_a_new_run_gets_its_identity_on_the_disk_and_keeps_it(tmp_path: Path):
    run = RunDirectory.at(tmp_path, "pro/ject", "run:1", "näme")
    assert not run.path.exists()
    run.ensure()
    again = RunDirectory.at(tmp_path, "pro/ject", "run:1", "another name")
    assert run.identity == again.identity
    assert ("run:1", "näme", "pro/ject") == (again.identity.run_id, again.identity.name, again.identity.project)


@pytest.mark.parametrize("name", ["", "..", "a/b", "\0", "x" * 300, "🎉", "\ud800", "CON"])
def test_any_name_gets_a_safe_directory_and_stays_true(tmp_path: Path, name: str):
    run = RunDirectory.at(tmp_path, name, name, name)
    run.ensure()
    assert tmp_path == run.path.parent.parent
    assert [name] * 3 == [Run(run.path).id, Run(run.path).name, Run(run.path).project]
    assert [name] == [found.id for found in list_runs(tmp_path)]


def test_directories_and_files_are_private(tmp_path: Path):
    writer = new_writer(tmp_path / "deep" / "runs")
    log(writer, "loss", 0, 0.0)
    make_private_directory(writer.run.path / "delivery/mlflow")
    for path in (tmp_path / "deep").rglob("*"):
        assert (0o700 if path.is_dir() else 0o600) == stat.S_IMODE(path.stat().st_mode), path
    assert 0o700 == stat.S_IMODE((tmp_path / "deep").stat().st_mode)


def test_of_two_that_start_a_run_at_once_one_identity_wins_and_both_are_seen(tmp_path: Path):
    first, second = new_run(tmp_path), new_run(tmp_path)  # Neither sees the other.
    assert first.identity.uuid != second.identity.uuid
    from tracelet.journal.writer import JournalWriter

    for run, name in ((first, "a"), (second, "b")):
        writer = JournalWriter(run)
        log(writer, name, 0, 0.0)
        writer.close()
    assert first.identity == second.identity == RunDirectory.open(first.path).identity
    assert {first.identity.uuid} == {line["run"] for line in lines_of(first, "writer")}
    assert ["a", "b"] == Run(first.path).names()


def test_of_many_threads_that_start_a_run_at_once_one_identity_wins(tmp_path: Path):
    for number in range(20):
        runs = [RunDirectory.at(tmp_path, "p", str(number), "n") for _ in range(8)]
        barrier = threading.Barrier(8)

        def ensure(run: RunDirectory, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            run.ensure()

        threads = [threading.Thread(target=ensure, args=(run,)) for run in runs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {RunDirectory.open(runs[0].path).identity} == {run.identity for run in runs}
        assert ["run.json"] == os.listdir(runs[0].path)


def test_a_filesystem_without_links_gets_its_identity_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise PermissionError("Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    run = new_run(tmp_path)
    run.ensure()
    assert run.identity == RunDirectory.open(run.path).identity
    assert ["run.json"] == os.listdir(run.path)


def test_a_newer_run_is_refused_and_left_untouched(tmp_path: Path):
    run = new_run(tmp_path)
    run.ensure()
    file = run.path / "run.json"
    newer = json.dumps(json.loads(file.read_text()) | {"format": 2})
    file.write_text(newer)
    with pytest.raises(UnsupportedVersionError, match="pip install -U tracelet"):
        new_run(tmp_path)
    assert newer == file.read_text()


def test_what_is_no_run_is_refused(tmp_path: Path):
    with pytest.raises(CorruptJournalError, match="no run that can be read"):
        RunDirectory.open(tmp_path)


def test_a_file_is_replaced_as_a_whole_and_privately(tmp_path: Path):
    for text in ("old", "new"):
        write_atomically(tmp_path / "cursor.json", text)
    assert ["cursor.json"] == os.listdir(tmp_path)
    assert "new" == (tmp_path / "cursor.json").read_text()
    assert 0o600 == stat.S_IMODE((tmp_path / "cursor.json").stat().st_mode)


def test_a_replacement_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_atomically(tmp_path / "cursor.json", "old")

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(tmp_path / "cursor.json", "new")
    assert ["cursor.json"] == os.listdir(tmp_path)
    assert "old" == (tmp_path / "cursor.json").read_text()


def test_a_file_in_the_way_of_a_directory_is_an_error_of_the_disk(tmp_path: Path):
    (tmp_path / "a").write_text("")
    for path in (tmp_path / "a", tmp_path / "a" / "b" / "c"):
        with pytest.raises((FileExistsError, NotADirectoryError)):
            make_private_directory(path)


def test_run_ids_are_easy_to_type_and_differ():
    ids = {new_run_id() for _ in range(1000)}
    assert 1000 == len(ids)
    assert all(len(run_id) == 8 and set(run_id) <= set(directory._ID_ALPHABET) for run_id in ids)
