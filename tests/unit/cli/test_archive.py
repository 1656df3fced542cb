"""`tracelet archive` and `unarchive`: byte for byte there and back, and what a stranger may try."""

from __future__ import annotations

import gzip
import io
import json
import os
import stat
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

import tracelet as library
from tests.unit.cli.conftest import Tracelet
from tests.unit.cli.test_prune import ROOT, left, record, running  # noqa: F401  A fixture.
from tracelet.core import archiving
from tracelet.core.archiving import CONTENTS_FILE, SUFFIXES, Contents, archive_runs, unarchive
from tracelet.errors import UsageError

PLAIN = "default/r/run.json"


def tree(run: Path) -> dict[str, tuple[bytes, int] | None]:
    return {
        path.relative_to(run).as_posix(): None if path.is_dir() else (path.read_bytes(), path.stat().st_mtime_ns)
        for path in run.rglob("*")
    }


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_run_comes_back_byte_for_byte_and_with_its_rights(tracelet: Tracelet, suffix: str):
    run, other = record("first", megabytes=2), record("second", project="a b/ü")
    (run / "artifacts" / "empty").mkdir()
    (run / "artifacts" / ("long" * 60)).write_text("x")
    before, other_before = tree(run), tree(other)
    assert "the runs are deleted" in tracelet("archive", "first", "second", "-o", f"runs{suffix}", "--delete").stdout
    assert 0o600 == stat.S_IMODE(Path(f"runs{suffix}").stat().st_mode)
    assert set() == left()
    tracelet("unarchive", f"runs{suffix}")
    assert (before, other_before) == (tree(run), tree(other))
    modes = {(path.is_dir(), stat.S_IMODE(path.stat().st_mode)) for path in run.rglob("*")}
    assert {(True, 0o700), (False, 0o600)} == modes
    assert library.load_run("first").artifact("model").digest
    assert [] == list(ROOT.glob(".trash"))
    assert "is in tracelet_runs already" in tracelet("unarchive", f"runs{suffix}", code=1).stderr


def test_delivery_goes_on_where_the_run_is_unpacked(tracelet: Tracelet):
    run = record("sent", backend="jsonl")
    lines = (run / "delivery" / "jsonl" / "records.jsonl").read_text().splitlines()
    record("unsent")
    tracelet("archive", "sent", "unsent", "-o", "runs.zip")
    tracelet("unarchive", "runs.zip", "--dir", "elsewhere")
    tracelet("sync", "sent", "unsent", "--to", "jsonl", "--dir", "elsewhere")
    assert lines == Path("elsewhere/default/sent/delivery/jsonl/records.jsonl").read_text().splitlines()
    assert Path("elsewhere/default/unsent/delivery/jsonl/records.jsonl").stat().st_size


def test_nothing_is_overwritten(tracelet: Tracelet):
    record("first")
    Path("runs.zip").write_text("mine")
    assert "is there already" in tracelet("archive", "first", "-o", "runs.zip", code=1).stderr
    assert "mine" == Path("runs.zip").read_text()
    assert "ends in one of" in tracelet("archive", "first", "-o", "runs.rar", code=1).stderr


def test_a_run_is_archived_from_within_its_project(tracelet: Tracelet, monkeypatch: pytest.MonkeyPatch):
    run = record("first")
    monkeypatch.chdir(run.parent)
    with pytest.raises(UsageError, match="archive them one by one"):
        archive_runs([run, run], Path("two.zip"))
    archive_runs([Path("first")], Path("one.zip"), delete=True)
    assert not run.exists()
    assert [run] == [path.absolute() for path in unarchive(Path("one.zip"), run.parent.parent)]


def test_a_run_that_is_written_is_not_archived(tracelet: Tracelet, running: Path):  # noqa: F811  The fixture.
    assert "a process is writing it" in tracelet("archive", "alive", "-o", "runs.zip", "--delete", code=1).stderr
    assert ["tracelet_runs"] == os.listdir()


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_what_can_not_be_read_back_deletes_nothing(monkeypatch: pytest.MonkeyPatch, damage: str):
    run = record("first", megabytes=2)
    before, write = tree(run), archiving._write

    def spoil(path: Path, *arguments: Any) -> None:
        write(path, *arguments)
        data = bytearray(path.read_bytes())
        if damage == "cut":
            del data[len(data) // 2 :]
        else:
            data[len(data) // 2] ^= 1
        path.write_bytes(data)

    monkeypatch.setattr(archiving, "_write", spoil)
    with pytest.raises(UsageError, match="is no archive of runs that can be read"):
        archive_runs([run], Path("runs.tar"), delete=True)
    assert before == tree(run)
    assert [] == list(Path().glob("*.t*"))


def contents(files: dict[str, bytes], **more: object) -> bytes:
    parents = {"/".join(path.split("/")[:count]) for path in files for count in range(1, path.count("/") + 1)}
    described = {
        path: {"size_bytes": len(data), "mtime_ns": 1, "sha256": archiving.hashlib.sha256(data).hexdigest()}
        for path, data in files.items()
    }
    return json.dumps({"format": 1, "directories": sorted(parents), "files": described, **more}).encode()


def tar_of(members: list[tuple[tarfile.TarInfo | str, bytes]]) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for member, data in members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return target.getvalue()


def link(kind: bytes, name: str, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    "path",
    [
        "../evil",
        "default/../../evil/x",
        "/etc/x",
        "default/r/../../../x",
        "default/r//x",
        "default/r/a\0b",
        ".trash/r/x",
    ],
)
def test_a_path_that_leads_out_is_refused(path: str):
    files = {PLAIN: b"{}", path: b"evil"}
    Path("in").mkdir()
    Path("in/bad.tar").write_bytes(tar_of([(CONTENTS_FILE, contents(files)), (PLAIN, b"{}"), ("x", b"evil")]))
    with pytest.raises(UsageError):
        unarchive(Path("in/bad.tar"), Path("in/runs"))
    assert {"in", "in/bad.tar", "in/runs"} == {path.as_posix() for path in Path().rglob("*")}


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE]
)
def test_links_and_devices_are_refused(kind: bytes):
    text = contents({PLAIN: b"{}", "default/r/x": b""})
    bad = tar_of([(CONTENTS_FILE, text), (PLAIN, b"{}"), (link(kind, "default/r/x", "/etc/passwd"), b"")])
    Path("bad.tar").write_bytes(bad)
    with pytest.raises(UsageError, match="no plain file"):
        unarchive(Path("bad.tar"), ROOT)
    assert set() == left()


def test_what_is_more_less_or_other_than_it_says_is_refused():
    plain = {PLAIN: b"{}"}
    cases: dict[str, list[tuple[tarfile.TarInfo | str, bytes]]] = {
        "more members": [(CONTENTS_FILE, contents(plain)), (PLAIN, b"{}"), ("default/r/more", b"x")],
        "a member twice": [(CONTENTS_FILE, contents(plain)), (PLAIN, b"{}"), (PLAIN, b"{}")],
        "longer": [(CONTENTS_FILE, contents(plain)), (PLAIN, b"{} ")],
        "other bytes": [(CONTENTS_FILE, contents(plain)), (PLAIN, b"[]")],
        "missing": [(CONTENTS_FILE, contents(plain))],
        "no contents": [(PLAIN, b"{}")],
        "no run": [(CONTENTS_FILE, contents({"default/r/x": b""})), ("default/r/x", b"")],
        "another format": [(CONTENTS_FILE, contents(plain, format=2)), (PLAIN, b"{}")],
        "a directory that is a file": [(CONTENTS_FILE, contents({**plain, f"{PLAIN}/x": b""})), (PLAIN, b"{}")],
        "nonsense": [(CONTENTS_FILE, b'{"format": 1, "directories": 5, "files": []}')],
    }
    for name, members in cases.items():
        Path("bad.tar").write_bytes(tar_of(members))
        with pytest.raises(UsageError):
            pytest.fail(f"{name}: {unarchive(Path('bad.tar'), ROOT)}")
        assert set() == left()
    for data in (b"", b"no tar", gzip.compress(b"no tar")):
        for suffix in SUFFIXES:
            Path(f"bad{suffix}").write_bytes(data)
            with pytest.raises(UsageError):
                unarchive(Path(f"bad{suffix}"), ROOT)


def test_a_bomb_is_refused_before_it_goes_off(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(archiving, "_MAX_CONTENTS_BYTES", 1 << 20)
    said = {PLAIN: b"{}"}
    huge = tarfile.TarInfo("default/r/x")
    huge.pax_headers = {"comment": "x" * (64 << 20)}
    Path("header.tar.gz").write_bytes(gzip.compress(tar_of([(CONTENTS_FILE, contents(said)), (huge, b"")])))
    with pytest.raises(UsageError, match="unpacks to more than it says"):
        unarchive(Path("header.tar.gz"), ROOT)
    with zipfile.ZipFile("zeros.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(CONTENTS_FILE, contents(said))
        archive.writestr(PLAIN, bytes(64 << 20))
    with pytest.raises(UsageError, match="is not what it says"):
        unarchive(Path("zeros.zip"), ROOT)
    record("first", megabytes=2)
    archive_runs([ROOT / "default" / "first"], Path("large.tar.gz"))
    with pytest.raises(UsageError, match="are allowed or free"):
        unarchive(Path("large.tar.gz"), Path("elsewhere"), max_bytes=1 << 20)


def test_the_contents_name_every_file_once():
    run = record("first")
    found = Contents.of([run])
    assert ["default/first"] == found.runs
    assert found == Contents.from_json(found.to_json())
    os.symlink("/etc/passwd", run / "link")
    with pytest.raises(UsageError, match="neither a file nor a directory"):
        archive_runs([run], Path("runs.tar"))
