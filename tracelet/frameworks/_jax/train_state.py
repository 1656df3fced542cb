"""A Flax `TrainState` that records its steps: under plain Python, `jit`, `scan`, `pmap` and the rest.

`apply_gradients` is called while the user's step function is traced, and emits the metrics of the step (see `leaving`).
Guarantee: the state is a `TrainState` of its own class, with the same leaves, so that a checkpoint knows nothing of
Tracelet; it is a Flax dataclass with one static field more. Only a wrong metric raises.

While a `tracked` function is traced, its states are open: they have one leaf more, the rows of their steps. So the rows
get through `scan` and `cond`, out of which nothing comes but what went in.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal, NamedTuple, Self, TypeVar, final, get_args

import jax
from flax import struct
from flax.linen.fp8_ops import OVERWRITE_WITH_GRADIENT
from flax.training.dynamic_scale import DynamicScale
from flax.training.train_state import TrainState

from tracelet.core.experiment import Experiment
from tracelet.errors import UsageError
from tracelet.frameworks._jax.leaving import Outlet, collector, emit
from tracelet.frameworks._jax.measuring import learning_rates, moved, norm
from tracelet.frameworks._jax.rows import Shape, Steps, flattened

Measure = Literal["grad_norm", "update_norm", "param_norm", "learning_rate"]

MEASURES: Final[tuple[Measure, ...]] = get_args(Measure)

State = TypeVar("State", bound=TrainState)


@final
@dataclass(frozen=True, slots=True)
class Plan:
    """What is recorded of a state. A part of what a step function is compiled for.

    Attributes:
        prefix: In front of the names of metrics.
        shape: The size of the rows of one call.
        measure: What is recorded besides the metrics that are given.
        learning_rate: As in `wrap`.
    """

    prefix: str
    shape: Shape
    measure: tuple[Measure, ...]
    learning_rate: float | Callable[[Any], Any] | None


@final
class Telemetry(NamedTuple):
    """What is recorded of a state, and where it goes."""

    plan: Plan
    outlet: Outlet


_DEFAULT: Final = Telemetry(Plan("train", Shape(), MEASURES, None), Outlet())


class Recording:
    """What stands before a user's own class of states, to record."""

    telemetry: Telemetry

    _base: ClassVar[type | None] = None  # Of a class that `wrap` has made: the user's.

    def apply_gradients(self, *, grads: Any, **values: Any) -> Self:
        """Make a step, and record it.

        Args:
            grads: As in `TrainState`.
            **values: New values of fields, as in `TrainState`; all others are metrics: `loss=loss, accuracy=accuracy`.

        Raises:
            UsageError: A metric is no single number, or there are more of them than `max_metrics`.
        """
        apply_gradients = super().apply_gradients  # type: ignore[misc]  # That of the `TrainState` after this class.
        known = {field.name for field in dataclasses.fields(self)}  # type: ignore[arg-type]  # It is a dataclass then.
        known |= inspect.signature(apply_gradients).parameters.keys()
        new = apply_gradients(grads=grads, **{name: values[name] for name in values.keys() & known})
        metrics = {name: value for name, value in values.items() if name not in known}
        recorded: Self = _recorded(self, new, grads, metrics)
        return recorded

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}  # type: ignore[arg-type]  # As above.
        return _again, (self._base or type(self), fields)


def wrap(
    state: State,
    *,
    experiment: Experiment | None = None,
    prefix: str = "train",
    measure: Sequence[Measure] = MEASURES,
    learning_rate: float | Callable[[Any], Any] | None = None,
    history: int = 128,
    max_metrics: int = 14,
    all_processes: bool = False,
) -> State:
    """A train state that does what the given one does, and records its steps.

    Args:
        state: A `TrainState`, or an instance of a subclass of it.
        experiment: What records. None: the active one, each time.
        prefix: In front of the names of metrics.
        measure: What is recorded besides the metrics that `apply_gradients` is given.
        learning_rate: The learning rate, or the schedule that gives it for a step, where `optax.inject_hyperparams`
            does not put it into the state.
        history: So many steps of one call of a tracked function are kept, the last ones. A `scan` makes many.
        max_metrics: So many metrics may one step of such a function have; one of 64 bits counts as two.
        all_processes: In a JAX program of several processes, record in each one, and not in the first one only.

    Raises:
        UsageError: One of these values makes no sense.
    """
    if not set(measure) <= set(MEASURES) or history < 1 or max_metrics < 1:
        raise UsageError(
            f"measure has some of {', '.join(MEASURES)}, and history and max_metrics are 1 at least; not "
            f"{measure!r}, {history!r} and {max_metrics!r}"
        )
    plan = Plan(prefix, Shape(history, max_metrics), tuple(measure), learning_rate)
    fields = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    fields["telemetry"] = Telemetry(plan, Outlet(experiment, all_processes))
    cls: Any = type(state)
    made: State = _recording_class(cls)(**fields)
    return made if collector() is None else opened(made)


# -- open states -------------------------------------------------------------------------------------------------------


def opened(state: Any, place: int | None = None) -> Any:
    """The state with a leaf more, for the rows of its steps; `place` is its own among the arguments of the function."""
    cls: Any = type(state)
    plan, outlet = state.telemetry
    telemetry = Telemetry(plan, outlet if place is None else dataclasses.replace(outlet, place=place))
    return _with_steps(_copied(state, _open_class(cls), telemetry), Steps())


def closed(state: Any) -> tuple[Any, Outlet, jax.Array | None]:
    """An open state as it is outside, where its rows go, and these, if it has made steps."""
    plan, outlet = state.telemetry
    rows = state.steps.result(plan.shape, state.step)
    new = _copied(state, type(state).__mro__[1], Telemetry(plan, dataclasses.replace(outlet, place=None)))
    del new.__dict__["steps"]
    return new, outlet, rows


def with_outlet(state: Any, outlet: Outlet) -> Any:
    """The state with another outlet."""
    return _copied(state, type(state), Telemetry(state.telemetry.plan, outlet))


def _copied(state: Any, cls: Any, telemetry: Telemetry) -> Any:
    new = object.__new__(cls)
    new.__dict__.update(state.__dict__, telemetry=telemetry)
    return new


def _with_steps(state: Any, steps: Steps) -> Any:
    state.__dict__["steps"] = steps  # It is no field: the class is frozen, and the user's.
    return state


def _recorded(old: Any, new: Any, grads: Any, given: Mapping[str, Any]) -> Any:
    """The new state; what the step was like is emitted, or is in its rows if it is open."""
    plan, outlet = old.telemetry
    found = dict(given)
    if "grad_norm" in plan.measure:
        found["grad_norm"] = norm(_trained(grads))
    if "update_norm" in plan.measure:
        found["update_norm"] = moved(_trained(new.params), _trained(old.params))
    if "param_norm" in plan.measure:
        found["param_norm"] = norm(_trained(new.params))
    if "learning_rate" in plan.measure:
        rate = plan.learning_rate
        rates = {"learning_rate": rate(old.step) if callable(rate) else rate}
        found |= learning_rates(new.opt_state) if rate is None else rates
    for field in dataclasses.fields(new):
        if isinstance(value := getattr(new, field.name), DynamicScale):
            found["loss_scale"] = value.scale
    metrics = flattened(found, plan.prefix)
    steps: Steps | None = old.__dict__.get("steps")
    if steps is None:
        emit(f"{plan.prefix}/step", new.step, metrics, outlet)
        return new
    if (collects := collector()) is not None:
        collects.names |= metrics.keys()
    return _with_steps(new, steps.and_this(new.step, metrics))


def _trained(tree: Any) -> Any:
    """What the optimizer is for: all but what its gradient overwrites, the scales of FP8."""
    return tree["params"] if not isinstance(tree, jax.Array) and OVERWRITE_WITH_GRADIENT in tree else tree


# -- classes -----------------------------------------------------------------------------------------------------------


@functools.cache
def _recording_class(base: Any) -> Any:
    """The class of the states of this class that record; there is one of each."""
    if issubclass(base, Recording):
        return base
    if base is TrainState:
        return TraceletTrainState
    field = struct.field(pytree_node=False, kw_only=True, default=_DEFAULT)  # type: ignore[no-untyped-call]  # Flax leaves its types out.
    namespace = {"__annotations__": {"telemetry": Telemetry}, "telemetry": field, "_base": base}
    return type(f"Tracelet{base.__name__}", (Recording, base), {"__module__": base.__module__, **namespace})


@functools.cache
def _open_class(cls: Any) -> Any:
    """The class of the open states of this class. It flattens to one leaf more."""
    data = [field.name for field in dataclasses.fields(cls) if field.metadata.get("pytree_node", True)]
    static = [field.name for field in dataclasses.fields(cls) if not field.metadata.get("pytree_node", True)]
    keys = [jax.tree_util.GetAttrKey(name) for name in (*data, "rows")]

    def replace(state: Any, **updates: Any) -> Any:
        return _with_steps(dataclasses.replace(state, **updates), state.steps)

    namespace = {"__module__": cls.__module__, "__doc__": cls.__doc__, "_flax_dataclass": True, "replace": replace}
    made = type(cls.__name__, (cls,), namespace)  # By that flag, Flax does not make it known to JAX.

    def flatten(state: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        rows = state.steps.array(state.telemetry.plan.shape, state.step)
        return (*(getattr(state, name) for name in data), rows), tuple(getattr(state, name) for name in static)

    def flatten_with_keys(state: Any) -> tuple[tuple[tuple[Any, Any], ...], tuple[Any, ...]]:
        leaves, rest = flatten(state)
        return tuple(zip(keys, leaves, strict=True)), rest

    def unflatten(rest: tuple[Any, ...], leaves: Any) -> Any:
        *leaves, rows = leaves
        state: Any = object.__new__(made)
        state.__dict__.update(zip((*data, *static), (*leaves, *rest), strict=True))
        return _with_steps(state, Steps(rows))

    jax.tree_util.register_pytree_with_keys(made, flatten_with_keys, unflatten, flatten)
    return made


def _again(cls: Any, fields: Mapping[str, Any]) -> Any:
    """What a pickled state becomes."""
    return _recording_class(cls)(**fields)


class TraceletTrainState(Recording, TrainState):  # Not final: users add fields, as to Flax's own.
    """A `TrainState` that records its steps.

    ```python
    state = TraceletTrainState.create(apply_fn=model.apply, params=params, tx=optax.adam(1e-3))


    @tracked(donate_argnums=0)
    def train_step(state, batch):
        loss, grads = jax.value_and_grad(loss_of)(state.params, batch)
        return state.apply_gradients(grads=grads, loss=loss)
    ```
    """

    telemetry: Telemetry = struct.field(pytree_node=False, kw_only=True, default=_DEFAULT)  # type: ignore[no-untyped-call]  # As above.

    @classmethod
    def create(
        cls,
        *,
        apply_fn: Callable[..., Any] | None,
        params: Any,
        tx: Any,
        experiment: Experiment | None = None,
        prefix: str = "train",
        measure: Sequence[Measure] = MEASURES,
        learning_rate: float | Callable[[Any], Any] | None = None,
        history: int = 128,
        max_metrics: int = 14,
        all_processes: bool = False,
        **fields: Any,
    ) -> Self:
        """A new state at step 0.

        Args:
            apply_fn: As in `TrainState`, as are the next two.
            params: The parameters.
            tx: The optimizer.
            experiment: As in `wrap`, as are the next ones.
            prefix: In front of the names of metrics.
            measure: What is recorded besides the metrics that are given.
            learning_rate: Where the optimizer does not tell it.
            history: So many steps of one call are kept.
            max_metrics: So many metrics may a step have.
            all_processes: Record in each process.
            **fields: Those of a subclass.

        Raises:
            UsageError: As `wrap`.
        """
        state: Self = super().create(apply_fn=apply_fn, params=params, tx=tx, **fields)  # type: ignore[no-untyped-call]  # Flax leaves its types out.
        return wrap(
            state,
            experiment=experiment,
            prefix=prefix,
            measure=measure,
            learning_rate=learning_rate,
            history=history,
            max_metrics=max_metrics,
            all_processes=all_processes,
        )
