"""Delivery as an experiment does it: several backends, their troubles, and the end of the run."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import replace

import pytest

from tests.delivery.support import WAIT_S, Processor, arrived, in_eight_threads, names
from tracelet import Experiment, load_run
from tracelet.core.records import PLUGIN_ERRORS_NAME, STATUS_NAME, MetricType
from tracelet.errors import PluginContractError, RetryableError
from tracelet.settings import TraceletSettings
from tracelet.testing import MemoryBackend

HURRY = TraceletSettings.load(stop_timeout_s=0.5, collectors=())


def started(*backends: MemoryBackend, settings: TraceletSettings = HURRY, **options) -> Experiment:
    return Experiment("test", backend=list(backends), settings=settings, **options).start()


def said(caplog: pytest.LogCaptureFixture, text: str) -> int:
    return sum(text in record.getMessage() for record in caplog.records)


def log_from_eight_threads(experiment: Experiment, steps: int) -> None:
    def log(thread: int) -> None:
        for step in range(steps):
            experiment.log_metric(f"thread{thread}", step + 0.5, step)

    in_eight_threads(log)


def steps_of(backend: MemoryBackend, name: str) -> list[int]:
    return [record.iteration for record in backend.records if record.name == name]


# -- one backend's trouble is that backend's alone ---------------------------------------------------------------------


def test_backends_that_stall_or_fail_delay_neither_the_others_nor_a_log_call():
    good, stalled, failing = MemoryBackend("good"), MemoryBackend("stalled"), MemoryBackend("failing")
    stall_ends = threading.Event()
    stalled.stall(stall_ends)
    failing.fail(ConnectionError("no route"))
    experiment = started(good, stalled, failing, settings=TraceletSettings.load())
    log_from_eight_threads(experiment, 1000)
    assert good.wait_until(lambda: all(999 in steps_of(good, f"thread{n}") for n in range(8)), WAIT_S)
    # The test is here although neither of them has got anything: nobody has waited for them.
    assert ([], []) == (stalled.records, failing.records)

    stall_ends.set()
    failing.recover()
    experiment.stop()
    for backend in (good, stalled, failing):
        for thread in range(8):
            assert list(range(1000)) == steps_of(backend, f"thread{thread}")


def test_errors_are_counted_in_a_series_with_the_plugins_name():
    good, failing = MemoryBackend("good"), MemoryBackend("failing")
    failing.fail(RetryableError("503"), times=3)
    with started(good, failing, settings=TraceletSettings.load()) as experiment:
        experiment.log_metric("loss", 0.5, 0)
        assert arrived(failing, 2)
        assert experiment.status()["errors"] == {"failing": 3}
        assert experiment.flush(WAIT_S)
    errors = [record for record in good.records if record.name == PLUGIN_ERRORS_NAME]
    assert 3 == len(errors)
    for record in errors:
        expected = (1.0, MetricType.SYSTEM, {"plugin": "failing", "error": "RetryableError"})
        assert expected == (record.value, record.type, record.metadata)
    assert [1.0] * 3 == load_run(experiment.run_dir).series(PLUGIN_ERRORS_NAME).values.tolist()


def test_backends_that_reject_everything_make_no_endless_stream_of_errors():
    backends = [MemoryBackend("first"), MemoryBackend("second")]
    for backend in backends:
        backend.reject(lambda metric: True)
    with started(*backends, settings=TraceletSettings.load()) as experiment:
        for step in range(50):
            experiment.log_metric("loss", 0.5, step)
        for _ in range(3):  # Each time the errors of the time before come along.
            assert experiment.flush(WAIT_S)
        assert {"first": 50, "second": 50} == experiment.status()["errors"]
        assert 150 == experiment.status()["backends"]["first"].rejected


def test_flush_tells_whether_all_backends_have_all():
    good, stalled = MemoryBackend("good"), MemoryBackend("stalled")
    stall_ends = threading.Event()
    stalled.stall(stall_ends)
    experiment = started(good, stalled)
    experiment.log_metric("loss", 0.5, 0)
    assert not experiment.flush(0.01)
    stall_ends.set()
    assert experiment.flush(WAIT_S)
    assert ["loss"] == names(good.records) == names(stalled.records)
    experiment.stop()


# -- a later start -----------------------------------------------------------------------------------------------------


def test_restart_of_a_run_sends_nothing_again_and_a_new_backend_gets_all():
    first, again, late = MemoryBackend("acme"), MemoryBackend("acme"), MemoryBackend("late")
    with started(first, run_id="r1") as experiment:
        experiment.log_metric("loss", 0.5, 0)
    with started(again, late, run_id="r1") as experiment:
        experiment.log_metric("loss", 0.25, 1)
    assert ["loss", STATUS_NAME] == names(first.records) == names(again.records)
    # The end of an attempt that another one followed is no news.
    assert [(0, 0.5), (1, 0.25), (None, "finished")] == [(record.iteration, record.value) for record in late.records]


def test_damaged_cursor_sends_all_again():
    first, again = MemoryBackend(), MemoryBackend()
    with started(first, run_id="r1") as experiment:
        experiment.log_metric("loss", 0.5, 0)
    (experiment.run_dir / "delivery" / "memory" / "cursor.json").write_text('{"delivered": 2')
    with started(again, run_id="r1"):
        pass
    assert ["loss", STATUS_NAME] == names(again.records)
    assert first.records[0] == again.records[0]


# -- the end -----------------------------------------------------------------------------------------------------------


def test_stop_delivers_what_is_left_and_the_status_last():
    backend, before = MemoryBackend(), set(threading.enumerate())
    experiment = started(backend, settings=TraceletSettings.load())
    for step in range(5000):
        experiment.log_metric("loss", 0.5, step)
    experiment.stop("failed", error="the reason")
    assert list(range(5000)) == steps_of(backend, "loss")
    last = backend.records[-1]
    assert (STATUS_NAME, "failed", "the reason") == (last.name, last.value, last.metadata["error"])
    assert 1 == backend.count("stop")
    assert set() == set(threading.enumerate()) - before


def test_stop_with_a_dead_backend_returns_and_says_which_command_sends_the_rest(caplog: pytest.LogCaptureFixture):
    good, dead = MemoryBackend("good"), MemoryBackend("dead")
    dead.fail(ConnectionError("no route"), at="initialize")
    experiment = started(good, dead, run_id="r1")
    experiment.log_metric("loss", 0.5, 0)
    experiment.stop()
    assert 1 == said(caplog, "have not reached 'dead'")
    assert 1 == said(caplog, "tracelet sync r1 --to dead")
    assert 0 == said(caplog, "have not reached 'good'")
    assert "finished" == load_run(experiment.run_dir).status.value


@pytest.mark.parametrize(
    ("method", "text"),
    [("initialize", "have not reached"), ("handle", "have not reached"), ("stop", "does not end; it is left behind")],
)
def test_plugin_that_hangs_at_the_end_is_left_behind(caplog: pytest.LogCaptureFixture, method: str, text: str):
    backend, release = MemoryBackend(), threading.Event()
    backend.stall(release, at=method)
    experiment = started(backend)
    experiment.log_metric("loss", 0.5, 0)
    experiment.stop()
    assert 1 == said(caplog, text)
    release.set()


def test_second_stop_does_nothing():
    backend = MemoryBackend()
    experiment = started(backend)
    experiment.stop()
    experiment.stop("failed")
    assert [(STATUS_NAME, "finished")] == [(record.name, record.value) for record in backend.records]
    assert ("finished", 0) == (load_run(experiment.run_dir).status.value, experiment.status()["lost"])


def test_interrupt_ends_the_waiting_at_the_end_and_loses_nothing(caplog: pytest.LogCaptureFixture):
    backend, release = MemoryBackend(), threading.Event()
    experiment = started(backend, run_id="r1", settings=TraceletSettings.load(stop_timeout_s=600.0))
    assert backend.wait_until(lambda: backend.count("start") == 1, WAIT_S)
    backend.stall(release)

    def interrupt() -> None:
        assert backend.wait_until(lambda: backend.count("handle") == 1, WAIT_S)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        experiment.stop()
    thread.join()
    assert 1 == said(caplog, "tracelet sync r1 --to memory")
    assert "finished" == load_run(experiment.run_dir).status.value
    release.set()


# -- processors -----------------------------------------------------------------------------------------------------


def test_processor_that_cannot_be_copied_is_said_at_the_start():
    processor = Processor()
    processor.lock = threading.Lock()
    experiment = Experiment("test", backend=MemoryBackend())
    experiment.register_plugin(processor)
    with pytest.raises(PluginContractError, match=r"'processor' can't be copied.*initialize\(\)"):
        experiment.start()
    assert not experiment.run_dir.exists()


def test_each_backend_has_a_processor_of_its_own_and_the_journal_none():
    first, second = MemoryBackend("first"), MemoryBackend("second")
    counts = Counts()
    experiment = Experiment("test", backend=[first, second])
    experiment.register_plugin(counts)
    with experiment:
        for step in range(10):
            experiment.log_metric("loss", 0.5, step)
    assert 0 == counts.count
    for backend in (first, second):
        assert [f"loss{n}" for n in range(10)] == names(backend.records)[:10]
    assert ["loss"] == load_run(experiment.run_dir).names()


class Counts(Processor):
    """Numbers what it has seen."""

    count = 0

    def process(self, metric):
        self.count += 1
        return replace(metric, name=f"{metric.name}{self.count - 1}")
