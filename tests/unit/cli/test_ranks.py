"""`tracelet ranks`, and the ranks in `show` and `export`."""

from __future__ import annotations

import csv
import io
import json

import pytest

from tests.journal.support import log
from tests.unit.cli.conftest import Tracelet
from tracelet.core.records import MetricType
from tracelet.journal.directory import RunDirectory
from tracelet.journal.writer import JournalWriter


@pytest.fixture(autouse=True)
def two_ranks(tmp_path):
    """Rank 1 is a step behind. Each writer closes: rank 0 has not said how it ended."""
    run = RunDirectory.at(tmp_path / "tracelet_runs", "default", "r", "digits")
    for rank, steps in ((0, 3), (1, 2)):
        writer = JournalWriter(run, role="attached" if rank else "main", rank=rank)
        for step in range(steps):
            log(writer, "loss", step, float(rank + step))
        log(writer, f"only/{rank}", 0, 1.0)
        writer.write_record("lr", 0.1, MetricType.PARAMETER)
        writer.close()


def test_ranks_shows_who_is_behind_and_the_spread(tracelet: Tracelet):
    lines = [line.split() for line in tracelet("ranks", "digits").stdout.splitlines()]
    ranks = [line for line in lines if line[1:2] in (["killed"], ["finished"])]
    assert [["0", "killed"], ["1", "finished"]] == [line[:2] for line in ranks]
    assert ["0", "1"] == [line[line.index("ms") - 2] for line in ranks]  # BEHIND, before STEP TIME and its unit.
    assert ["loss", "1", "2", "1", "1.5", "2"] in lines  # Step 1 is the last one that both have.
    assert not any(line[:1] == ["only/0"] for line in lines)


def test_ranks_as_json(tracelet: Tracelet):
    told = json.loads(tracelet("ranks", "digits", "--json").stdout)
    assert [(0, 2, 0), (1, 1, 1)] == [(one["rank"], one["last_step"], one["behind"]) for one in told["ranks"]]
    assert {"loss": {"step": 1, "ranks": 2, "min": 1.0, "mean": 1.5, "max": 2.0}} == told["metrics"]


def test_show_has_the_ranks_and_the_main_line(tracelet: Tracelet):
    shown = tracelet("show", "digits").stdout
    assert "Ranks" in shown
    assert ["loss", "3", "0", "2", "0", "2"] in [line.split()[:6] for line in shown.splitlines()]
    assert [0, 1] == [one["rank"] for one in json.loads(tracelet("show", "digits", "--json").stdout)["ranks"]]


def test_export_has_a_column_for_the_rank_on_request(tracelet: Tracelet):
    def rows(*options: str) -> list[list[str]]:
        told = tracelet("export", "digits", "--metric", "loss", *options).stdout
        return [[row[1], row[2], *row[4:]] for row in csv.reader(io.StringIO(told))]

    assert [["step", "value"], ["0", "0.0"], ["1", "1.0"], ["2", "2.0"]] == rows()
    both = [["0", "0.0", "0"], ["1", "1.0", "0"], ["2", "2.0", "0"], ["0", "1.0", "1"], ["1", "2.0", "1"]]
    assert [["step", "value", "rank"], *both] == rows("--ranks")


def test_a_parquet_file_has_it_too(tracelet: Tracelet):
    import pyarrow.parquet

    tracelet("export", "digits", "--ranks", "-o", "run.parquet")
    table = pyarrow.parquet.read_table("run.parquet").to_pylist()
    points = [(row["name"], row["step"], row["value"], row["rank"]) for row in table]
    assert ("loss", 1, 2.0, 1) in points
    assert ("only/1", 0, 1.0, 1) in points
    assert 7 == len(points)


def test_json_has_no_place_for_it(tracelet: Tracelet):
    assert "csv and parquet" in tracelet("export", "digits", "--ranks", "--json", code=2).output
