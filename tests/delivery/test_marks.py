"""A mark is passed once a backend has got, or rejected, what was logged before it."""

from __future__ import annotations

import threading

import tracelet
from tracelet.delivery.marks import JournalMark
from tracelet.testing import MemoryBackend


def test_a_mark_is_passed_once_the_backend_has_got_what_is_before_it():
    backend, other, released = MemoryBackend(), MemoryBackend("other"), threading.Event()
    backend.stall(until=released)
    with tracelet.Experiment("test", (backend, other)) as experiment:
        experiment.log_text("note", "hello")
        mark = JournalMark.now(experiment.run_dir)
        assert not mark.is_passed_by(experiment.run_dir, "memory")
        released.set()
        assert experiment.flush()
        assert [mark.is_passed_by(experiment.run_dir, name) for name in ("memory", "other")] == [True, True]
        experiment.log_text("note", "once more")
        assert not JournalMark.now(experiment.run_dir).is_passed_by(experiment.run_dir, "unknown")
        assert mark.is_passed_by(experiment.run_dir, "memory")


def test_a_rejected_record_is_passed_too():
    backend = MemoryBackend()
    backend.reject(lambda metric: metric.name == "bad")
    with tracelet.Experiment("test", backend) as experiment:
        experiment.log_text("bad", "hello")
        mark = JournalMark.now(experiment.run_dir)
    assert mark.is_passed_by(experiment.run_dir, "memory")
