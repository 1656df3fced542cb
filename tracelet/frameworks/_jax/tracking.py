"""`tracked` compiles a step function whose metrics leave with its results; `capture` adds to them from the inside.

A tracked function is called on the thread that trains. Guarantee: it gives what the function gives, and takes what that
takes; the call does not wait for a device.

    tracked function ─ states without outlets ─> compiled ─ results and rows ─> outlets of the states, and its own
                                                    │
                                       the user's function, with open states, traced once
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, final, overload

import jax

from tracelet.core.experiment import Experiment
from tracelet.frameworks._jax.leaving import Outlet, collecting, emit, forward
from tracelet.frameworks._jax.rows import NO_STEP, flattened, is_number
from tracelet.frameworks._jax.train_state import Recording, closed, opened, with_outlet

F = TypeVar("F", bound=Callable[..., Any])


@overload
def tracked(function: F) -> F: ...


@overload
def tracked(
    *,
    experiment: Experiment | None = None,
    prefix: str = "train",
    first_step: int = 1,
    transform: Callable[..., Any] = jax.jit,
    all_processes: bool = False,
    **options: Any,
) -> Callable[[F], F]: ...


def tracked(
    function: Callable[..., Any] | None = None,
    *,
    experiment: Experiment | None = None,
    prefix: str = "train",
    first_step: int = 1,
    transform: Callable[..., Any] = jax.jit,
    all_processes: bool = False,
    **options: Any,
) -> Callable[..., Any]:
    """Compile a step function, as `jax.jit` does, and record the metrics of each call.

    Recorded are: the numbers in the mapping that the function gives, alone or behind the state
    (`return state, {"loss": loss}`), what `capture` and `monitor` add, and the steps of each `TraceletTrainState`.

    Args:
        function: The step function, not compiled. Without it, a decorator with these options.
        experiment: What records. None: the active one, each time. A train state has its own.
        prefix: In front of the names of metrics.
        first_step: The step of the first call, where no step is given. A state that the function gives first has one,
            if it has an attribute `step`.
        transform: What compiles it: `jax.jit`, `jax.pmap`, `nnx.jit`.
        all_processes: In a JAX program of several processes, record in each one, and not in the first one only.
        **options: For `transform`, such as `donate_argnums=0`.
    """
    if function is None:
        keywords = {"experiment": experiment, "prefix": prefix, "first_step": first_step, "transform": transform}
        return functools.partial(tracked, **keywords, all_processes=all_processes, **options)
    # A tree of shardings that was made of a state is a state, too.
    options = {key: _changed(option, lambda state: with_outlet(state, Outlet())) for key, option in options.items()}
    for key, default in (("out_shardings", None), ("out_axes", 0)):
        if key in options:
            options[key] = (options[key], default)
    outlet = Outlet(experiment, all_processes)
    name = f"{prefix}/step" if prefix else "step"
    count: Callable[[], int] = itertools.count(first_step).__next__

    @functools.wraps(function)
    def inside(*args: Any, **kwargs: Any) -> tuple[Any, _Leaving]:
        places, closing = itertools.count(), _Closing()
        with collecting() as collector:
            args, kwargs = _changed((args, kwargs), lambda state: opened(state, next(places)))
            found = _changed(function(*args, **kwargs), closing.close)
            metrics = flattened(_numbers(found), prefix)
            if metrics := {key: value for key, value in metrics.items() if key not in collector.names}:
                emit(name, _step(found), metrics, outlet)
        return found, closing.result(outlet, collector.result())

    compiled = transform(inside, **options)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        outlets: list[Outlet] = []

        def strip(state: Any) -> Any:
            outlets.append(state.telemetry.outlet)
            return with_outlet(state, Outlet()) if state.telemetry.outlet.is_named else state

        found, leaving = compiled(*_changed(args, strip), **_changed(kwargs, strip))
        (((owners, states), arrays),) = leaving.items()
        step = count()
        for owner, rows in zip(owners, arrays, strict=True):
            forward(name, rows, owner if owner.place is None else outlets[owner.place], step)
        if not any(its.is_named for its in outlets):
            return found
        those = iter(states)

        def restore(state: Any) -> Any:
            owner = next(those)
            return with_outlet(state, owner if owner.place is None else outlets[owner.place])

        return _changed(found, restore)

    return call


def capture(metrics: Mapping[str, Any], step: Any = None, *, prefix: str = "train") -> None:
    """Record numbers from within a compiled function; see `leaving` for how they get out, and what that costs.

    Args:
        metrics: The numbers, by name; mappings may be nested.
        step: The step. None: in a tracked function, that of the call; elsewhere the experiment counts.
        prefix: In front of the names.

    Raises:
        UsageError: One of them is no single real number.
    """
    found = flattened(metrics, prefix)
    emit(prefix or "capture", NO_STEP if step is None else step, found, Outlet())


_Leaving = dict[tuple[tuple[Outlet, ...], tuple[Outlet, ...]], tuple[Any, ...]]
"""What leaves a function beside its results: arrays of rows. The key has the outlets of these, and of the states.

It is a dict, since the keys of a dict are a part of what is compiled, and JAX makes it in C++.
"""


@final
class _Closing:
    """Takes the rows of the states that a function gives."""

    def __init__(self) -> None:
        self._rows: list[tuple[Outlet, jax.Array]] = []
        self._states: list[Outlet] = []

    def close(self, state: Any) -> Any:
        """The state as it is outside."""
        state, outlet, rows = closed(state)
        self._states.append(outlet)
        if rows is not None:
            self._rows.append((outlet, rows))
        return state

    def result(self, outlet: Outlet, collected: Sequence[jax.Array]) -> _Leaving:
        """Its rows, and those that were collected elsewhere, for an outlet."""
        rows = [*self._rows, *((outlet, row) for row in collected)]
        return {(tuple(owner for owner, _ in rows), tuple(self._states)): tuple(row for _, row in rows)}


def _changed(value: Any, change: Callable[[Any], Any]) -> Any:
    """The value with each train state in it changed, in JAX's order. Looks into tuples, lists and dicts only."""
    if isinstance(value, Recording):
        return change(value)
    if type(value) is dict:
        return {key: _changed(value[key], change) for key in sorted(value)} if value else value
    if type(value) is tuple or type(value) is list:
        return type(value)([_changed(inner, change) for inner in value])
    return value


def _numbers(found: Any) -> dict[str, Any]:
    """The metrics in what a function gives: of a mapping, all that are numbers, alone or in mappings of their own."""
    if isinstance(found, tuple):
        found = next((part for part in found if type(part) is dict), None)
    if type(found) is not dict:
        return {}
    numbers = {}
    for name, value in found.items():
        if isinstance(value, Mapping):
            numbers[name] = _numbers(dict(value))
        elif is_number(value):
            numbers[name] = value
    return numbers


def _step(found: Any) -> Any:
    """The step of a state that a function gives, alone or first."""
    state = found[0] if isinstance(found, tuple) and found else found
    step = getattr(state, "step", None)
    return step if isinstance(step, (int, jax.Array)) else NO_STEP
