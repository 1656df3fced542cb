"""Asks one collector for its records, at an interval.

Threads:
    tracelet-<collector>   `_run`: the only caller of the collector's life cycle and of `collect`.
    the experiment's       `start`, `request_stop`, `join`.

A collector that fails or hangs costs only its own records. Its errors are counted each time and logged on the change of
state. The first reading is always recorded, however short the run: it may hold what the run is about. No record comes
after `join` has returned, whether the thread has ended or not.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, final

from tracelet.core.plugins import Collects, ManagedPlugin
from tracelet.core.records import MetricData

logger = logging.getLogger(__name__)

_HEAD_START_S: Final = 0.01
"""So long a collector lets the training go on first: three that import at once would hold `Experiment.start` for 15 ms.

A thread that computes gives the interpreter away every 5 ms.
"""


@final
class CollectorThread:
    """See the module docstring."""

    def __init__(
        self,
        managed: ManagedPlugin,
        *,
        facts: Mapping[str, Any],
        interval_s: float,
        emit: Callable[[MetricData], None],
        on_error: Callable[[str, BaseException], None],
    ) -> None:
        self.name = managed.name
        self._managed = managed
        self._facts = {**facts, "interval": interval_s}
        self._interval_s = interval_s
        self._emit = emit
        self._on_error = on_error
        self._failing = False
        self._stopping = threading.Event()
        self._emitting = threading.Lock()
        self._abandoned = False
        self._thread = threading.Thread(target=self._run, name=f"tracelet-{self.name}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def request_stop(self) -> None:
        """End after the reading that is under way, if any. Returns at once."""
        self._stopping.set()

    def join(self, timeout_s: float) -> bool:
        """Wait for the end; whether it has come. What the collector gives later is dropped."""
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)
        with self._emitting:
            self._abandoned = self._thread.is_alive()
        return not self._abandoned

    def _run(self) -> None:
        collector = self._managed.plugin
        assert isinstance(collector, Collects)
        self._stopping.wait(_HEAD_START_S)
        try:
            self._managed.initialize(self._facts)
            self._managed.start()
        except Exception as error:
            self._managed.fail(error)
            self._on_error(self.name, error)
            logger.warning(
                "the collector %r can't start; the run goes on without it: %s", self.name, error, exc_info=True
            )
        else:
            self._collect_until_stopped(collector)
        try:
            self._managed.stop()
        except Exception as error:
            self._on_error(self.name, error)
            logger.warning("stop() of the collector %r failed: %s", self.name, error, exc_info=True)

    def _collect_until_stopped(self, collector: Collects) -> None:
        due_s = time.monotonic()
        while True:
            self._collect(collector)
            # By the clock rather than by sleeping an interval: what a reading takes does not add up.
            due_s = max(due_s + self._interval_s, time.monotonic())
            if self._stopping.wait(due_s - time.monotonic()):
                return

    def _collect(self, collector: Collects) -> None:
        try:
            for metric in collector.collect():
                with self._emitting:
                    if self._abandoned:
                        return
                    self._emit(metric)
        except Exception as error:
            self._on_error(self.name, error)
            if not self._failing:
                self._failing = True
                logger.warning("the collector %r fails: %s", self.name, error, exc_info=True)
            return
        if self._failing:
            self._failing = False
            logger.warning("the collector %r works again", self.name)
