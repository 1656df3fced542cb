"""What a model tells of itself: parameters for the record, and where its optimizers stand.

Called by the callbacks, on the thread that trains, where Keras keeps the model's state readable: before the first batch
and after the last one of an epoch, never between two. `scheduled_rates` alone reads none, and is called on any thread.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import keras  # type: ignore[import-untyped]  # Keras ships no types.

Schedules = Mapping[str, keras.optimizers.schedules.LearningRateSchedule]
"""The schedules of learning rates, by the names of their series."""


def setting() -> Iterator[tuple[str, Any]]:
    """How Keras is set up, as parameters."""
    yield "keras/version", keras.__version__
    yield "keras/backend", keras.backend.backend()
    yield "keras/dtype_policy", keras.config.dtype_policy().name


def size(model: keras.Model) -> Iterator[tuple[str, Any]]:
    """How many parameters a built model has, as parameters of the run."""
    total, trainable = (
        sum(math.prod(w.shape) for w in weights) for weights in (model.weights, model.trainable_weights)
    )
    yield "model/parameters", total
    yield "model/trainable_parameters", trainable
    yield "model/frozen_parameters", total - trainable


def optimization(model: keras.Model) -> Iterator[tuple[str, Any]]:
    """The optimizers, as parameters."""
    for name, optimizer in optimizers(model).items():
        yield _joined("optimizer", name), _plain(keras.optimizers.serialize(optimizer))


def compilation(model: keras.Model) -> Iterator[tuple[str, Any]]:
    """What else `compile()` was given, as parameters."""
    for name, value in model.get_compile_config().items():
        if name != "optimizer":
            yield f"compile/{name}", _plain(value)


def summary(model: keras.Model) -> str:
    """The table of layers that `model.summary()` prints."""
    lines: list[str] = []
    model.summary(print_fn=lines.append)
    return "\n".join(lines)


def optimizers(model: keras.Model) -> dict[str, keras.optimizers.Optimizer]:
    """A model's optimizers by the names of its attributes, that of `compile()` by an empty name.

    A model that has others, as a GAN does, often gets one from `compile()` that it never uses: that one is left out.
    """
    found = {
        "" if name == "optimizer" else name.lstrip("_"): value
        for name, value in vars(model).items()
        if isinstance(value, keras.optimizers.Optimizer)
    }
    return {name: optimizer for name, optimizer in found.items() if _iterations(optimizer)} or found


def steps_taken(model: keras.Model | None) -> int:
    """Steps that the optimizer has made, also before this process; of several, the one that has made the fewest."""
    return 0 if model is None else min(map(_iterations, optimizers(model).values()), default=0)


def optimizer_state(model: keras.Model | None) -> Iterator[tuple[str, float]]:
    """Learning rates and loss scales, as they stand after the last step."""
    for name, optimizer in ({} if model is None else optimizers(model)).items():
        yield _joined("learning_rate", name), _number(optimizer.learning_rate)
        if isinstance(optimizer, keras.optimizers.LossScaleOptimizer) and optimizer.built:
            yield _joined("loss_scale", name), _number(optimizer.dynamic_scale)


def schedules(model: keras.Model | None) -> Schedules:
    """The schedules of those learning rates that have one."""
    rates = {
        _joined("learning_rate", name): _innermost(optimizer)._learning_rate  # noqa: SLF001 - the public one is a number
        for name, optimizer in ({} if model is None else optimizers(model)).items()
    }
    kind = keras.optimizers.schedules.LearningRateSchedule
    return {name: rate for name, rate in rates.items() if isinstance(rate, kind)}


def scheduled_rates(schedules: Schedules, step: int) -> dict[str, float]:
    """The learning rates of a step."""
    return {name: _number(schedule(step)) for name, schedule in schedules.items()}


def samples_seen(model: keras.Model | None) -> float:
    """How many samples the present epoch has had: `fit` weighs the mean of the loss by them. 0 where nobody counts."""
    means = [] if model is None else [metric for metric in model.metrics if isinstance(metric, keras.metrics.Mean)]
    return next((_number(mean.count) for mean in means if mean.name == "loss"), 0.0)


def _number(value: Any) -> float:
    return float(keras.ops.convert_to_numpy(value))


def _innermost(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    is_wrapper = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    return optimizer.inner_optimizer if is_wrapper else optimizer


def _iterations(optimizer: keras.optimizers.Optimizer) -> int:
    # Of `iterations`, gradient accumulation leaves only each n-th step.
    return int(_number(_innermost(optimizer)._iterations))  # noqa: SLF001 - there is no public one


def _joined(name: str, rest: str) -> str:
    return f"{name}/{rest}" if rest else name


def _plain(value: Any) -> Any:
    """A serialized object of Keras without its packaging: its configuration, and its class as `class`."""
    if isinstance(value, dict) and {"class_name", "config"} <= value.keys():
        name, config = value["class_name"], _plain(value["config"])
        if isinstance(config, dict):
            return {"class": name, **config} if config else name
        return config if name == "function" else {"class": name, "config": config}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
