"""Runs of every format version stay readable, and the page about the format tells the truth."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from tests.journal.golden.make_golden import START_NS, write_golden
from tests.journal.support import ROOT
from tracelet.core.records import MetricType
from tracelet.journal import format as bytes_of
from tracelet.journal.load import Run
from tracelet.journal.reader import Damage, JournalReader, RunDirectory
from tracelet.journal.status import RunStatus

GOLDEN = Path(__file__).parent / "golden" / "v1"
PAGE = ROOT / "docs" / "journal-format.md"


def test_todays_writer_writes_the_golden_run_byte_by_byte(tmp_path: Path):
    write_golden(tmp_path / "run")
    content = {path.name: path.read_bytes() for path in GOLDEN.iterdir()}
    assert content == {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}


def test_the_golden_run_reads_in_its_order():
    reader = JournalReader(RunDirectory.open(GOLDEN))
    records = [entry.record for _, entry in reader if entry.record is not None]
    assert Damage() == reader.damage
    half = len(records) // 2
    for attempt, part in ((1, records[:half]), (2, records[half:])):
        names = ["lr", *["train/loss"] * 11, "note", "memory", "train/loss", "model", "weights"]
        assert [*names, "tracelet/tag/team", "key#99", "tracelet/status"] == [record.name for record in part]
        assert 0.1 * attempt == part[0].value
        assert [0, 0, 1, -1, 2, -2, 3, -3, 4, -4, 7] == [record.iteration for record in part[1:12]]
        assert {"exact": "5/2"} == part[11].metadata
        assert ("日本\ud800\0\n", "golden", 7) == (part[12].value, part[12].source, part[12].iteration)
        assert (MetricType.SYSTEM, 2**63 - 1, 1e-300) == (part[13].type, part[13].iteration, part[13].value)
        assert (0.0, 0, START_NS / 1e9) == (part[14].value, part[14].iteration, part[14].timestamp)
        assert str(GOLDEN / "artifacts/model.pt") == part[15].value
        assert {"edges": [0.0, math.inf], "counts": [3.0]} == part[16].value


def test_the_golden_run_loads():
    run = Run(GOLDEN)
    assert ("golden", "näme", "project", START_NS / 1e9) == (run.id, run.name, run.project, run.created_s)
    assert (RunStatus.FINISHED, 23.25, 0) == (run.status, run.duration_s, run.lost)  # The killed attempt took 20 s.
    assert ({"lr": 0.2}, {"team": "a"}) == (run.params, run.tags)
    assert ["memory", "train/loss"] == run.names()
    values = run.series("train/loss").values
    one = [0.5, 0.5, math.nan, math.nan, math.inf, math.inf, -math.inf, -math.inf, -0.0, -0.0, 2.5, 0.0]
    assert [repr(value) for value in one * 2] == [repr(value) for value in values.tolist()]
    assert [1.0, 1.0] == run.series("key#99").values.tolist()
    assert {"train/loss": (7, 2.5), "key#99": (0, 1.0)} == run.latest()
    assert Damage() == run.damage


# -- the page --------------------------------------------------------------------------------------------------------


def block(language: str) -> str:
    found = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert 1 == len(found)
    return found[0]


def test_the_record_of_the_page_is_what_the_encoder_writes():
    dump = bytes.fromhex(re.sub(r"#.*", "", block("hexdump")))
    assert bytes_of.encode_record(0.25, 3, 1_700_000_000_000_000_000, 1) == dump


def test_the_line_of_the_page_is_what_the_encoder_writes():
    line = {"kind": "series", "at": [0, 0], "key": 1, "name": "train/loss", "type": "scalar", "source": None}
    assert bytes_of.encode_line(line).decode() == block("journal-line")


def test_the_program_of_the_page_reads_the_golden_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(GOLDEN)
    exec(compile(block("python"), PAGE, "exec"), {})  # noqa: S102 - the page's own example
    printed = capsys.readouterr().out.splitlines()
    assert "train/loss 0 0.5" == printed[0]
    assert 24 == len(printed)


def test_the_numbers_of_the_page_are_those_of_the_code():
    text = PAGE.read_text(encoding="utf-8")
    assert f"version {bytes_of.FORMAT_VERSION}" in text
    assert f"{bytes_of.HEADER_BYTES:,} bytes" in text
    assert f"`{bytes_of.MAGIC.decode()}`" in text
