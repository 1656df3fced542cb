"""Outages, faults of plug-ins, and the end."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.delivery.support import WAIT_S, Delivery, Plain, Processor, arrived, in_eight_threads, names
from tracelet.core.plugins import PluginState
from tracelet.core.records import PLUGIN_ERRORS_NAME, MetricData, MetricType
from tracelet.errors import CorruptJournalError, MissingDependencyError, PermanentError, RetryableError
from tracelet.journal.reader import JournalReader
from tracelet.testing import MemoryBackend


def said(caplog: pytest.LogCaptureFixture, text: str, level: int = logging.DEBUG) -> int:
    return sum(text in record.getMessage() for record in caplog.records if record.levelno >= level)


class SdkError(Exception):
    """An SDK's own error, of which Tracelet knows nothing."""


# -- outages -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [RetryableError("503"), ConnectionError("refused"), TimeoutError(), SdkError("?")])
def test_outage_is_waited_for_and_said_once_a_change(
    delivery: Delivery, backend: MemoryBackend, caplog: pytest.LogCaptureFixture, error: Exception
):
    backend.fail(error, times=7)
    delivery.log(["a"] * 600)
    worker = delivery.worker(backend)
    worker.start()
    assert worker.flush().result(WAIT_S)
    assert list(range(600)) == [record.iteration for record in backend.records]
    assert (1, 1) == (said(caplog, "takes no records now"), said(caplog, "takes records again"))
    assert 7 == len(delivery.errors)

    backend.fail(error, times=2)
    delivery.log(["b"])
    assert arrived(backend, 601)
    assert worker.flush().result(WAIT_S)
    assert (2, 2) == (said(caplog, "takes no records now"), said(caplog, "takes records again"))


@pytest.mark.parametrize("method", ["initialize", "start"])
def test_backend_that_is_down_at_the_start_is_tried_until_it_is_up(
    delivery: Delivery, backend: MemoryBackend, caplog: pytest.LogCaptureFixture, method: str
):
    backend.fail(ConnectionError("no route"), at=method, times=5)
    delivery.log(["a", "b"])
    delivery.worker(backend).start()
    assert arrived(backend, 2)
    assert 6 == backend.count(method)
    assert 1 == said(caplog, "takes no records now")


def test_new_records_do_not_hurry_the_next_attempt(delivery: Delivery, backend: MemoryBackend):
    backend.fail()
    worker = delivery.worker(backend, backoff=SlowBackoff())
    delivery.log(["a"])
    worker.start()
    assert backend.wait_until(lambda: backend.count("handle") == 1, WAIT_S)
    delivery.log(["b"])
    worker.request_stop(0.0)
    assert worker.join(WAIT_S)
    assert 1 == backend.count("handle")


def test_a_flush_in_an_outage_gets_an_attempt_at_once_and_its_answer_when_all_has_arrived(
    delivery: Delivery, backend: MemoryBackend
):
    backend.fail(times=2)
    worker = delivery.worker(backend, backoff=SlowBackoff())
    delivery.log(["a"])
    worker.start()
    assert backend.wait_until(lambda: backend.count("handle") == 1, WAIT_S)
    first = worker.flush()
    assert backend.wait_until(lambda: backend.count("handle") == 2, WAIT_S)
    assert not first.done()
    assert worker.flush().result(WAIT_S)
    assert first.result(WAIT_S)
    assert (3, ["a"]) == (backend.count("handle"), names(backend.records))


class LateBackend(MemoryBackend):
    """A tracker that is too slow for many records at once."""

    most = 60

    def handle_batch(self, metrics: Sequence[MetricData]) -> None:
        if len(metrics) > self.most:
            self._called("handle", len(metrics))
            answer = TimeoutError("no answer in 30 s")
            raise RetryableError("it is late") from answer
        super().handle_batch(metrics)


def test_a_backend_that_is_too_slow_for_a_batch_gets_smaller_ones_and_larger_ones_when_it_is_fast_again(
    delivery: Delivery,
):
    backend = LateBackend()
    delivery.log(["a"] * 400)
    worker = delivery.worker(backend)
    worker.start()
    assert worker.flush().result(WAIT_S)
    assert [400, 200, 100, 50] == [call.records for call in backend.calls if call.method == "handle"][:4]
    backend.most = backend.max_batch
    for _ in range(5):  # Each call may have twice as many as the one before.
        delivery.log(["b"] * 500)
        assert worker.flush().result(WAIT_S)
    assert 500 == max(call.records for call in backend.calls)
    assert list(range(400)) == [record.iteration for record in backend.records if record.name == "a"]


class SlowBackoff:
    def next_delay_s(self) -> float:
        return 3600.0

    def reset(self) -> None:
        pass


def test_stop_ends_an_outage_after_a_few_attempts_and_says_how_to_go_on(delivery: Delivery, backend: MemoryBackend):
    backend.fail()
    delivery.log(["a"])
    worker = delivery.worker(backend, backoff=SlowBackoff())
    worker.start()
    assert backend.wait_until(lambda: backend.count("handle") == 1, WAIT_S)
    worker.request_stop(0.01)
    assert worker.join(WAIT_S)
    assert (1, False) == (worker.waiting(), worker.gave_up)
    assert 1 == backend.count("stop")


def test_stop_in_an_outage_gives_the_backend_one_more_chance(delivery: Delivery, backend: MemoryBackend):
    backend.fail(times=1)
    delivery.log(["a"])
    worker = delivery.worker(backend, backoff=SlowBackoff())
    worker.start()
    assert backend.wait_until(lambda: backend.count("handle") == 1, WAIT_S)
    worker.request_stop(WAIT_S)
    assert worker.join(WAIT_S)
    assert ["a"] == names(backend.records)


# -- what only the user can mend ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["initialize", "start", "handle"])
@pytest.mark.parametrize("error", [PermanentError("wrong key"), MissingDependencyError("pip install x")])
def test_permanent_error_ends_delivery_and_says_once_how_to_go_on(
    delivery: Delivery, backend: MemoryBackend, caplog: pytest.LogCaptureFixture, error: Exception, method: str
):
    backend.fail(error, at=method)
    delivery.log(["a"])
    worker = delivery.worker(backend)
    worker.start()
    assert worker.join(WAIT_S)
    assert 1 == said(caplog, f"has ended: {error}", logging.ERROR)
    assert 1 == said(caplog, "tracelet sync run1 --to memory")
    assert (1, 1, True) == (backend.count(method), len(delivery.errors), worker.gave_up)
    assert 1 == worker.waiting()
    assert PluginState.FAILED is worker._managed.state
    assert (method != "initialize") == (backend.count("stop") == 1)  # What was opened is closed.


def test_plugin_that_ends_its_thread_is_reported(
    delivery: Delivery, backend: MemoryBackend, caplog: pytest.LogCaptureFixture
):
    backend.fail(SystemExit(3))
    delivery.log(["a"])
    worker = delivery.worker(backend)
    worker.start()
    assert worker.join(WAIT_S)
    assert 1 == said(caplog, "has ended unexpectedly", logging.ERROR)
    assert (True, 1) == (worker.gave_up, backend.count("stop"))


def test_error_in_stop_is_reported_and_ends_nothing_else(
    delivery: Delivery, backend: MemoryBackend, caplog: pytest.LogCaptureFixture
):
    backend.fail(SdkError("no"), at="stop")
    delivery.log(["a"])
    worker = delivery.worker(backend)
    delivery.deliver(worker)
    assert ["a"] == names(backend.records)
    assert 1 == said(caplog, "stop() of 'memory' failed: no")
    assert [("memory", SdkError)] == [(name, type(error)) for name, error in delivery.errors]


def test_deadline_ends_a_delivery_that_goes_on_and_on(delivery: Delivery, backend: MemoryBackend):
    delivery.log(["a"] * 2000)
    worker = delivery.worker(backend)
    go_on = threading.Event()
    backend.stall(go_on)
    worker.start()
    assert backend.wait_until(lambda: backend.count("handle") == 1, WAIT_S)
    worker.request_stop(0.0)
    go_on.set()
    assert worker.join(WAIT_S)
    assert (1, 2000) == (backend.count("handle"), len(backend.records) + worker.waiting())


def test_hanging_backend_is_left_behind(delivery: Delivery, backend: MemoryBackend):
    release = threading.Event()
    backend.stall(release)
    delivery.log(["a"])
    worker = delivery.worker(backend)
    worker.start()
    assert backend.wait_until(lambda: backend.count("handle") == 1, WAIT_S)
    worker.request_stop(0.0)
    assert not worker.join(0.0)
    release.set()


# -- flush -------------------------------------------------------------------------------------------------------------


def test_flush_comes_when_all_has_been_handled_and_the_backend_flushed(delivery: Delivery, backend: MemoryBackend):
    delivery.log(["a"] * 1300)
    worker = delivery.worker(backend)
    worker.start()
    assert worker.flush().result(WAIT_S)
    assert (1300, 1) == (len(backend.records), backend.count("flush"))


def test_record_that_comes_between_the_last_look_and_the_end_is_delivered(delivery: Delivery, backend: MemoryBackend):
    go_on = threading.Event()
    backend.stall(go_on, at="flush")
    worker = delivery.worker(backend)
    worker.flush()
    worker.start()
    assert backend.wait_until(lambda: backend.count("flush") == 1, WAIT_S)  # It has found the journal empty.
    delivery.log(["late"])
    worker.request_stop(WAIT_S)
    go_on.set()
    assert worker.join(WAIT_S)
    assert ["late"] == names(backend.records)


def test_flush_that_fails_is_no_flush(delivery: Delivery, backend: MemoryBackend, caplog: pytest.LogCaptureFixture):
    backend.fail(SdkError("no"), at="flush", times=1)
    delivery.log(["a"])
    worker = delivery.worker(backend)
    worker.start()
    assert not worker.flush().result(WAIT_S)
    assert 1 == said(caplog, "flush() of 'memory' failed: no")
    assert worker.flush().result(WAIT_S)


def test_flush_after_the_end_says_whether_all_arrived(delivery: Delivery, backend: MemoryBackend):
    delivery.log(["a"])
    worker = delivery.worker(backend)
    delivery.deliver(worker)
    assert worker.flush().result(0)
    delivery.log(["b"])
    assert not worker.flush().result(0)


def test_flush_of_a_backend_that_gives_up_is_answered(delivery: Delivery, backend: MemoryBackend):
    backend.fail(PermanentError("wrong key"), at="start")
    delivery.log(["a"])
    worker = delivery.worker(backend)
    flushed = worker.flush()
    worker.start()
    assert not flushed.result(WAIT_S)


# -- the journal -------------------------------------------------------------------------------------------------------


def test_journal_that_cannot_be_read_for_a_while_is_said_once_and_loses_nothing(
    delivery: Delivery, backend: MemoryBackend, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    read, left = JournalReader.read, [OSError("EIO"), CorruptJournalError("odd"), OSError("EIO")]

    def failing(self, limit):
        if left:
            raise left.pop()
        return read(self, limit)

    monkeypatch.setattr(JournalReader, "read", failing)
    delivery.log(["a"])
    worker = delivery.worker(backend)
    flushed = worker.flush()
    worker.start()
    assert flushed.result(WAIT_S)
    assert ["a"] == names(backend.records)
    assert 1 == said(caplog, "the journal can't be read for 'memory'")
    assert [] == delivery.errors  # It is no error of the backend's.


# -- processors --------------------------------------------------------------------------------------------------------


def test_processor_changes_drops_and_multiplies(delivery: Delivery, backend: MemoryBackend):
    changes = {
        "same": lambda metric: metric,
        "dropped": lambda metric: None,
        "renamed": lambda metric: replace(metric, name="new"),
        "many": lambda metric: (replace(metric, name=f"many/{index}") for index in range(3)),
        "empty": lambda metric: [],
    }
    delivery.log(changes)
    delivery.deliver(delivery.worker(backend, [Processor(lambda metric: changes[metric.name](metric))]))
    assert ["same", "new", "many/0", "many/1", "many/2"] == names(backend.records)


def test_processors_work_one_after_another(delivery: Delivery, backend: MemoryBackend):
    twice = Processor(lambda metric: [metric, metric], "twice")
    numbers = iter(range(100))
    numbered = Processor(lambda metric: replace(metric, name=f"{metric.name}{next(numbers)}"), "numbered")
    delivery.log(["a", "b"])
    delivery.deliver(delivery.worker(backend, [twice, numbered]))
    assert ["a0", "a1", "b2", "b3"] == names(backend.records)


@pytest.mark.parametrize(
    "fault",
    [lambda metric: 1 / 0, lambda metric: "text", lambda metric: [metric, None], lambda metric: True],
    ids=["raises", "text", "none among them", "bool"],
)
def test_processor_that_fails_lets_records_through_and_is_said_once(
    delivery: Delivery, backend: MemoryBackend, caplog: pytest.LogCaptureFixture, fault
):
    def change(metric):
        return fault(metric) if metric.name == "bad" else replace(metric, name="changed")

    delivery.log(["bad", "a", "bad"])
    delivery.deliver(delivery.worker(backend, [Processor(change)]))
    assert ["bad", "changed", "bad"] == names(backend.records)
    assert ["processor", "processor"] == [name for name, _ in delivery.errors]
    assert 1 == said(caplog, "the processor 'processor' failed")


@pytest.mark.parametrize("method", ["initialize", "start"])
def test_processor_that_cannot_start_holds_up_nothing(
    delivery: Delivery, backend: MemoryBackend, caplog: pytest.LogCaptureFixture, method: str
):
    processor = Processor(lambda metric: None)
    setattr(processor, method, lambda *arguments: 1 / 0)
    delivery.log(["a"])
    delivery.deliver(delivery.worker(backend, [processor]))
    assert ["a"] == names(backend.records)
    assert ["processor"] == [name for name, _ in delivery.errors]
    assert 1 == said(caplog, "the processor 'processor' failed")
    assert 0 == said(caplog, "takes no records now")


def test_errors_about_the_record_of_an_error_are_not_recorded(delivery: Delivery, backend: MemoryBackend):
    processor = Processor(lambda metric: 1 / 0)
    delivery.log([PLUGIN_ERRORS_NAME, "a", PLUGIN_ERRORS_NAME])
    delivery.deliver(delivery.worker(backend, [processor]))
    assert ["processor"] == [name for name, _ in delivery.errors]


# -- records of the plug-ins' own --------------------------------------------------------------------------------------


class ReportsItself(Plain):
    """As the guide has it: catches its own errors, and emits a metric for each."""

    def handle_metric(self, metric):
        try:
            raise ValueError(metric.name)
        except ValueError as error:
            self.emit_metric(MetricData(PLUGIN_ERRORS_NAME, 1.0, MetricType.SYSTEM, metadata={"error": str(error)}))


def test_backend_can_record_its_own_errors_but_not_for_ever(delivery: Delivery):
    def emit(metric: MetricData) -> None:
        delivery.emitted.append(metric)
        delivery.writer.write_record(metric.name, metric.value, metric.type)

    delivery.log(["a"])
    worker = delivery.worker(ReportsItself(), emit=emit)
    worker.start()
    assert worker.flush().result(WAIT_S)
    assert worker.flush().result(WAIT_S)  # By now the record of the error has been through, too.
    assert 1 == len(delivery.emitted)
    assert 0 == worker.waiting()


# -- order -------------------------------------------------------------------------------------------------------------


def test_eight_threads_two_backends_every_record_in_its_threads_order(delivery: Delivery):
    backends = [MemoryBackend("first"), MemoryBackend("second")]
    workers = [delivery.worker(backend) for backend in backends]
    for worker in workers:
        worker.start()
    series = [delivery.writer.define(f"thread{thread}").key for thread in range(8)]

    def log(thread: int) -> None:
        for step in range(2000):
            delivery.writer.append(series[thread], step, thread + 0.5)
            if step % 100 == 99:
                delivery.writer.write_record(f"thread{thread}", "text", MetricType.TEXT, step=step)

    in_eight_threads(log)
    assert all(worker.flush().result(WAIT_S) for worker in workers)
    expected = [
        (step, kind)
        for step in range(2000)
        for kind in [MetricType.SCALAR, *([MetricType.TEXT] if step % 100 == 99 else [])]
    ]
    for backend in backends:
        for thread in range(8):
            own = [record for record in backend.records if record.name == f"thread{thread}"]
            assert expected == [(record.iteration, record.type) for record in own]
        assert 8 * len(expected) == len(backend.records)
