"""How much longer a step of a Flax training takes with a train state that records five values of each step.

The step is a compiled one of about 1 ms, on one thread, of a small network on scikit-learn's digits; the five values
are the loss, the norms of gradients, update and parameters, and the learning rate. Once each step is a call, once 48 of
them are one `lax.scan`. A case and the bare training take turns of 48 steps, in the order bare, case, case, bare, each
until the device is done, and many times over: a ratio is the median of those of such rounds, so that whatever else the
machine does hits both alike. The figures are medians for one step: the time it takes, and the CPU time of the whole
process, in which what other threads do counts too, and part of which passes while the device computes.

In the row "computed, not recorded" the step computes the same values, and nobody reads them. `clu.metric_writers` can't
be imported without TensorFlow. Its asynchronous writer turns values into floats on a thread, as "float of each on a
thread" does.
"""

from __future__ import annotations

import concurrent.futures
import functools
import logging
import os
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from benchmarks.measuring import Row, Target, in_new_process, scaled, scratch_experiment, show

_ROUNDS = 40
_STEPS = 48  # Of one turn, and of one scan.
_BATCH = 256
_LIMIT = 1.03
_BARE, _COMPUTED, _TRACKED, _CALLBACK = (
    "bare TrainState",
    "the five values computed, not recorded",
    "TraceletTrainState, tracked",
    "TraceletTrainState, jit: callbacks",
)

Values = dict[str, Any]
Case = Callable[[int], None]


def main(scale: float = 1.0) -> None:
    """Measure and print."""
    in_new_process(_measure, scale)


def _measure(scale: float) -> None:
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    os.environ["JAX_PLATFORMS"] = "cpu"
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="tracelet-benchmark-") as directory, scratch_experiment():
        import wandb
        from torch.utils.tensorboard import SummaryWriter

        board = SummaryWriter(f"{directory}/board")
        run = wandb.init(mode="offline", dir=directory, settings=wandb.Settings(silent=True))

        def write(values: Values, step: int) -> None:
            for name, value in values.items():
                board.add_scalar(name, float(value), step)

        loops: dict[str, Case] = {
            _TRACKED: _ours(),
            _COMPUTED: _peer(lambda values, step: None),
            _CALLBACK: _called_back(),
            "float(loss) each step": _peer(lambda values, step: float(values["train/loss"])),
            "float of each": _peer(lambda values, step: [float(value) for value in values.values()]),
            "float of each on a thread": _on_thread(),
            "TensorBoard": _peer(write),
            "W&B offline": _peer(lambda values, step: run.log({name: float(v) for name, v in values.items()})),
        }
        rounds = scaled(_ROUNDS, scale, 2)
        _show("jit: one step", _run(_bare(), loops, rounds))
        _show(f"scan of {_STEPS}: one step", _run(_bare_scan(), {_TRACKED: _our_scan()}, 2 * rounds))
        board.close()
        run.finish()


# -- the training ------------------------------------------------------------------------------------------------------


@functools.cache
def _batch() -> tuple[Any, Any]:
    import jax.numpy as jnp
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return jnp.asarray(images[:_BATCH].reshape(-1, 8, 8, 1) / 16, jnp.float32), jnp.asarray(labels[:_BATCH])


@functools.cache
def _network() -> Any:
    from flax import linen as nn

    class Network(nn.Module):
        @nn.compact
        def __call__(self, images: Any) -> Any:
            hidden = nn.relu(nn.Conv(16, (3, 3), (2, 2))(images))
            hidden = nn.relu(nn.Dense(96)(hidden.reshape(len(hidden), -1)))
            return nn.Dense(10)(hidden)

    return Network()


def _state() -> Any:
    import jax
    from flax.training.train_state import TrainState

    network = _network()
    params = network.init(jax.random.key(0), _batch()[0])["params"]
    return TrainState.create(apply_fn=network.apply, params=params, tx=_optimizer())


@functools.cache
def _optimizer() -> Any:
    import optax

    return optax.inject_hyperparams(optax.adam)(learning_rate=1e-3)


def _gradients(state: Any, batch: Any) -> Any:
    import jax
    import optax

    def loss_of(params: Any) -> Any:
        logits = state.apply_fn({"params": params}, batch[0])
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]).mean()

    return jax.value_and_grad(loss_of)(state.params)


def _plain_step(state: Any, batch: Any) -> Any:
    loss, grads = _gradients(state, batch)
    return state.apply_gradients(grads=grads), loss


def _recording_step(state: Any, batch: Any) -> Any:
    loss, grads = _gradients(state, batch)
    return state.apply_gradients(grads=grads, loss=loss)


def _computing_step(state: Any, batch: Any) -> Any:
    from tracelet.frameworks._jax.measuring import learning_rates, moved, norm

    loss, grads = _gradients(state, batch)
    new = state.apply_gradients(grads=grads)
    norms = {"grad": norm(grads), "update": moved(new.params, state.params), "param": norm(new.params)}
    values = {"loss": loss, **{f"{name}_norm": value for name, value in norms.items()}, **learning_rates(new.opt_state)}
    return new, {f"train/{name}": value for name, value in values.items()}


# -- the cases: each makes so many steps, and waits for the device at the end ------------------------------------------


def _loop(step: Callable[[Any], Any], state: Any, stride: int = 1) -> Case:
    import jax

    kept = [state]

    def run(steps: int) -> None:
        state = kept[0]
        for _ in range(steps // stride):
            state = step(state)
        kept[0] = jax.block_until_ready(state)

    return run


def _bare() -> Case:
    import jax

    compiled = jax.jit(_plain_step, donate_argnums=0)
    return _loop(lambda state: compiled(state, _batch())[0], _state())


def _ours() -> Case:
    from tracelet.frameworks.jax_framework import tracked, wrap

    compiled = tracked(_recording_step, donate_argnums=0)
    return _loop(lambda state: compiled(state, _batch()), wrap(_state()))


def _called_back() -> Case:
    import jax

    from tracelet.frameworks.jax_framework import wrap

    compiled = jax.jit(_recording_step, donate_argnums=0)
    return _loop(lambda state: compiled(state, _batch()), wrap(_state()))


def _peer(record: Callable[[Values, int], object]) -> Case:
    import itertools

    import jax

    compiled = jax.jit(_computing_step, donate_argnums=0)
    count = itertools.count(1).__next__

    def step(state: Any) -> Any:
        state, values = compiled(state, _batch())
        record(values, count())
        return state

    return _loop(step, _state())


def _on_thread() -> Case:
    pool = concurrent.futures.ThreadPoolExecutor(1)
    return _peer(lambda values, step: pool.submit(lambda: [float(value) for value in values.values()]))


def _bare_scan() -> Case:
    import jax

    compiled = jax.jit(lambda state, batch: _scan(_plain_step, state, batch)[0], donate_argnums=0)
    return _loop(lambda state: compiled(state, _batch()), _state(), _STEPS)


def _our_scan() -> Case:
    from tracelet.frameworks.jax_framework import tracked, wrap

    def many(state: Any, batch: Any) -> Any:
        return _scan(lambda state, batch: (_recording_step(state, batch), None), state, batch)[0]

    compiled = tracked(many, donate_argnums=0)
    return _loop(lambda state: compiled(state, _batch()), wrap(_state()), _STEPS)


def _scan(step: Callable[[Any, Any], Any], state: Any, batch: Any) -> Any:
    import jax

    return jax.lax.scan(lambda state, _: step(state, batch), state, None, length=_STEPS)


# -- the figures -------------------------------------------------------------------------------------------------------


@final
@dataclass(frozen=True, slots=True)
class Round:
    """CPU and wall time of a step, in microseconds: of a case, and of the bare training before and after."""

    case: tuple[float, float]
    bare: tuple[float, float]


def _run(bare: Case, cases: Mapping[str, Case], rounds: int) -> dict[str, list[Round]]:
    for run in (bare, *cases.values()):
        run(_STEPS)  # Compiled, and files are made.
    found: dict[str, list[Round]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name in random.sample(list(cases), len(cases)):
            times = [_time(run) for run in (bare, cases[name], cases[name], bare)]
            found[name].append(Round(_mean(times[1:3]), _mean([times[0], times[3]])))
    return found


def _time(run: Case) -> tuple[float, float]:
    cpu_ns, wall_ns = time.process_time_ns(), time.perf_counter_ns()
    run(_STEPS)
    cpu_ns, wall_ns = time.process_time_ns() - cpu_ns, time.perf_counter_ns() - wall_ns
    return cpu_ns / _STEPS / 1e3, wall_ns / _STEPS / 1e3


def _mean(times: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return statistics.mean(cpu for cpu, _ in times), statistics.mean(wall for _, wall in times)


def _show(title: str, found: Mapping[str, Sequence[Round]]) -> None:
    rows = [Row(_BARE, _figure([rounds.bare for every in found.values() for rounds in every]))]
    for name, rounds in found.items():
        cpu, wall = (statistics.median(one.case[i] / one.bare[i] for one in rounds) for i in (0, 1))
        target = Target(wall, _LIMIT, "times") if name == _TRACKED else None
        rows.append(
            Row(name, _figure([one.case for one in rounds]), ratio=f"{wall:.3f} (CPU {cpu:.3f})", target=target)
        )
    show(f"Flax under {title}, five values recorded; ratios to {_BARE}", rows)


def _figure(times: Sequence[tuple[float, float]]) -> str:
    cpu_us, wall_us = (statistics.median(one[i] for one in times) for i in (0, 1))
    return f"{wall_us:.0f} µs (CPU {cpu_us:.0f})"


if __name__ == "__main__":
    main()
