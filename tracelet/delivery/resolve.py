"""Writes values that are still being computed, as soon as they are there.

    any thread           `put`: also signal handlers and forked children
    tracelet-resolver    waits for the values and writes them, in the order in which they were put
    the experiment's     `drain`, `close`

Guarantee: `put` does not wait, but for one case: when values are pending up to the bound, it waits for its own and
writes that before the others. A value that could not be computed is written as well: the writer gets the error. What is
pending when the process is killed is lost.

The resolver looks every `_POLL_S` whether the oldest value is ready, and writes all that are. To wait for each would
take the interpreter from the training once for every value.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, Protocol, TypeVar, final

from tracelet.journal import forking
from tracelet.utils import jax_arrays, pending
from tracelet.utils.values import is_a

logger = logging.getLogger(__name__)

MAX_PENDING: Final = 100_000
"""So many values may be pending: up to 300 MB on the host."""

MAX_BYTES: Final = 256 << 20
"""So much may they hold on their devices."""

_POLL_S: Final = 0.01

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Deferred(Protocol[T_co]):
    """A value that may still be computed."""

    def is_ready(self) -> bool:
        """Whether `result` returns at once."""

    def result(self) -> T_co:
        """The value. Waits for it.

        Raises:
            Exception: It could not be computed.
        """


def is_on_device(value: Any) -> bool:
    """Whether a device may still be computing the value. Imports no framework.

    Raises:
        UsageError: It is a tracer of JAX, which has no value.
    """
    return (
        jax_arrays.is_array(value)
        or isinstance(value, pending.Pending)
        or (is_a(value, "torch", "Tensor") and not value.is_cpu)
    )


def defer(values: Sequence[Any]) -> Together:
    """Keep values as they are now, those of devices and others. Starts copies, and waits for nothing.

    Raises:
        UsageError: One is a tracer of JAX.
    """
    of_jax = [place for place, value in enumerate(values) if jax_arrays.is_array(value)]
    kept = jax_arrays.keep([values[place] for place in of_jax])
    parts: list[tuple[Sequence[int], Deferred[Sequence[Any]]]] = [(of_jax, kept)]
    for place, value in enumerate(values):
        number = pending.pending(value)
        if number is not None:
            parts.append(([place], _Single(number)))
    return Together(values, parts, kept.size_bytes)


@final
class Together:
    """Several values, some of which are still computed."""

    def __init__(
        self,
        values: Sequence[Any],
        parts: Sequence[tuple[Sequence[int], Deferred[Sequence[Any]]]],
        size_bytes: int,
    ) -> None:
        """Take the values of the host as they are, and in the places of each part what that gives."""
        self.size_bytes = size_bytes
        kept = {place for places, _ in parts for place in places}
        self._values = [None if place in kept else value for place, value in enumerate(values)]
        self._parts = parts

    def is_ready(self) -> bool:
        """As `Deferred`."""
        return all([part.is_ready() for _, part in self._parts])  # noqa: C419 - a generator takes twice as long

    def result(self) -> list[Any]:
        """The values; in place of one that could not be computed, the error."""
        values = list(self._values)
        for places, part in self._parts:
            for place, value in zip(places, part.result(), strict=True):
                values[place] = value
        return values


@final
class _Single:
    """One number, as a part of several values."""

    def __init__(self, number: pending.Pending[Any]) -> None:
        self._number = number

    def is_ready(self) -> bool:
        return self._number.is_ready()

    def result(self) -> Sequence[Any]:
        try:
            return (self._number.result(),)
        except RuntimeError as error:
            return (error,)


@final
class _Entry(Generic[T]):
    """A value that is to be written."""

    __slots__ = ("_value", "_write", "size_bytes")

    def __init__(self, value: Deferred[T], write: Callable[[T | Exception], None], size_bytes: int) -> None:
        self._value, self._write, self.size_bytes = value, write, size_bytes

    def is_ready(self) -> bool:
        try:
            return self._value.is_ready()
        except Exception:  # noqa: BLE001 - as below; `result` will raise it again
            return True

    def settle(self) -> None:
        """Wait for the value, and write it."""
        found: T | Exception
        try:
            found = self._value.result()
        except Exception as error:  # noqa: BLE001 - a device and a framework may raise anything; the record says what
            found = error
        try:
            self._write(found)
        except Exception as error:  # The thread goes on.
            logger.warning("a value that was computed late can't be written: %s", error, exc_info=True)


@final
class Resolver:
    """See the module docstring."""

    def __init__(self, max_pending: int = MAX_PENDING, max_bytes: int = MAX_BYTES) -> None:
        """Make one. Its thread starts with the first value that is not ready."""
        self._max_pending, self._max_bytes = max_pending, max_bytes
        self.barriers: set[Callable[[], None]] = set()
        """What `drain` calls first. They wait until all is put that is on its way."""
        self._waited = 0
        self._is_closed = False
        self._reset()
        forking.watch(self)

    def _reset(self) -> None:
        # A signal handler may come into the middle of its `put` and call it too: that of `queue.Queue` would deadlock.
        self._queue: queue.SimpleQueue[_Entry[Any] | threading.Event | None] = queue.SimpleQueue()
        self._pending: dict[int, _Entry[Any]] = {}  # By `id`: to set and to delete an item needs no lock.
        self._bytes = 0
        self._urgent = threading.Event()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()  # Only ever tried.

    def become_child(self) -> None:
        """In a forked child: what is pending is its parent's."""
        self._reset()

    def get_stats(self) -> dict[str, int]:
        """How many values are `pending`, and how often a call `waited`, for the bound was reached."""
        return {"pending": len(self._pending), "waited": self._waited}

    # -- any thread ----------------------------------------------------------------------------------------------------

    def put(self, value: Deferred[T], write: Callable[[T | Exception], None], size_bytes: int = 0) -> None:
        """Have a value written: now, if it is ready and none is pending, else by the resolver.

        Args:
            value: The value.
            write: Writes it, or what went wrong.
            size_bytes: What it holds on its device.
        """
        entry = _Entry(value, write, size_bytes)
        if self._is_closed or (not self._pending and entry.is_ready()):
            entry.settle()
        elif len(self._pending) >= self._max_pending or self._bytes + size_bytes > self._max_bytes:
            self._wait_for(entry)
        elif self._is_running():
            self._pending[id(entry)] = entry
            self._bytes += size_bytes
            self._queue.put(entry)
        else:
            entry.settle()

    def _wait_for(self, entry: _Entry[Any]) -> None:
        self._waited += 1
        if self._waited == 1:
            logger.warning(
                "%d values, of %d MB, are still being computed, and more are not kept at a time: log calls wait for "
                "theirs from here on. Does the device stand still?", len(self._pending), self._bytes >> 20,
            )  # fmt: skip
        entry.settle()

    def _is_running(self) -> bool:
        """Start the thread where there is none. False where none can be started."""
        if self._thread is None and self._starting.acquire(blocking=False):
            try:
                thread = threading.Thread(target=self._run, args=(self._queue,), name="tracelet-resolver", daemon=True)
                thread.start()
                self._thread = thread
            except RuntimeError as error:  # The interpreter is on its way out, or there are too many threads.
                logger.debug("no thread can be started for values that are still being computed: %s", error)
                return False
            finally:
                self._starting.release()
        return True  # Also where another call is about to start it.

    # -- the experiment's thread ---------------------------------------------------------------------------------------

    def drain(self, timeout_s: float) -> bool:
        """Wait until all that has been put is written; whether it was so in time."""
        for barrier in tuple(self.barriers):
            try:
                barrier()
            except Exception as error:  # noqa: BLE001 - a device may raise anything; who waits for its results gets it too
                logger.debug("%r failed: %s", barrier, error)
        if not self._pending:
            return True
        done = threading.Event()
        self._urgent.set()
        self._queue.put(done)
        return done.wait(timeout_s)

    def close(self) -> None:
        """End. What is put from now on is written at once; what is pending never is."""
        self._is_closed = True
        self._urgent.set()
        self._queue.put(None)
        if self._pending:
            logger.warning("%d values are still being computed, and will not be recorded", len(self._pending))
        elif self._thread is not None:
            self._thread.join()

    # -- the resolver --------------------------------------------------------------------------------------------------

    def _run(self, source: queue.SimpleQueue[_Entry[Any] | threading.Event | None]) -> None:
        while (entry := source.get()) is not None:
            if isinstance(entry, threading.Event):
                self._urgent.clear()
                entry.set()
                continue
            while not entry.is_ready() and not self._urgent.wait(_POLL_S):
                pass
            if self._is_closed:
                return
            entry.settle()
            self._bytes -= entry.size_bytes
            del self._pending[id(entry)]
            if not self._pending:
                self._bytes = 0  # Threads that add to it at the same time may lose some of it.
