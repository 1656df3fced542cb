from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.delivery.support import WAIT_S
from tracelet.delivery import resolve
from tracelet.delivery.resolve import Resolver


class Value:
    """A value that is there when the test says so."""

    def __init__(self, value: Any, ready: bool = False) -> None:
        self.value = value
        self.event = threading.Event()
        if ready:
            self.event.set()

    def is_ready(self) -> bool:
        return self.event.is_set()

    def result(self) -> Any:
        assert self.event.wait(WAIT_S)
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


@pytest.fixture
def make() -> Iterator[Callable[..., Resolver]]:
    made = []

    def resolver(*bounds: int) -> Resolver:
        made.append(Resolver(*bounds))
        return made[-1]

    yield resolver
    for resolver_ in made:
        resolver_.close()


def test_a_value_that_is_ready_is_written_before_the_call_returns(make):
    written = []
    make().put(Value(1.0, ready=True), written.append)
    assert [1.0] == written
    assert "tracelet-resolver" not in [thread.name for thread in threading.enumerate()]


def test_values_are_written_in_the_order_of_their_calls(make):
    resolver, written = make(), []
    values = [Value(0.0), Value(1.0, ready=True), Value(2.0)]
    for value in values:
        resolver.put(value, written.append)
    values[2].event.set()
    assert {"pending": 3, "waited": 0} == resolver.get_stats()
    assert not resolver.drain(0.0)
    assert [] == written
    values[0].event.set()
    assert resolver.drain(WAIT_S)
    assert [0.0, 1.0, 2.0] == written
    assert 0 == resolver.get_stats()["pending"]


def test_what_could_not_be_computed_is_written_as_its_error(make):
    resolver, written = make(), []
    failed, good = Value(ValueError("no such device")), Value(1.0)
    resolver.put(failed, written.append)
    resolver.put(good, written.append)
    failed.event.set()
    good.event.set()
    assert resolver.drain(WAIT_S)
    assert ["no such device", "1.0"] == [str(found) for found in written]


def test_a_writer_that_fails_ends_nothing(make, caplog):
    resolver, written = make(), []
    values = [Value(1.0), Value(2.0)]
    resolver.put(values[0], lambda value: written[5])
    resolver.put(values[1], written.append)
    for value in values:
        value.event.set()
    assert resolver.drain(WAIT_S)
    assert [2.0] == written
    assert "list index out of range" in caplog.text


@pytest.mark.parametrize(("bounds", "sizes"), [((2, 100), (1, 1, 1)), ((10, 100), (60, 30, 20))])
def test_at_the_bound_a_call_waits_for_its_own_value_and_says_so_once(make, caplog, bounds, sizes):
    resolver, written = make(*bounds), []
    early = [Value(0.0), Value(1.0)]
    for value, size in zip(early, sizes, strict=False):
        resolver.put(value, written.append, size)
    for _ in range(2):
        late = Value(2.0)
        threading.Timer(0.01, late.event.set).start()
        resolver.put(late, written.append, sizes[2])
    assert [2.0, 2.0] == written
    assert {"pending": 2, "waited": 2} == resolver.get_stats()
    assert 1 == caplog.text.count("values, of 0 MB, are still being computed")
    for value in early:
        value.event.set()
    assert resolver.drain(WAIT_S)
    resolver.put(Value(3.0, ready=True), written.append, 90)
    assert [2.0, 2.0, 0.0, 1.0, 3.0] == written


def test_the_end_does_not_wait_for_what_never_comes(make, caplog):
    resolver, written = make(), []
    value = Value(1.0)
    resolver.put(value, written.append)
    assert not resolver.drain(0.0)
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "tracelet-resolver"]
    resolver.close()
    assert "1 values are still being computed, and will not be recorded" in caplog.text
    value.event.set()
    thread.join(WAIT_S)
    assert not thread.is_alive()
    assert [] == written


def test_after_the_end_each_call_writes_its_own_value(make):
    resolver, written = make(), []
    resolver.close()
    late = Value(2.0)
    threading.Timer(0.01, late.event.set).start()
    resolver.put(late, written.append)
    assert [2.0] == written


def test_where_no_thread_can_be_started_a_call_waits(make, monkeypatch):
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    resolver, written = make(), []
    late = Value(2.0)
    timer = threading.Timer(0.01, late.event.set)
    timer.start()
    with monkeypatch.context() as patched:
        patched.setattr(resolve.threading.Thread, "start", refuse)
        resolver.put(late, written.append)
    assert [2.0] == written


def test_a_signal_handler_that_comes_into_a_call_can_make_the_same_call(make):
    resolver, written, values = make(), [], []

    def handle(*args: object) -> None:
        values.append(Value("signal", ready=True))
        resolver.put(values[-1], written.append)

    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 1e-4, 1e-4)
    try:
        blocker = Value("first")
        resolver.put(blocker, written.append)
        while len(values) < 200:
            resolver.put(Value("loop", ready=True), written.append)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    blocker.event.set()
    assert resolver.drain(WAIT_S)
    assert len(values) == written.count("signal")


def test_a_forked_child_has_none_of_its_parents_values(make):
    resolver, written = make(), []
    mine = Value(1.0)
    resolver.put(mine, written.append)
    pid = os.fork()
    if pid == 0:
        own = Value(2.0)
        resolver.put(own, written.append)
        own.event.set()
        os._exit(0 if resolver.drain(WAIT_S) and written == [2.0] else 1)
    mine.event.set()
    assert 0 == os.waitpid(pid, 0)[1]
    assert resolver.drain(WAIT_S)
    assert [1.0] == written
