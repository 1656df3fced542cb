"""Several ranks in one run: what each has recorded stays apart, in the views and on the way to the backends."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from tests.journal.support import log, new_run, new_writer
from tracelet import MetricType, Run
from tracelet.journal.delivered import DeliveryReader
from tracelet.journal.past import entries_before
from tracelet.journal.reader import Position


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A run of rank 0, which starts it, and of two others; rank 2 is slow and has a NaN."""
    main = new_writer(tmp_path)
    ranks = [new_writer(tmp_path, role="attached", rank=rank, delivers=rank == 2) for rank in (1, 2)]
    for rank, writer in enumerate([main, *ranks]):
        writer.write_record("of", rank, MetricType.PARAMETER)
        writer.write_record("tracelet/tag/of", str(rank), MetricType.CUSTOM)
        for step in range(4 - rank):
            log(writer, "loss", step, math.nan if (rank, step) == (2, 1) else float(10 * rank + step))
    log(ranks[0], "rank/1/time", 0, 0.5)
    log(ranks[0], "queue", 0, 7.0)
    log(main, "time", 0, 0.25)
    for writer in (main, *ranks):
        writer.close()
    return main.run.path


def test_the_main_line_is_that_of_rank_0(path: Path):
    run = Run(path)
    assert [0, 1, 2, 3] == run.series("loss").values.tolist() == run.live("loss").values.tolist()
    assert (3, 3.0) == run.latest()["loss"]
    assert ({"of": 0}, {"of": "0"}) == (run.params, run.tags)


def test_each_rank_has_a_series_of_its_own(path: Path):
    run = Run(path)
    assert [10, 11, 12] == run.series("loss", rank=1).values.tolist()
    assert [0, 1, 2] == run.ranks_of("loss")
    with pytest.raises(KeyError, match="rank 2 of the run run1 has no points of 'queue'"):
        run.series("queue", rank=2)


def test_what_only_another_rank_has_is_found_by_its_name(path: Path):
    run = Run(path)
    assert [7.0] == run.series("queue").values.tolist()
    assert (0, 7.0) == run.latest()["queue"]


def test_a_name_that_an_integration_gave_to_a_rank_is_known_by_the_plain_one_too(path: Path):
    run = Run(path)
    assert [0, 1] == run.ranks_of("time")
    assert [0.5] == run.series("time", rank=1).values.tolist() == run.series("rank/1/time").values.tolist()


def test_a_spread_has_all_steps_and_says_how_many_ranks_have_them(path: Path):
    spread = Run(path).spread("loss")
    assert [0, 1, 2, 3] == spread.steps.tolist()
    assert [3, 3, 2, 1] == spread.count.tolist()
    assert [0, 1, 2, 3] == spread.min.tolist()
    assert [20, 11, 12, 3] == spread.max.tolist()
    np.testing.assert_equal(spread.mean, [10, math.nan, 7, 3])


def test_the_ranks_say_who_is_behind(path: Path):
    states = Run(path).ranks
    assert [(0, 3, 0), (1, 2, 1), (2, 1, 2)] == [(s.rank, s.last_step, s.behind) for s in states]
    assert ["killed", "finished", "finished"] == [s.status.value for s in states]  # The first never said how it ended.
    assert states[0].late_s is not None
    assert states[0].late_s < states[1].late_s < states[2].late_s  # They were written one after the other.
    assert all(s.step_s is not None and 0 < s.step_s < 1 for s in states)


def test_backends_get_the_main_line_and_of_others_what_has_a_name_of_its_own_or_is_wanted(path: Path):
    entries = list(DeliveryReader(new_run(path.parents[1])))
    scalars = [(e.record.name, e.record.value) for _, e in entries if e.record and e.record.type is MetricType.SCALAR]
    others = [
        (e.record.name, e.record.value) for _, e in entries if e.record and e.record.type is not MetricType.SCALAR
    ]
    main = [("loss", 0.0), ("loss", 1.0), ("loss", 2.0), ("loss", 3.0), ("time", 0.25)]
    assert [*main, ("rank/1/time", 0.5), ("rank/2/loss", 20.0)] == scalars[:-1]
    assert "rank/2/loss" == scalars[-1][0]
    assert math.isnan(scalars[-1][1])
    # Tags are the run's own. A parameter of another rank stands beside the first one's.
    assert [("of", 0), ("tracelet/tag/of", "0"), ("rank/2/of", 2)] == others


def test_a_delivery_that_goes_on_foresees_what_it_has_sent_in_the_same_way(path: Path):
    run = new_run(path.parents[1])
    ends: dict[str, Position] = {}
    sent = []
    for writer, entry in DeliveryReader(run):
        ends[writer] = entry.after
        sent.append(entry.record)
    assert repr([record for record in sent if record]) == repr(
        [e.record for e in entries_before(run, ends) if e.record]
    )
