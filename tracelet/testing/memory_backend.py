"""A backend that keeps records in a list, and fails on command.

Threads:
    tracelet-memory   the life cycle and `handle_batch`, as for every backend.
    tracelet-memory-artifacts   `handle_artifact`, where it is made so.
    any thread        `fail`, `stall`, `reject`, `recover`, `wait_until`, and reading `records` and `calls`.

Guarantee: a command holds for every call that begins after the command has returned, and a call that fails has added
nothing to `records`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, final

from tracelet.core.changes import StoredPoint
from tracelet.core.plugins import BackendPlugin, PluginMetadata, PluginType
from tracelet.core.records import MetricData, MetricType
from tracelet.errors import RejectedError, RetryableError

_SCALARS: Final = (MetricType.SCALAR, MetricType.SYSTEM)

Method = Literal["initialize", "start", "handle", "artifact", "flush", "stop"]

_STALL_LIMIT_S: Final = 600.0  # A test that forgets its event is no reason for a thread to stay for ever.


class Call(NamedTuple):
    """A call that the backend got.

    Attributes:
        method: What was called; `handle` for `handle_batch`, `artifact` for `handle_artifact`.
        thread: The name of the thread.
        records: How many records it brought.
    """

    method: Method
    thread: str
    records: int = 0


@final
@dataclass(slots=True)
class _Failure:
    """What a method raises."""

    error: BaseException | type[BaseException]
    times: int | None


@final
class MemoryBackend(BackendPlugin):
    """See the module docstring. Give an instance to the experiment: `Experiment("test", backend=MemoryBackend())`."""

    def __init__(self, name: str = "memory", *, uploads_aside: bool = False) -> None:
        """Make a backend that works.

        Args:
            name: What this instance calls itself, where a test needs several.
            uploads_aside: Whether artifacts come beside all else.
        """
        self.uploads_aside = uploads_aside  # type: ignore[misc]  # the instance has its own
        self.records: list[MetricData] = []
        """What has arrived."""
        self.calls: list[Call] = []
        """Every call, the failing ones included."""
        self.config: Mapping[str, Any] | None = None
        """What `initialize` was given."""
        self._changed = threading.Condition()
        self._failures: dict[Method, _Failure] = {}
        self._stalls: dict[Method, threading.Event] = {}
        self._is_bad: Callable[[MetricData], bool] | None = None
        self.get_metadata = lambda: _metadata(name)  # type: ignore[method-assign]  # the instance has its own name

    @classmethod
    def get_metadata(cls) -> PluginMetadata:
        """Needs no package."""
        return _metadata("memory")

    # -- the test's threads --------------------------------------------------------------------------------------------

    def fail(
        self,
        error: BaseException | type[BaseException] = RetryableError,
        *,
        at: Method = "handle",
        times: int | None = None,
    ) -> None:
        """Raise an error.

        Args:
            error: What to raise.
            at: Where.
            times: In the next calls, so many of them; None: in all.
        """
        with self._changed:
            self._failures[at] = _Failure(error, times)

    def stall(self, until: threading.Event, *, at: Method = "handle") -> None:
        """Do not return before the event has come. It stalls first, and then fails where it should."""
        with self._changed:
            self._stalls[at] = until

    def reject(self, is_bad: Callable[[MetricData], bool]) -> None:
        """Refuse each batch in which there is a record for which this is true."""
        with self._changed:
            self._is_bad = is_bad

    def recover(self) -> None:
        """Work again. What is stalling goes on to stall until its event comes."""
        with self._changed:
            self._failures.clear()
            self._stalls.clear()
            self._is_bad = None

    def wait_until(self, condition: Callable[[], bool], timeout_s: float = 30.0) -> bool:
        """Wait for a condition on `records` or `calls`; whether it has come in time."""
        with self._changed:
            return self._changed.wait_for(condition, timeout_s)

    def count(self, method: Method) -> int:
        """How often a method has been called."""
        return sum(call.method == method for call in self.calls)

    # -- the backend's thread ------------------------------------------------------------------------------------------

    def initialize(self, config: dict[str, Any]) -> None:
        """Keep the configuration."""
        self._called("initialize")
        self.config = config

    def start(self) -> None:
        """Begin."""
        self._called("start")
        self._active = True

    def stop(self) -> None:
        """End; the records stay."""
        self._called("stop")
        self._active = False

    def get_status(self) -> dict[str, Any]:
        """How many records there are."""
        return {"active": self._active, "records": len(self.records)}

    def flush(self) -> None:
        """Nothing is held back."""
        self._called("flush")

    def handle_metric(self, metric: MetricData) -> None:
        """Keep a record."""
        self.handle_batch([metric])

    def handle_batch(self, metrics: Sequence[MetricData]) -> None:
        """Keep all of them, or none."""
        self._called("handle", len(metrics))
        self._keep(metrics)

    def _keep(self, metrics: Sequence[MetricData]) -> None:
        with self._changed:
            if self._is_bad is not None and any(self._is_bad(metric) for metric in metrics):
                raise RejectedError("there is a record among them that the test calls bad")
            self.records.extend(metrics)
            self._changed.notify_all()

    def handle_artifact(self, metric: MetricData) -> None:
        """Keep an artifact."""
        self._called("artifact", 1)
        self._keep([metric])

    def read_back(self, name: str) -> Sequence[StoredPoint]:
        """The points of a series that have arrived."""
        found = (record for record in self.records if record.name == name and record.type in _SCALARS)
        return [StoredPoint(record.iteration, record.value, record.timestamp) for record in found]

    def _called(self, method: Method, records: int = 0) -> None:
        with self._changed:
            self.calls.append(Call(method, threading.current_thread().name, records))
            self._changed.notify_all()
            stall = self._stalls.get(method)
        if stall is not None:
            stall.wait(_STALL_LIMIT_S)
        with self._changed:
            failure = self._failures.get(method)
            if failure is None or failure.times == 0:
                return
            if failure.times is not None:
                failure.times -= 1
        raise failure.error


def _metadata(name: str) -> PluginMetadata:
    return PluginMetadata(
        name=name,
        version="1.0.0",
        type=PluginType.BACKEND,
        description="Keeps records in memory, for tests",
        author="Tracelet",
        capabilities={"metrics", "parameters", "artifacts", "logging", "timestamps"},
    )
