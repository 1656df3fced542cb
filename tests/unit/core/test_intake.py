from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tracelet
from tracelet import Experiment, MetricData, MetricType, Run, TraceletSettings
from tracelet.core import intake
from tracelet.journal import writer


@pytest.fixture
def experiment() -> Iterator[Experiment]:
    experiment = Experiment("e").start()
    yield experiment
    experiment.stop()


def read(experiment: Experiment) -> Run:
    return tracelet.load_run(experiment.run_dir)


@pytest.mark.parametrize("kind", [MetricType.SCALAR, MetricType.SYSTEM])
def test_a_source_has_series_of_its_own(experiment: Experiment, kind: MetricType):
    experiment.log_metric("a", 1.0)
    for source in ("x", "y", None):
        experiment.emit_metric(MetricData("a", 2.0, kind, source=source))
    run = read(experiment)
    assert [1.0, 2.0, 2.0, 2.0] == run.series("a").values.tolist()
    own_counts = [0, 0, 0, 1] if kind is MetricType.SCALAR else [0, 0, 0, 0]
    assert own_counts == run.series("a").steps.tolist()


def test_a_record_keeps_time_source_and_metadata(experiment: Experiment):
    data = MetricData("a", "text", MetricType.TEXT, 5, 1234.5, "source", {"x": [1]})
    experiment.emit_metric(data)
    assert [data] == read(experiment).records(MetricType.TEXT)


def test_a_scalar_keeps_its_time(experiment: Experiment):
    experiment.emit_metric(MetricData("a", 1.0, MetricType.SCALAR, 5, 1234.5))
    assert ([5], [1234.5]) == tuple(
        getattr(read(experiment).series("a"), part).tolist() for part in ("steps", "times_s")
    )


@pytest.mark.parametrize("time_s", [math.nan, math.inf, 1e300, -1e12, 10**400, "noon", [1], print], ids=repr)
def test_a_time_that_is_none_is_that_of_the_call_and_is_kept_in_the_metadata(experiment: Experiment, time_s: Any):
    for value, kind in ((1.0, MetricType.SCALAR), ("x", MetricType.TEXT), (__file__, MetricType.ARTIFACT)):
        experiment.emit_metric(MetricData("a", value, kind, timestamp=time_s))
    records = read(experiment).records(*MetricType)
    assert 3 == len(records)
    for record in records:
        assert record.metadata is not None
        assert str(time_s)[:20] == record.metadata["timestamp"][:20]
        assert record.timestamp is not None
        assert record.timestamp > 1.7e9


@pytest.mark.parametrize(
    "odd",
    [
        {"metadata": 5},
        {"metadata": "text"},
        {"metadata": {1: {2: print}}},
        {"metadata": np.zeros(3)},
        {"source": 5},
        {"source": ["x"]},
        {"iteration": "x"},
        {"iteration": np.zeros(3)},
    ],
    ids=repr,
)
def test_a_record_with_odd_parts_is_kept_all_the_same(experiment: Experiment, odd: dict[str, Any]):
    for kind in MetricType:
        experiment.emit_metric(MetricData(f"{kind.value} 1", 1.5, kind, **odd))
        experiment.emit_metric(MetricData(f"{kind.value} 2", "x", kind, **odd))
    run = read(experiment)
    assert {f"{kind.value} {which}" for kind in MetricType for which in (1, 2)} == set(run.names(*MetricType))
    assert (0, 0, 0) == (run.lost, run.damage.lines, run.damage.records)


@pytest.mark.parametrize("kind", [kind for kind in MetricType if kind.value in ("image", "figure", "audio", "video")])
def test_a_value_that_can_not_be_encoded_is_kept_in_words(experiment: Experiment, kind: MetricType):
    getattr(experiment, f"log_{kind.value}")("a", object(), 3)
    (record,) = read(experiment).records(MetricType.TEXT)
    assert ("a", 3) == (record.name, record.iteration)
    assert "object" in record.value
    assert record.metadata is not None
    assert kind.value == record.metadata["failed"]


def test_a_fault_of_an_encoder_reaches_nobody(experiment: Experiment, monkeypatch: pytest.MonkeyPatch):
    def fail(_: Any) -> None:
        raise ZeroDivisionError("the encoder's")

    monkeypatch.setattr(intake, "encode_tensor", fail)
    experiment.log_metric("a", [1, 2], 3)
    assert [(3, "[1, 2]")] == read(experiment).texts("a")


def test_a_file_that_is_not_there_is_kept_in_words(experiment: Experiment):
    experiment.log_image("a", "missing.png", 3)
    assert [(3, "missing.png")] == read(experiment).texts("a")


def test_an_image_of_a_path_is_kept_with_the_run(experiment: Experiment):
    Path("image.png").write_bytes(b"any")
    experiment.log_image("a", "image.png", 3, caption="a cat")
    Path("image.png").unlink()
    (record,) = read(experiment).records(MetricType.IMAGE)
    assert (b"any", {"caption": "a cat"}) == (Path(record.value).read_bytes(), record.metadata)


def test_there_is_one_warning_a_name(experiment: Experiment, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            experiment.log_metric("a", None)
            experiment.log_metric("b", 10**400)
    assert ["a", "b"] == [record.getMessage()[1] for record in caplog.records]


def test_warnings_are_bounded(
    experiment: Experiment, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(intake, "_MAX_WARNINGS", 3)
    with caplog.at_level(logging.WARNING):
        for number in range(9):
            experiment.log_metric(str(number) * 10_000, None)
    assert 3 == len(caplog.records)
    assert all(len(record.getMessage()) < 1000 for record in caplog.records)


def test_more_series_than_fit_are_kept_too_with_one_warning(
    experiment: Experiment, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(writer, "MAX_SERIES", 5)
    with caplog.at_level(logging.WARNING):
        for step in range(2):
            for number in range(20):
                experiment.log_metric(f"{number:02}", float(number), step)
    assert 1 == len(caplog.records)
    assert 5 == len(experiment._journal.series)
    run = read(experiment)
    assert [f"{number:02}" for number in range(20)] == run.names()
    for number in range(20):
        series = run.series(f"{number:02}")
        assert ([0, 1], [number, number]) == (series.steps.tolist(), series.values.tolist())


def test_a_disabled_experiment_remembers_a_bounded_number_of_names(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(intake, "MAX_SERIES", 5)
    with Experiment("e", settings=TraceletSettings(disabled=True)) as experiment:
        for number in range(20):
            experiment.log_metric(str(number), 1.0)
        assert 5 == len(experiment._journal.series)
