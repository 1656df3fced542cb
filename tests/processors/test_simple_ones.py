"""Renaming, dropping, scaling, smoothing and redacting."""

from __future__ import annotations

import math

import pytest

from tests.processors.support import point, series, started, steps, through, values
from tracelet.core.records import DEFINE_PREFIX, STATUS_NAME, TAG_PREFIX, MetricData, MetricType
from tracelet.errors import SettingsError
from tracelet.processors.drop_processor import DropProcessor
from tracelet.processors.redact_processor import RedactProcessor
from tracelet.processors.rename_processor import RenameProcessor
from tracelet.processors.scale_processor import ScaleProcessor
from tracelet.processors.smooth_processor import SmoothProcessor
from tracelet.utils.redaction import HIDDEN

TAG = MetricData(f"{TAG_PREFIX}train/x", "a", MetricType.CUSTOM)
END = MetricData(STATUS_NAME, "failed", MetricType.CUSTOM, metadata={"error": "in /home/ann/x.py"})


def named(name: str, kind: MetricType = MetricType.SCALAR) -> MetricData:
    return MetricData(name, 1.0, kind, 1, 1.0)


def test_names_are_changed_by_their_pattern():
    rename = started(RenameProcessor, pattern=r"^(train|val)/", replacement=r"\1_")
    records = [named("train/loss"), named("val/a/b", MetricType.PARAMETER), named("test/loss"), TAG, END]
    made = through(rename, records)
    assert ["train_loss", "val_a/b", "test/loss", TAG.name, END.name] == [record.name for record in made]
    assert all(new.value == old.value for new, old in zip(made, records, strict=True))


def test_only_names_that_match_are_changed_and_none_becomes_empty():
    rename = started(RenameProcessor, pattern="loss|.*", replacement="", match="train/*")
    assert ["train/", "val/loss"] == [
        record.name for record in through(started(RenameProcessor, pattern="loss", replacement="", match="train/*"),
                                          [named("train/loss"), named("val/loss")])
    ]  # fmt: skip
    assert [named("train/loss")] == through(rename, [named("train/loss")])


def test_an_x_axis_goes_by_the_new_names():
    definition = MetricData(f"{DEFINE_PREFIX}train/loss", {"step": "train/epoch"}, MetricType.CUSTOM)
    (made,) = through(started(RenameProcessor, pattern="^train/", replacement="t/"), [definition])
    assert (f"{DEFINE_PREFIX}t/loss", {"step": "t/epoch"}) == (made.name, made.value)


def test_what_matches_is_dropped_but_what_is_kept():
    drop = started(DropProcessor, match=["debug/*", "tmp"], keep="debug/loss")
    records = [named("debug/a"), named("debug/loss"), named("tmp"), named("loss"), TAG, END]
    assert [records[1], records[3], TAG, END] == through(drop, records)


def test_types_can_be_dropped():
    drop = started(DropProcessor, match="*", kinds=["image", "table"])
    records = [named("a", MetricType.IMAGE), named("a", MetricType.TABLE), named("a"), END]
    assert records[2:] == through(drop, records)


def test_drop_has_no_default_that_is_everything():
    with pytest.raises(SettingsError, match="match"):
        DropProcessor.validate_config({})


def test_units_are_changed_and_their_names():
    scale = started(ScaleProcessor, factor=0.5, offset=1, suffix=["_bytes", "_halves"], match="*_bytes")
    made = through(scale, [*series([4.0, math.nan, math.inf], "memory_bytes"), named("loss")])
    assert ["memory_halves"] * 3 + ["loss"] == [record.name for record in made]
    assert repr([3.0, math.nan, math.inf, 1.0]) == repr(values(made))


def test_a_moving_average_is_over_the_last_points():
    assert [1.0, 1.5, 2.5, 3.5] == values(through(started(SmoothProcessor, window=2), series([1.0, 2.0, 3.0, 4.0])))


def test_a_nan_is_shown_and_no_part_of_later_averages():
    made = values(through(started(SmoothProcessor, window=2), series([1.0, math.nan, 3.0, math.inf, 5.0])))
    assert repr([1.0, math.nan, 2.0, math.inf, 4.0]) == repr(made)


def test_an_average_can_stand_beside_the_values_and_begins_anew_after_the_end():
    smooth = started(SmoothProcessor, window=10, suffix="/smooth")
    made = through(smooth, series([1.0, 3.0]))
    assert [("loss", 1.0), ("loss/smooth", 1.0), ("loss", 3.0), ("loss/smooth", 2.0)] == [
        (record.name, record.value) for record in made
    ]
    assert [0, 0, 1, 1] == steps(made)
    assert [9.0, 9.0] == values(through(smooth, [point(9.0, 2)]))


def test_one_backend_does_not_see_what_is_hidden_from_it():
    redact = started(RedactProcessor, names="host", patterns=[r"/home/(?P<secret>\w+)"])
    records = [
        MetricData("env/host", "box1", MetricType.PARAMETER),
        MetricData("path", "/home/ann/data", MetricType.PARAMETER),
        MetricData(f"{TAG_PREFIX}host", "box1", MetricType.CUSTOM),
        MetricData("note", "see /home/ann/x", MetricType.TEXT),
        MetricData("table", {"columns": ["a"], "rows": [["/home/ann"]]}, MetricType.TABLE),
        MetricData("loss", 1.0, MetricType.SCALAR, metadata={"file": "/home/ann/x"}),
    ]
    assert [
        HIDDEN, f"/home/{HIDDEN}/data", HIDDEN, f"see /home/{HIDDEN}/x",
        {"columns": ["a"], "rows": [[f"/home/{HIDDEN}"]]}, 1.0,
    ] == [record.value for record in through(redact, records)]  # fmt: skip
    made = through(redact, [records[-1], END])
    assert [{"file": f"/home/{HIDDEN}/x"}, {"error": f"in /home/{HIDDEN}/x.py"}] == [r.metadata for r in made]
    with pytest.raises(SettingsError, match="regular expression"):
        RedactProcessor.validate_config({"patterns": "("})
