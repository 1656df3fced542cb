"""How much longer a Keras training takes with a callback that records every batch, on JAX and on torch.

Each backend has a process of its own, with one thread for its computations. Two networks are trained on scikit-learn's
digits: a convolutional one of some milliseconds a step, which has the target, and one of two small dense layers, where
little else happens but Keras's own work for a step. The callbacks take turns, each of some steps, in a new order each
round, so that whatever else the machine does hits all of them alike; the first steps of a turn do not count. A figure
is by how much a step was longer than one without a callback in the same round, the median, as CPU time of the whole
process, so that what a callback does on threads of Keras's pool counts; the wall time stands beside it.

Keras calls callbacks on its pool while all in the list say that they are `async_safe`, else all of them on the thread
that trains. So there are two trainings, with the callbacks that are and with those that are not; ours is in both. Of
its peers, Keras's `TensorBoard` needs TensorFlow to run and W&B's callbacks need it to be imported; MLflow's does not.
`CSVLogger` writes once an epoch.
"""

from __future__ import annotations

import logging
import os
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Mapping
from typing import Any, final

from benchmarks.measuring import Row, Target, compare, in_new_process, scaled, show

_ROUNDS = 45
_WARM_UP = 2  # Rounds.
_TURN, _COLD = 12, 4  # Steps of a turn, and how many of them do not count.
_BATCH = 64
_CALLS = 300
_LIMIT = 1.02
_OFF, _OURS = "no callback", 'TraceletCallback(log_freq="batch")'
_CSV, _MLFLOW = "CSVLogger, once an epoch", "MlflowCallback(log_every_n_steps=1)"

Samples = dict[str, list[tuple[int, int]]]
"""CPU and wall time of steps, in nanoseconds, by callback; the same number of them for each, round by round."""


def main(scale: float = 1.0) -> None:
    """Measure and print."""
    for backend in ("jax", "torch"):
        in_new_process(_measure, backend, scale)


def _measure(backend: str, scale: float) -> None:
    os.environ |= {
        "KERAS_BACKEND": backend,
        "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
        "OMP_NUM_THREADS": "1",
        "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "false",
    }
    import mlflow

    logging.disable(logging.WARNING)
    with warnings.catch_warnings(), tempfile.TemporaryDirectory(prefix="tracelet-benchmark-") as directory:
        warnings.simplefilter("ignore")
        if backend == "torch":
            import torch

            torch.set_num_threads(1)
        callbacks = _callbacks(directory)
        for network, limit in (("convolutional", _LIMIT), ("dense", None)):
            for is_async, where in ((True, "on the pool"), (False, "on the training thread")):
                mine = {name: callbacks[name] for name in (_OFF, _OURS, _CSV if is_async else _MLFLOW)}
                samples = _train(_network(network), mine, is_async, scaled(_ROUNDS, scale, 1))
                _show_training(f"Keras on {backend}, a step of a {network} network, recorded {where}", samples, limit)
        _show_calls(backend, callbacks, scaled(_CALLS, scale, 20))
        callbacks[_OURS].stop()
        mlflow.end_run()


def _callbacks(directory: str) -> dict[str, Any]:
    import keras
    import mlflow
    from mlflow.keras import MlflowCallback

    from tracelet_keras import TraceletCallback

    mlflow.set_tracking_uri(f"sqlite:///{directory}/mlflow.db")
    mlflow.start_run(experiment_id=mlflow.create_experiment("benchmark", directory))  # And its artifacts go there, too.
    return {
        _OFF: keras.callbacks.Callback(),
        _OURS: TraceletCallback(log_freq="batch", dir=directory, log_model=False),
        _CSV: keras.callbacks.CSVLogger(f"{directory}/log.csv"),
        _MLFLOW: MlflowCallback(log_every_epoch=False, log_every_n_steps=1),
    }


def _train(model: Any, callbacks: Mapping[str, Any], is_async: bool, rounds: int) -> Samples:
    import keras
    import numpy as np
    from sklearn.datasets import load_digits

    samples: Samples = {name: [] for name in callbacks}
    turns = [name for _ in range(_WARM_UP + rounds) for name in random.sample([*callbacks], len(callbacks))]
    first = _WARM_UP * _TURN * len(callbacks)  # The first batch that counts.

    @final
    class Turns(keras.callbacks.Callback):  # type: ignore[misc]  # Keras ships no types.
        """Gives each batch its callback, and takes the time from the beginning of a batch to that of the next one."""

        async_safe = is_async
        began_ns = 0, 0  # CPU and wall time.

        def on_train_begin(self, logs: Any = None) -> None:
            for callback in callbacks.values():
                callback.set_params(self.params)
                callback.set_model(self.model)
                callback.on_train_begin(logs)

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            for callback in callbacks.values():
                callback.on_epoch_begin(epoch, logs)

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            now_ns, before = (time.process_time_ns(), time.perf_counter_ns()), batch - 1
            if before >= first and before % _TURN >= _COLD:
                samples[turns[before // _TURN]].append((now_ns[0] - self.began_ns[0], now_ns[1] - self.began_ns[1]))
            self.began_ns = now_ns
            callbacks[turns[batch // _TURN]].on_train_batch_begin(batch, logs)

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            callbacks[turns[batch // _TURN]].on_train_batch_end(batch, logs)

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            for callback in callbacks.values():
                callback.on_epoch_end(epoch, logs)

        def on_train_end(self, logs: Any = None) -> None:
            for callback in callbacks.values():
                callback.on_train_end(logs)

    images, labels = load_digits(return_X_y=True)
    count = (len(turns) * _TURN + 1) * _BATCH  # One batch more, whose beginning is the end of the last turn.
    turns.append(_OFF)
    images = np.resize((images / 16).astype(np.float32), (count, 64))
    model.fit(images, np.resize(labels, count), _BATCH, 1, 0, [Turns()])
    return samples


def _show_training(title: str, samples: Samples, limit: float | None) -> None:
    step_us = statistics.median(cpu_ns for cpu_ns, _ in samples[_OFF]) / 1e3
    rows = [Row(_OFF, f"the step: {step_us:.0f} µs")]
    for name in [name for name in samples if name != _OFF]:
        pairs = zip(samples[name], samples[_OFF], strict=True)
        differences = (
            (cpu_ns - off_cpu_ns, wall_ns - off_wall_ns) for (cpu_ns, wall_ns), (off_cpu_ns, off_wall_ns) in pairs
        )
        cpu_us, wall_us = (statistics.median(found) / 1e3 for found in zip(*differences, strict=True))
        ratio = 1 + cpu_us / step_us
        target = Target(ratio, limit, "times") if name == _OURS and limit is not None else None
        rows.append(Row(name, f"{cpu_us:+.0f} µs (wall {wall_us:+.0f})", ratio=f"{ratio:.3f}", target=target))
    show(title, rows)


def _show_calls(backend: str, callbacks: Mapping[str, Any], calls: int) -> None:
    def loop(callback: Any) -> Any:
        def log(count: int) -> None:
            for batch in range(count):
                callback.on_train_batch_begin(batch)
                callback.on_train_batch_end(batch, {"accuracy": 0.9, "loss": 0.5})

        return log

    timings = compare({name: loop(callback) for name, callback in callbacks.items()}, calls, repeats=15)
    ours = timings[_OURS].cpu_us
    rows = [Row(name, str(timing), ratio=f"{timing.cpu_us / ours:.2f}") for name, timing in timings.items()]
    show(f"Keras on {backend}: the calls for a batch of two metrics; ratios to ours", rows)


def _network(kind: str) -> Any:
    import keras

    hidden = {
        "dense": [keras.layers.Dense(32, activation="relu")],
        "convolutional": [
            keras.layers.Reshape((8, 8, 1)),
            keras.layers.Conv2D(32, 3, padding="same", activation="relu"),
            keras.layers.Conv2D(64, 3, padding="same", activation="relu"),
            keras.layers.Flatten(),
        ],
    }[kind]
    model = keras.Sequential([keras.Input((64,)), *hidden, keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    return model


if __name__ == "__main__":
    main()
