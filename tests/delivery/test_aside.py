"""Artifacts come beside all else where a backend can take them so: once each, in order, before the end of the run."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import tracelet
from tests.delivery.support import WAIT_S, Delivery, Processor, names
from tracelet.core.records import MetricData, MetricType
from tracelet.delivery.cursor import CURSOR_FILE, REJECTED_FILE, Cursor
from tracelet.delivery.marks import JournalMark
from tracelet.delivery.report import DeliveryStatus
from tracelet.errors import PermanentError, RejectedError, RetryableError
from tracelet.journal.directory import RunDirectory
from tracelet.journal.reader import Position
from tracelet.testing import MemoryBackend


@pytest.fixture
def released() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def backend() -> MemoryBackend:
    return MemoryBackend(uploads_aside=True)


@pytest.fixture
def delivery(tmp_path: Path) -> Iterator[Delivery]:
    with Delivery(tmp_path) as made:
        yield made


def log_artifacts(delivery: Delivery, *artifacts: str) -> None:
    for name in artifacts:
        delivery.writer.write_record(name, f"artifacts/{name}", MetricType.ARTIFACT)


def begun(backend: MemoryBackend, uploads: int = 1) -> bool:
    return backend.wait_until(lambda: backend.count("artifact") >= uploads, WAIT_S)


def test_metrics_go_on_while_an_upload_hangs_and_the_end_comes_after_it(
    backend: MemoryBackend, released: threading.Event, tmp_path: Path
):
    (tmp_path / "model.bin").write_bytes(b"weights")
    backend.stall(released, at="artifact")
    experiment = tracelet.Experiment("test", backend)
    experiment.start()
    experiment.log_artifact(tmp_path / "model.bin", "model")
    assert begun(backend)
    mark = JournalMark.now(experiment.run_dir)
    experiment.log_metrics({"a": 1.0, "b": 2.0}, 0)
    assert backend.wait_until(lambda: {"a", "b"} <= set(names(backend.records)), WAIT_S)
    assert "model" not in names(backend.records)
    assert not experiment.flush(0.05)
    assert not mark.is_passed_by(experiment.run_dir, "memory")
    status = DeliveryStatus.of(RunDirectory.open(experiment.run_dir), "memory")
    assert 1 == status.uploads <= status.waiting
    assert 1 <= experiment.status()["backends"]["memory"].waiting
    released.set()
    assert experiment.flush(WAIT_S)
    assert mark.is_passed_by(experiment.run_dir, "memory")
    experiment.stop()
    assert ["model", "tracelet/status"] == [n for n in names(backend.records) if n in ("model", "tracelet/status")]
    assert {call.thread for call in backend.calls if call.method == "artifact"} == {"tracelet-memory-artifacts"}
    assert {call.thread for call in backend.calls if call.method != "artifact"} == {"tracelet-memory"}


def test_a_backend_that_does_not_ask_for_it_gets_artifacts_among_all_else(delivery: Delivery):
    backend = MemoryBackend()
    delivery.log(["a"])
    log_artifacts(delivery, "model")
    delivery.log(["b"])
    delivery.deliver(delivery.worker(backend))
    assert (["a", "model", "b"], 0) == (names(backend.records), backend.count("artifact"))


def test_artifacts_keep_their_order_and_what_processors_make_of_them(delivery: Delivery, backend: MemoryBackend):
    twice = Processor(lambda metric: [metric, MetricData(metric.name + "'", metric.value, metric.type)])
    log_artifacts(delivery, "1", "2", "3")
    delivery.deliver(delivery.worker(backend, [twice]))
    assert ["1", "1'", "2", "2'", "3", "3'"] == names(backend.records)
    assert (6, []) == (delivery.cursor(backend).delivered, delivery.cursor(backend).aside)


def test_an_outage_of_the_uploads_is_none_of_the_metrics(delivery: Delivery, backend: MemoryBackend):
    backend.fail(RetryableError("no space"), at="artifact", times=20)
    log_artifacts(delivery, "1", "2")
    delivery.log(["a"])
    worker = delivery.worker(backend)
    worker.start()
    assert worker.flush().result(WAIT_S)
    assert ["1", "2"] == [name for name in names(backend.records) if name != "a"]
    assert (3, 20) == (worker.get_stats().delivered, worker.get_stats().errors)


def test_what_does_not_come_in_time_stays_and_is_sent_later_before_the_end(
    delivery: Delivery, backend: MemoryBackend, released: threading.Event
):
    end = MetricData("tracelet/status", "finished", MetricType.CUSTOM)
    backend.stall(released, at="artifact")
    log_artifacts(delivery, "1", "2")
    delivery.log(["a"])
    worker = delivery.worker(backend)
    worker.start()
    assert begun(backend)
    worker.request_stop(0.2, lambda: end)
    assert worker.join(WAIT_S)
    assert (["a"], 2) == (names(backend.records), worker.waiting())
    released.set()
    assert backend.wait_until(lambda: "1" in names(backend.records), WAIT_S)
    assert 2 == len(delivery.cursor(backend).aside), "the cursor belongs to the next one who delivers"
    again = MemoryBackend(uploads_aside=True)
    second = delivery.worker(again)
    second.start()
    second.request_stop(WAIT_S, lambda: end)
    assert second.join(WAIT_S)
    assert (["1", "2", "tracelet/status"], 0) == (names(again.records), second.waiting())
    assert again.records[0].value == str(delivery.run.path / "artifacts" / "1")


def test_a_backend_that_stays_away_at_the_end_is_tried_a_few_times(delivery: Delivery, backend: MemoryBackend):
    backend.fail(RetryableError("no space"), at="artifact")
    log_artifacts(delivery, "1")
    worker = delivery.worker(backend)
    delivery.deliver(worker)
    assert (1, 0) == (worker.waiting(), backend.count("flush"))
    assert 4 <= backend.count("artifact")


def test_a_rejected_artifact_is_noted_and_holds_up_nothing(delivery: Delivery, backend: MemoryBackend):
    backend.reject(lambda metric: metric.name == "bad")
    log_artifacts(delivery, "1", "bad", "2")
    delivery.deliver(delivery.worker(backend))
    (noted,) = (delivery.run.path / "delivery" / "memory" / REJECTED_FILE).read_text().splitlines()
    assert ("bad", ["1", "2"]) == (json.loads(noted)["name"], names(backend.records))
    assert (2, 1) == (delivery.cursor(backend).delivered, delivery.cursor(backend).rejected)
    assert isinstance(delivery.errors[0][1], RejectedError)


def test_an_error_for_good_ends_the_delivery_and_keeps_what_waits(delivery: Delivery, backend: MemoryBackend):
    backend.fail(PermanentError("no access"), at="artifact")
    log_artifacts(delivery, "1")
    worker = delivery.worker(backend)
    worker.start()
    assert worker.join(WAIT_S)
    assert (True, 1) == (worker.gave_up, worker.waiting())
    assert "no access" in str(worker.get_stats().last_error)


def test_references_and_moved_runs_are_kept_in_the_cursor(tmp_path: Path):
    uri = "s3://bucket/data"
    cursor = Cursor(tmp_path / "old" / "delivery" / "memory")
    inside = MetricData("a", str(tmp_path / "old" / "artifacts" / "a"), MetricType.ARTIFACT, 1, 2.0, "me", {"k": 1})
    remote = MetricData("b", uri, MetricType.ARTIFACT, metadata={"reference": uri})
    cursor.advance("w", Position(10), [inside, remote])
    cursor.save()
    (tmp_path / "old").rename(tmp_path / "new")
    found = [item.record for item in Cursor(tmp_path / "new" / "delivery" / "memory").aside]
    assert [str(tmp_path / "new" / "artifacts" / "a"), uri] == [record.value for record in found]
    assert (1, 2.0, "me", {"k": 1}) == (found[0].iteration, found[0].timestamp, found[0].source, found[0].metadata)


def test_a_cursor_of_an_earlier_version_has_nothing_aside(tmp_path: Path):
    cursor = Cursor(tmp_path)
    cursor.delivered = 3
    cursor.save()
    fields = json.loads((tmp_path / CURSOR_FILE).read_text())
    del fields["aside"]
    (tmp_path / CURSOR_FILE).write_text(json.dumps(fields))
    assert (3, []) == (Cursor(tmp_path).delivered, Cursor(tmp_path).aside)
