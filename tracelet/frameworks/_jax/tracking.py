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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self, TypeVar, final, overload

import jax

from tracelet.core.experiment import Experiment
from tracelet.frameworks._jax.leaving import Outlet, collecting, emit, forward
from tracelet.frameworks._jax.rows import NO_STEP, flattened, is_number
from tracelet.frameworks._jax.train_state import MADE_INSIDE, Recording, closed, opened, with_outlet, without_outlet

F = TypeVar("F", bound=Callable[..., Any])

_CONTAINERS: Final = (tuple, list, dict)


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
    options = {name: _states(lambda state: without_outlet(state)[0], option) for name, option in options.items()}
    for name, default in (("out_shardings", None), ("out_axes", 0)):
        if name in options:
            options[name] = (options[name], default)
    outlet = Outlet(experiment, all_processes)
    count: Callable[[], int] = itertools.count(first_step).__next__

    @functools.wraps(function)
    def inside(*args: Any, **kwargs: Any) -> tuple[Any, _Leaving]:
        leaving, numbers = _Leaving(), itertools.count()
        with collecting() as collector:
            args, kwargs = _states(lambda state: opened(state, next(numbers)), (args, kwargs))
            found = _states(leaving.close, function(*args, **kwargs))
            metrics = flattened(_numbers(found), prefix)
            if metrics := {name: value for name, value in metrics.items() if name not in collector.names}:
                emit(prefix, _step(found), metrics, outlet)
        for rows in collector.result():
            leaving.add(MADE_INSIDE, rows)
        return found, leaving

    compiled = transform(inside, **options)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        outlets: list[Outlet] = []

        def strip(state: Any) -> Any:
            state, its_outlet = without_outlet(state)
            outlets.append(its_outlet)
            return state

        args, kwargs = _states(strip, (args, kwargs))
        found, leaving = compiled(*args, **kwargs)
        outlets.append(outlet)  # Of the number MADE_INSIDE, which is -1.
        step = count()
        for number, rows in zip(leaving.numbers, leaving.rows, strict=True):
            forward(f"{prefix}/step" if prefix else "step", rows, outlets[number], step)
        owners = iter(leaving.states)
        return _states(lambda state: with_outlet(state, outlets[next(owners)]), found)

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


@final
@jax.tree_util.register_pytree_node_class
@dataclass
class _Leaving:
    """What leaves a function beside its results.

    Attributes:
        rows: Arrays of rows.
        numbers: The number of the state of each array, or `MADE_INSIDE`.
        states: The number of each state in the results.
    """

    rows: list[Any] = field(default_factory=list)
    numbers: tuple[int, ...] = ()
    states: tuple[int, ...] = ()

    def close(self, state: Any) -> Any:
        """Take the rows of a state, and give it as it is outside."""
        state, number, rows = closed(state)
        self.states += (number,)
        if rows is not None:
            self.add(number, rows)
        return state

    def add(self, number: int, rows: jax.Array) -> None:
        """Take rows."""
        self.rows.append(rows)
        self.numbers += (number,)

    def tree_flatten(self) -> tuple[tuple[Any], tuple[tuple[int, ...], ...]]:
        """For JAX."""
        return (self.rows,), (self.numbers, self.states)

    @classmethod
    def tree_unflatten(cls, about: tuple[tuple[int, ...], ...], children: tuple[Any]) -> Self:
        """For JAX."""
        return cls(*children, *about)


def _states(change: Callable[[Any], Any], value: Any) -> Any:
    """The value with each train state in it changed. Looks into tuples, lists and dicts, and into nothing else."""
    if isinstance(value, Recording):
        return change(value)
    if type(value) is dict:
        return {key: _states(change, inner) for key, inner in value.items()}
    if type(value) in _CONTAINERS:
        return type(value)([_states(change, inner) for inner in value])
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
