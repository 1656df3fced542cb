"""A Flax `TrainState` that records its steps: under plain Python, `jit`, `scan`, `pmap` and the rest.

`apply_gradients` is called while the user's step function is traced, and emits the metrics of the step (see `leaving`).
Guarantee: the state is a `TrainState` of its own class, with the same fields and the same leaves, so that a checkpoint
knows nothing of Tracelet. Only a wrong metric raises.

While a `tracked` function is traced, its states are open: they have one leaf more, the rows of their steps. So the rows
get through `scan` and `cond`, out of which nothing comes but what went in.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal, NamedTuple, Self, TypeVar, cast, final, get_args

import jax
from flax import serialization
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
    """What a state has besides its fields.

    Attributes:
        plan: What is recorded.
        outlet: Where it goes.
        number: Which of a tracked function's states it is, while that is traced, or `MADE_INSIDE`; None outside.
        steps: Of a state with a number: what it has done.
    """

    plan: Plan
    outlet: Outlet
    number: int | None = None
    steps: Steps = Steps()


MADE_INSIDE: Final = -1
_NOWHERE: Final = Outlet()


class Recording:
    """What stands before a user's own class of states, to record."""

    _flax_dataclass: ClassVar[bool] = True
    _is_made: ClassVar[bool] = False
    telemetry: ClassVar[Telemetry] = Telemetry(Plan("train", Shape(), MEASURES, None), _NOWHERE)
    """Each state has its own. It is no field: what a state is made of is what its own class says."""

    def __init_subclass__(cls, **options: Any) -> None:
        cls._flax_dataclass = True  # Flax would register the class with JAX; `_register` does.
        super().__init_subclass__(**options)
        dataclasses.dataclass(frozen=True, **options)(cls)
        _register(cls)

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
        new: Self = apply_gradients(grads=grads, **{name: values[name] for name in values.keys() & known})
        _set(new, self.telemetry)
        _record(self, new, grads, {name: value for name, value in values.items() if name not in known})
        return new

    def replace(self, **updates: Any) -> Self:
        """The state with other values of some fields."""
        new: Self = dataclasses.replace(self, **updates)  # type: ignore[type-var]  # As above.
        _set(new, self.telemetry)
        return new

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}  # type: ignore[arg-type]  # As above.
        made = [base for base in type(self).__mro__ if base.__dict__.get("_is_made", False)]
        cls = made[0].__mro__[2] if made[:1] == [type(self)] else type(self)
        return _again, (cls, fields, self.telemetry[:2])


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
    cls: Any = type(state)
    made: State = _set(_recording_class(cls)(**fields), Telemetry(plan, Outlet(experiment, all_processes)))
    return cast(State, opened(made, MADE_INSIDE)) if collector() is not None else made


# -- the states of a tracked function ----------------------------------------------------------------------------------


def opened(state: Any, number: int) -> Any:
    """The state with a leaf more, for the rows of its steps."""
    plan, outlet, *_ = state.telemetry
    return _copied(state, Telemetry(plan, outlet, number))


def closed(state: Any) -> tuple[Any, int, jax.Array | None]:
    """An open state as it is outside, its number, and its rows, if it has made steps."""
    plan, outlet, number, steps = state.telemetry
    return _copied(state, Telemetry(plan, outlet)), number, steps.result(plan.shape, state.step)


def without_outlet(state: Any) -> tuple[Any, Outlet]:
    """The state as a function is compiled for it, whatever the experiment is, and its outlet."""
    plan, outlet, *_ = state.telemetry
    return _copied(state, Telemetry(plan, _NOWHERE)), outlet


def with_outlet(state: Any, outlet: Outlet) -> Any:
    """The state as the user has it."""
    return _copied(state, Telemetry(state.telemetry.plan, outlet))


def _copied(state: Any, telemetry: Telemetry) -> Any:
    new = object.__new__(type(state))
    new.__dict__.update(state.__dict__)
    return _set(new, telemetry)


def _record(old: Any, new: Any, grads: Any, given: Mapping[str, Any]) -> None:
    """Put what a step was like into the rows of the new state, if it is open, or else emit it."""
    plan, outlet, number, steps = old.telemetry
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
    if number is None:
        emit(f"{plan.prefix}/step", new.step, metrics, outlet)
        return
    _set(new, Telemetry(plan, outlet, number, steps.and_this(new.step, metrics)))
    if (collects := collector()) is not None:
        collects.names |= metrics.keys()


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
    namespace = {"__module__": base.__module__, "__doc__": base.__doc__, "_is_made": True}
    return type(f"Tracelet{base.__name__}", (Recording, base), namespace)


def _register(cls: Any) -> None:
    """Make a class a pytree, and known to Flax's checkpoints, with its own fields alone."""
    data = [field.name for field in dataclasses.fields(cls) if field.metadata.get("pytree_node", True)]
    static = [field.name for field in dataclasses.fields(cls) if not field.metadata.get("pytree_node", True)]
    keys = [jax.tree_util.GetAttrKey(name) for name in data]
    rows_key = jax.tree_util.GetAttrKey("rows")

    def flatten(state: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        leaves = [getattr(state, name) for name in data]
        plan, outlet, number, steps = state.telemetry
        if number is not None:
            leaves.append(steps.array(plan.shape, state.step))
        return tuple(leaves), ((plan, outlet, number), *(getattr(state, name) for name in static))

    def flatten_with_keys(state: Any) -> tuple[tuple[tuple[Any, Any], ...], tuple[Any, ...]]:
        leaves, rest = flatten(state)
        return tuple(zip([*keys, rows_key], leaves, strict=False)), rest

    def unflatten(rest: tuple[Any, ...], leaves: Any) -> Any:
        state = object.__new__(cls)
        state.__dict__.update(zip(data, leaves, strict=False))
        state.__dict__.update(zip(static, rest[1:], strict=True))
        plan, outlet, number = rest[0]
        return _set(state, Telemetry(plan, outlet, number, Steps() if number is None else Steps(leaves[-1])))

    def to_state_dict(state: Any) -> dict[str, Any]:
        return {name: serialization.to_state_dict(getattr(state, name)) for name in data}

    def from_state_dict(state: Any, saved: Mapping[str, Any]) -> Any:
        if saved.keys() != set(data):
            raise ValueError(f"a {cls.__name__} has the fields {', '.join(data)}, and not {', '.join(saved)}")
        found = {name: serialization.from_state_dict(getattr(state, name), saved[name], name=name) for name in data}
        return state.replace(**found)

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    serialization.register_serialization_state(cls, to_state_dict, from_state_dict)  # type: ignore[no-untyped-call]  # Flax leaves its types out.


def _set(state: Any, telemetry: Telemetry) -> Any:
    state.__dict__["telemetry"] = telemetry  # The class is frozen.
    return state


def _again(cls: Any, fields: Mapping[str, Any], telemetry: tuple[Plan, Outlet]) -> Any:
    """What a pickled state becomes."""
    return _set(_recording_class(cls)(**fields), Telemetry(*telemetry))


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
