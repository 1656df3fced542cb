from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.delivery.support import WAIT_S, Chunked, Delivery, Plain, Processor, arrived, names
from tracelet.core.records import PLUGIN_ERRORS_NAME, MetricType
from tracelet.delivery.cursor import REJECTED_FILE, Cursor
from tracelet.errors import (
    PartialDeliveryError,
    PermanentError,
    RetryableError,
)
from tracelet.testing import MemoryBackend


def rejected(delivery: Delivery) -> list[dict]:
    file = delivery.run.path / "delivery" / "memory" / REJECTED_FILE
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def logged(caplog: pytest.LogCaptureFixture, text: str) -> int:
    return sum(text in record.getMessage() for record in caplog.records)


# -- all is well -------------------------------------------------------------------------------------------------------


def test_everything_arrives_in_order_with_its_step_type_and_time(delivery: Delivery, backend: MemoryBackend):
    delivery.log(["a", "b"] * 600)
    delivery.writer.write_record("note", "text", MetricType.TEXT, step=3, time_ns=1_500_000_000, source="me")
    delivery.deliver(delivery.worker(backend))
    assert ["a", "b"] * 600 + ["note"] == names(backend.records)
    assert [float(step) for step in range(1200)] == [record.value for record in backend.records[:-1]]
    note = backend.records[-1]
    assert ("text", MetricType.TEXT, 3, 1.5, "me") == (
        note.value,
        note.type,
        note.iteration,
        note.timestamp,
        note.source,
    )


def test_every_call_comes_on_the_workers_thread(delivery: Delivery, backend: MemoryBackend):
    delivery.log(["a"])
    worker = delivery.worker(backend)
    worker.start()
    assert arrived(backend, 1)
    assert worker.flush().result(WAIT_S)
    worker.request_stop(WAIT_S)
    assert worker.join(WAIT_S)
    assert ["initialize", "start", "handle", "flush", "stop"] == [call.method for call in backend.calls]
    assert {"tracelet-memory"} == {call.thread for call in backend.calls}


def test_batches_have_no_more_than_512_records_also_after_a_processor_that_multiplies(
    delivery: Delivery, backend: MemoryBackend
):
    delivery.log(["a"] * 1000)
    delivery.deliver(delivery.worker(backend, [Processor(lambda metric: [metric] * 3)]))
    assert 3000 == len(backend.records)
    assert MemoryBackend.max_batch == max(call.records for call in backend.calls)


def test_restart_goes_on_at_the_cursor(delivery: Delivery, backend: MemoryBackend):
    delivery.log(["a"] * 700)
    delivery.deliver(delivery.worker(backend))
    delivery.log(["b"] * 50)
    again = MemoryBackend()
    worker = delivery.worker(again)
    delivery.deliver(worker)
    assert ["b"] * 50 == names(again.records)
    assert 750 == worker.get_stats().delivered


def test_end_between_delivery_and_the_saving_of_the_cursor_sends_the_batch_again(
    delivery: Delivery, backend: MemoryBackend, monkeypatch: pytest.MonkeyPatch
):
    delivery.log(["a"] * 3)
    with monkeypatch.context() as patch:
        patch.setattr(Cursor, "save", lambda self: None)  # As if the process had ended before.
        delivery.deliver(delivery.worker(backend))
    delivery.deliver(delivery.worker(backend))
    assert [0, 1, 2, 0, 1, 2] == [record.iteration for record in backend.records]


def test_backend_that_is_added_later_gets_all_from_the_start(delivery: Delivery, backend: MemoryBackend):
    delivery.log(["a"] * 700)
    delivery.deliver(delivery.worker(backend))
    late = MemoryBackend("late")
    delivery.deliver(delivery.worker(late))
    assert backend.records == late.records


def test_records_that_come_while_it_runs_are_delivered(delivery: Delivery, backend: MemoryBackend):
    worker = delivery.worker(backend)
    worker.start()
    for count in range(1, 4):
        assert worker.flush().result(WAIT_S)  # It has found the journal empty, and waits.
        delivery.log(["a"])
        assert arrived(backend, count)


def test_stats_tell_how_it_stands(delivery: Delivery, backend: MemoryBackend):
    backend.reject(lambda metric: metric.name == "bad")
    delivery.log(["a", "bad", "c"])
    worker = delivery.worker(backend)
    assert ("new", 3) == (worker.get_stats().state, worker.get_stats().waiting)
    delivery.deliver(worker)
    stats = worker.get_stats()
    assert ("ended", 2, 1, 0, 1) == (stats.state, stats.delivered, stats.rejected, stats.waiting, stats.errors)
    assert "RejectedError" in stats.last_error


# -- bad records -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [0, 1, 255, 256, 300, 510, 511])
def test_poison_record_is_found_wherever_it_is_and_the_rest_arrives_once_and_in_order(
    delivery: Delivery, backend: MemoryBackend, place: int
):
    delivery.log(["a"])
    delivery.deliver(delivery.worker(MemoryBackend()))  # Now the journal's own lines are past, and the batch is full.
    backend.reject(lambda metric: metric.iteration == place)
    delivery.log(["a"] * MemoryBackend.max_batch)
    delivery.deliver(delivery.worker(backend))
    assert MemoryBackend.max_batch == backend.calls[2].records
    others = [step for step in range(MemoryBackend.max_batch) if step != place]
    assert others == [record.iteration for record in backend.records]
    (bad,) = rejected(delivery)
    assert (place, "RejectedError: there is a record among them that the test calls bad") == (
        bad["iteration"],
        bad["reason"],
    )
    assert backend.count("handle") < 25  # Halving, rather than one by one.
    assert 1 == len(delivery.errors)


def test_several_poison_records_are_found(delivery: Delivery, backend: MemoryBackend):
    bad = {3, 4, 5, 100, 511, 512, 700}
    backend.reject(lambda metric: metric.iteration in bad)
    delivery.log(["a"] * 800)
    delivery.deliver(delivery.worker(backend))
    assert [step for step in range(800) if step not in bad] == [record.iteration for record in backend.records]
    assert sorted(bad) == [record["iteration"] for record in rejected(delivery)]


def test_backend_that_rejects_everything_gets_through(
    delivery: Delivery, backend: MemoryBackend, caplog: pytest.LogCaptureFixture
):
    backend.reject(lambda metric: True)
    delivery.log(["a"] * 1500)
    worker = delivery.worker(backend)
    delivery.deliver(worker)
    assert (0, 1500) == (len(backend.records), len(rejected(delivery)))
    assert 5 == logged(caplog, "rejected the record 'a'")  # The file has them all.
    assert 0 == worker.waiting()


def test_backend_that_takes_one_by_one_gets_each_good_record_once(delivery: Delivery):
    backend = Plain({2, 3, 400})
    delivery.log(["a"] * MemoryBackend.max_batch)
    delivery.deliver(delivery.worker(backend))
    assert [step for step in range(MemoryBackend.max_batch) if step not in backend.bad] == backend.steps
    assert [2, 3, 400] == [record["iteration"] for record in rejected(delivery)]


@pytest.mark.parametrize("error", [ValueError("x"), TypeError("x"), KeyError("x"), OverflowError("x")])
def test_error_about_a_value_is_the_records_fault(delivery: Delivery, backend: MemoryBackend, error: Exception):
    backend.fail(error, times=1)
    delivery.log(["a"])
    delivery.deliver(delivery.worker(backend))
    assert [f"{type(error).__name__}: {error}"] == [record["reason"] for record in rejected(delivery)]


def test_rejection_of_the_record_of_an_error_is_no_error_to_record(delivery: Delivery, backend: MemoryBackend):
    backend.reject(lambda metric: True)
    delivery.log([PLUGIN_ERRORS_NAME] * 3 + ["a"])
    delivery.deliver(delivery.worker(backend))
    assert 4 == len(rejected(delivery))
    assert ["memory"] == [name for name, _ in delivery.errors]


# -- a part of a batch -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [{0}, {99}, {100}, {250}, {511}, {3, 250, 251}])
def test_chunk_that_is_refused_is_halved_too_and_no_chunk_comes_twice(delivery: Delivery, bad: set[int]):
    backend = Chunked(bad)
    delivery.log(["a"] * MemoryBackend.max_batch)
    delivery.deliver(delivery.worker(backend))
    assert [step for step in range(MemoryBackend.max_batch) if step not in bad] == backend.steps
    assert sorted(bad) == [record["iteration"] for record in rejected(delivery)]


def test_outage_in_the_middle_of_a_batch_sends_only_the_rest_again(delivery: Delivery):
    backend = Chunked({250})
    backend.error = RetryableError
    delivery.log(["a"] * MemoryBackend.max_batch)
    worker = delivery.worker(backend, on_error=lambda name, error: backend.bad.clear())
    delivery.deliver(worker)
    assert list(range(MemoryBackend.max_batch)) == backend.steps
    assert [] == rejected(delivery)


def test_cursor_moves_over_the_part_that_arrived(delivery: Delivery):
    backend = Chunked({250})
    backend.error = PermanentError
    delivery.log(["a"] * MemoryBackend.max_batch)
    delivery.deliver(delivery.worker(backend))
    again = Plain()
    delivery.deliver(delivery.worker(again))
    assert list(range(MemoryBackend.max_batch)) == backend.steps + again.steps


@pytest.mark.parametrize(("claimed", "expected"), [(99, [0, 1, 2]), (-5, [0, 1, 2, 0, 1, 2])])
def test_wrong_count_of_a_part_does_no_harm(delivery: Delivery, claimed: int, expected: list[int]):
    class Miscounts(Plain):
        calls = 0

        def handle_batch(self, metrics):
            super().handle_batch(metrics)
            self.calls += 1
            if self.calls == 1:
                raise PartialDeliveryError(claimed) from RetryableError("after all of it")

    backend = Miscounts()
    delivery.log(["a"] * 3)
    delivery.deliver(delivery.worker(backend))
    assert expected == backend.steps


def test_part_of_a_record_that_became_several_comes_again_as_a_whole(delivery: Delivery):
    backend = Chunked({1})
    backend.error = PermanentError
    delivery.log(["a"] * 2)
    triple = Processor(lambda metric: [replace(metric, iteration=metric.iteration)] * 150)
    delivery.deliver(delivery.worker(backend, [triple]))
    assert [0] * 100 == backend.steps  # The chunk with the rest of the first record has the second one in it.
    again = Plain()
    delivery.deliver(delivery.worker(again, [triple]))
    assert [0] * 150 + [1] * 150 == again.steps
