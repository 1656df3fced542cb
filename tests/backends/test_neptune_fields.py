"""What becomes of each kind of record in Neptune's files, read back from the disk."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from tests.backends.neptune_files import folders, operations, stored_run
from tests.backends.neptune_support import TIME_S, custom, deliver, record, scalar
from tracelet.backends._neptune.paths import NeptunePaths
from tracelet.backends.neptune_backend import NeptuneBackend
from tracelet.core.changes import ChangeKind
from tracelet.core.records import DEFINE_PREFIX, DESCRIPTION_NAME, GIT_COMMIT_NAME, STATUS_NAME, TAG_PREFIX, MetricType
from tracelet.errors import RejectedError

PNG = (
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x00\x00\x00\x00:~\x9bU\x00\x00\x00\n"
    b"IDATx\x9cc\xf8\x0f\x00\x01\x01\x01\x00\x1b\xb6\xeeV\x00\x00\x00\x00IEND\xaeB`\x82"
)


# -- series ------------------------------------------------------------------------------------------------------------


def test_points_of_a_batch_are_few_operations(tmp_path: Path):
    deliver(tmp_path, [scalar(name, 0.5, step) for step in range(100) for name in ("loss", "accuracy")])
    (folder,) = folders()
    logs = [operation for operation in operations(folder) if operation["type"] == "LogFloats"]
    assert [["loss"], ["accuracy"]] == [operation["path"] for operation in logs]
    assert list(range(100)) == [value["step"] for value in logs[0]["values"]]


def test_late_points_keep_value_step_and_time_beside_the_series(tmp_path: Path):
    points = [(5, 1.0), (3, 2.0), (6, 3.0), (6, 4.0)]
    deliver(tmp_path, [scalar("loss", value, step, TIME_S + value) for step, value in points])
    run = stored_run()
    assert [] == run.refused
    assert [(5, 1.0, TIME_S + 1), (6, 3.0, TIME_S + 3)] == run.series["loss"]
    assert [(0, 2.0, TIME_S + 2), (1, 4.0, TIME_S + 4)] == run.series["loss_late"]
    assert [3.0, 6.0] == [value for _, value, _ in run.series["loss_late_step"]]


def test_a_point_without_a_step_comes_after_the_last_one(tmp_path: Path):
    deliver(tmp_path, [scalar("a", 1.0, None), scalar("a", 2.0, 7), scalar("a", 3.0, None)])
    assert [(0, 1.0), (7, 2.0), (8, 3.0)] == [point[:2] for point in stored_run().series["a"]]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_neptune_drops_is_a_text_beside_the_series_and_planned(tmp_path: Path, value: float):
    point = scalar("loss", value, 4)
    deliver(tmp_path, [scalar("loss", 0.5, 3), point])
    run = stored_run()
    assert [(3, 0.5, TIME_S)] == run.series["loss"]
    assert [(4, str(value), TIME_S)] == run.series["loss_nonfinite"]
    (change,) = NeptuneBackend().plan(point)
    assert "loss_nonfinite" in str(change.becomes)


def test_names_that_want_one_path_are_kept_apart(tmp_path: Path):
    deliver(
        tmp_path,
        [scalar("a", 1.0, 0), scalar("a/b", 2.0, 0), scalar("c/d", 3.0, 0), scalar("c", 4.0, 0)],
        [scalar("a_", 5.0, 0), record(MetricType.TEXT, "a", "six", 0), scalar("a/b", 7.0, 1)],
        [record(MetricType.SYSTEM, "a", 8.0, 0), scalar("sys/id", 9.0, 0), scalar("tracelet/status", 10.0, 0)],
    )
    run = stored_run()  # It fails at what a server would refuse.
    found = {path: [value for _, value, _ in points] for path, points in run.series.items()}
    assert {
        "a": [1.0],
        "a_/b": [2.0, 7.0],
        "c/d": [3.0],
        "c_": [4.0],
        "a__": [5.0],
        "a___": ["six"],
        "a____": [8.0],
        "sys_/id": [9.0],
        "tracelet/status_": [10.0],
    } == found
    assert {"a_/b": "a/b", "c_": "c", "a__": "a_", "a___": "a", "a____": "a"}.items() <= run.names.items()


def test_lone_surrogates_reach_no_request(tmp_path: Path):
    deliver(tmp_path, [record(MetricType.TEXT, "no\udc80te", "a\ud800b", 0)])
    (folder,) = folders()
    json.dumps(list(operations(folder)), ensure_ascii=False).encode("utf-8")
    assert {"no\udc80te": "a\\ud800b"} == stored_run().texts()


# -- single values -----------------------------------------------------------------------------------------------------


def test_parameters_keep_their_types_where_neptune_has_them(tmp_path: Path):
    values = {"int": -3, "float": 0.5, "bool": True, "text": "adam", "long": "x" * 7_000}
    deliver(tmp_path, [record(MetricType.PARAMETER, name, value) for name, value in values.items()])
    run = stored_run()
    assert values == run.under("parameters/")
    kinds = [run.types[f"parameters/{name}"] for name in values]
    assert ["AssignInt", "AssignFloat", "AssignBool", "AssignString", "AssignString"] == kinds


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (2**40, 2.0**40),
        (2**62 + 1, str(2**62 + 1)),
        (-(2**31) - 1, -(2.0**31) - 1),
        (None, "None"),
        (math.nan, "nan"),
        ({"a": [1, None]}, '{"a": [1, null]}'),
        ("y" * 20_000, "y" * 16_384),
    ],
)
def test_a_parameter_that_neptune_lacks_the_type_of_is_kept_as_near_as_it_goes_and_planned(
    tmp_path: Path, value: object, kept: object
):
    parameter = record(MetricType.PARAMETER, "p", value)
    deliver(tmp_path, [parameter])
    assert {"p": kept} == stored_run().under("parameters/")
    assert 1 == len(NeptuneBackend().plan(parameter))


@pytest.mark.parametrize("value", [2**31 - 1, -(2**31), 0.1, False, "y" * 16_384, []])
def test_a_parameter_that_neptune_has_the_type_of_is_not_planned(value: object):
    planned = NeptuneBackend().plan(record(MetricType.PARAMETER, "p", value))
    assert (not isinstance(value, list)) == (list(planned) == [])


def test_a_parameter_that_is_logged_again_with_another_type_is_kept_twice(tmp_path: Path):
    deliver(tmp_path, [record(MetricType.PARAMETER, "lr", value) for value in (0.1, "auto", 0.2)])
    run = stored_run()
    assert (0.2, "auto") == (run.values["parameters/lr"], run.values["parameters/lr_"])
    assert "lr" == run.names["parameters/lr_"]


def test_what_the_run_is_about_goes_where_neptune_has_it(tmp_path: Path):
    facts = {DESCRIPTION_NAME: "a try", GIT_COMMIT_NAME: "c0ffee", DEFINE_PREFIX + "loss": {"step": "epoch"}}
    tags = {TAG_PREFIX + "best": "", TAG_PREFIX + "team": "vision"}
    deliver(tmp_path, [custom(name, value) for name, value in (facts | tags).items()])
    run = stored_run()
    assert {"best"} == run.tags
    expected = {"sys/name": "digits", "sys/description": "a try", "source_code/git_commit": "c0ffee"}
    assert (expected | {"tags/team": "vision", "tracelet/x_axis/loss": "epoch"}).items() <= run.values.items()


@pytest.mark.parametrize(("word", "failed"), [("finished", False), ("failed", True), ("killed", True)])
def test_the_end_is_shown_with_its_time_and_traceback(tmp_path: Path, word: str, failed: bool):
    deliver(tmp_path, [scalar("a", 1.0, 0), custom(STATUS_NAME, word, error="x" * 20_000 + "ZeroDivisionError")])
    values = stored_run().values
    assert (word, failed, 1000 * TIME_S) == (values["tracelet/status"], values["sys/failed"], values["tracelet/ended"])
    assert values["tracelet/error"].endswith("ZeroDivisionError")


def test_a_run_that_stops_without_an_end_is_shown_as_running(tmp_path: Path):
    deliver(tmp_path, [scalar("a", 1.0, 0), custom(STATUS_NAME, "failed")])
    deliver(tmp_path, [scalar("a", 2.0, 1)])
    values = stored_run().values
    assert ("running", False) == (values["tracelet/status"], values["sys/failed"])


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_end_of_an_earlier_attempt_is_not_the_end(tmp_path: Path, size: int):
    records = [scalar("a", 1.0, 0), custom(STATUS_NAME, "failed"), scalar("a", 2.0, 1)]
    deliver(tmp_path, *(records[start : start + size] for start in range(0, 3, size)))
    values = stored_run().values
    assert ("running", False) == (values["tracelet/status"], values["sys/failed"])


# -- files -------------------------------------------------------------------------------------------------------------


def test_images_are_a_series_with_captions(tmp_path: Path):
    file = tmp_path / "image.png"
    file.write_bytes(PNG)
    deliver(tmp_path, [record(MetricType.IMAGE, "sample", str(file), step, caption="a cat") for step in (2, 5, 2)])
    run = stored_run()
    image = {"data": PNG, "name": None, "description": "a cat"}
    assert [(2, image, TIME_S), (5, image, TIME_S)] == run.series["sample"]
    assert [image] == [value for _, value, _ in run.series["sample_late"]]


@pytest.mark.parametrize("kind", [MetricType.IMAGE, MetricType.FIGURE])
def test_an_image_that_a_series_can_not_hold_is_a_file(tmp_path: Path, kind: MetricType):
    file = tmp_path / "figure.svg"
    file.write_text("<svg/>")
    image = record(kind, "plot", str(file), 3)
    deliver(tmp_path, [image])
    assert b"<svg/>" == stored_run().values["artifacts/plot/3"]
    assert [ChangeKind.CHANGED] == [change.kind for change in NeptuneBackend().plan(image)]


@pytest.mark.parametrize("kind", [MetricType.ARTIFACT, MetricType.AUDIO, MetricType.VIDEO, MetricType.TENSOR])
def test_files_are_uploaded_one_a_step(tmp_path: Path, kind: MetricType):
    for step in (1, 2):
        (tmp_path / f"{step}.bin").write_bytes(bytes([step]))
    deliver(tmp_path, [record(kind, "thing", str(tmp_path / f"{step}.bin"), step) for step in (1, 2)])
    assert {"thing/1": b"\x01", "thing/2": b"\x02"} == stored_run().under("artifacts/")


def test_a_directory_is_a_set_of_files_whatever_its_name(tmp_path: Path):
    folder = tmp_path / "data[1]*"
    folder.mkdir()
    (folder / "a.bin").write_bytes(b"a")
    deliver(tmp_path, [record(MetricType.ARTIFACT, "data", str(folder))])
    (pattern,) = stored_run().values["artifacts/data"]
    assert str(tmp_path / "data[[]1][*]") == pattern


def test_histograms_tables_and_long_texts_are_files_that_stay_with_the_run(tmp_path: Path):
    histogram = {"edges": [0.0, 1.0], "counts": [3.0], "nan": 0, "inf": 0}
    table = {"columns": ["a", "b"], "rows": [[1, "=1+1"], [None, "größer"]]}
    batch = [record(MetricType.HISTOGRAM, "h", histogram, 1), record(MetricType.TABLE, "t", table)]
    text = record(MetricType.TEXT, "note", "ö" * 1_001, 0)
    backend = deliver(tmp_path, [*batch, text, record(MetricType.TEXT, "short", "ö" * 1_000, 0)])
    run = stored_run()
    assert histogram == json.loads(run.values["artifacts/h/1"])
    assert "a,b\r\n1,'=1+1\r\n,größer\r\n" == run.values["artifacts/t"].decode()
    assert ("ö" * 1_001).encode() == run.values["artifacts/note/0"]
    assert {"note": "ö" * 1_000, "short": "ö" * 1_000} == run.texts()
    assert ChangeKind.CUT in {change.kind for change in backend.plan(text)}
    assert all(backend.plan(one) for one in batch)


def test_a_record_whose_file_is_gone_is_refused_before_anything_is_taken(tmp_path: Path):
    gone = record(MetricType.IMAGE, "image", str(tmp_path / "gone.png"), 0)
    with pytest.raises(RejectedError, match=r"'image' can't be read.*gone\.png"):
        deliver(tmp_path, [scalar("a", 1.0, 0), gone])
    assert {} == stored_run().series


def test_what_is_reserved_beside_all_else_is_nobody_elses(tmp_path: Path):
    paths = NeptunePaths(tmp_path)
    assert ("a/b", True) == paths.place("noted", "a/b")
    assert ("a_", True) == paths.reserve("kept", "a")  # `a` is a namespace now.
    paths.rollback()
    assert ("a__", True) == paths.place("other", "a_")
    paths.close()
    again = NeptunePaths(tmp_path)
    assert ("a_", True) == again.reserve("kept", "anything")
    assert ("a/b", True) == again.place("noted", "a/b")  # It was forgotten.
    again.close()
