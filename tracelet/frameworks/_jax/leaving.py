"""How the metrics of a step get out of the function that computes them.

    tracked        an array of rows leaves with the results of the function: this costs next to nothing
    a callback     out of any other compiled function, or of a `scan` or `vmap` in a tracked one: 0.2 ms a step on a
                   CPU, in which nothing is computed
    neither        in plain Python the row is there at once

`emit` chooses. It is called on the thread that traces, `Outlet.put` on the one that trains, and on JAX's own for
callbacks. Guarantee: nothing waits, and only a wrong metric raises, while a function is traced.

What a compiled function knows of the run is part of what it is compiled for. `tracked` keeps it out of the function. A
callback has it: so a step function is compiled once for each experiment that is named, and only once for all runs that
rely on the active one.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, final

import jax
import numpy as np
from jax.extend.core import get_opaque_trace_state

from tracelet.core.experiment import Experiment
from tracelet.errors import ExperimentStateError
from tracelet.frameworks._jax.rows import NO_STEP, Rows, single

logger = logging.getLogger(__name__)


@final
@dataclass(frozen=True, slots=True)
class Outlet:
    """Where metrics go that have left their function. Equal outlets are of the same experiment.

    Attributes:
        experiment: None: the active one, each time.
        all_processes: Whether other processes of a JAX program than the first one record too.
        place: While a tracked function is traced, that of the state among its arguments, in place of the two above.
    """

    experiment: Experiment | None = None
    all_processes: bool = False
    place: int | None = None
    _warned: set[str] = field(default_factory=set, compare=False, repr=False)

    @property
    def is_named(self) -> bool:
        """Whether it is more than the active experiment in the first process."""
        return self.experiment is not None or self.all_processes

    def put(self, name: str, array: jax.Array | np.ndarray[Any, Any], step: int = NO_STEP) -> None:
        """Record what an array of rows holds.

        Args:
            name: Under it is recorded, as a text, what went wrong if the function could not compute.
            array: Has left its function, and is never given to another one, which might overwrite it.
            step: Of the rows that have none.
        """
        if not (self.all_processes or _is_first_process()):
            return
        experiment = self.experiment or Experiment.active()
        try:
            if experiment is not None:
                rows = Rows(array, step)
                experiment.emit_points(name, rows, rows.size_bytes)
                return
        except ExperimentStateError:
            pass  # It is stopped, or not started yet.
        if not self._warned:
            self._warned.add(name)
            logger.warning("steps are made, but no experiment is running: %r and the like are recorded nowhere", name)


@final
class Collector:
    """The rows that leave with the results of one tracked function, while that is traced."""

    def __init__(self) -> None:
        """Collect what is computed right here, and not in a `scan` inside, whose values can't get out this way."""
        self._place = _place()
        self._rows: list[jax.Array] = []
        self.names: set[str] = set()
        """Of the metrics that leave with a train state of this function."""

    def collect(self, row: jax.Array) -> bool:
        """Take an array of rows, if it is of this place."""
        here = bool(_place() == self._place)
        if here:
            self._rows.append(row)
        return here

    def result(self) -> tuple[jax.Array, ...]:
        """What has been collected."""
        return tuple(self._rows)


@functools.cache  # Once a computation has been made, it stays so.
def _is_first_process() -> bool:
    return bool(jax.process_index() == 0)


def _place() -> object:
    """What is being traced at this time."""
    return get_opaque_trace_state(convention="tracelet")  # type: ignore[no-untyped-call]  # JAX leaves its types out.


class _OfThread(threading.local):
    def __init__(self) -> None:
        self.collectors: list[Collector] = []


_of_thread: Final = _OfThread()


@contextmanager
def collecting() -> Iterator[Collector]:
    """Collect what is emitted in this block."""
    _of_thread.collectors.append(Collector())
    try:
        yield _of_thread.collectors[-1]
    finally:
        _of_thread.collectors.pop()


def collector() -> Collector | None:
    """That of the tracked function that is being traced on this thread."""
    return _of_thread.collectors[-1] if _of_thread.collectors else None


def emit(name: str, step: Any, metrics: Mapping[str, jax.Array], outlet: Outlet) -> None:
    """Record the metrics of a step, wherever they are computed.

    Args:
        name: As in `Outlet.put`.
        step: The step, or `NO_STEP` for the count of the one who records it.
        metrics: From `rows.flattened`.
        outlet: Where they go; if a tracked function collects them, they go where that says.
    """
    forward(name, single(step, metrics), outlet)


def forward(name: str, rows: jax.Array, outlet: Outlet, step: int = NO_STEP) -> None:
    """Record rows that may still be inside of a function, as `emit` and `Outlet.put` do."""
    if not isinstance(rows, jax.core.Tracer):
        outlet.put(name, rows, step)
    elif (collects := collector()) is None or not collects.collect(rows):
        logger.info("%r is recorded by a callback from the device, at each step; see `tracked`", name)
        _call_back(name, rows, outlet)


def _call_back(name: str, rows: jax.Array, outlet: Outlet) -> None:
    _wait_at_end(outlet)
    axes = jax.sharding.get_abstract_mesh().manual_axes  # Of `pmap` and `shard_map`: each device calls.
    device = jax.lax.axis_index(axes) if axes else 0

    def take(rows: Any, device: Any) -> None:
        if int(device) == 0:
            _wait_at_end(outlet)
            outlet.put(name, np.asarray(rows))

    jax.debug.callback(take, rows, device)


def _wait_at_end(outlet: Outlet) -> None:
    experiment = outlet.experiment or Experiment.active()
    if experiment is not None:
        experiment.add_barrier(jax.effects_barrier)
