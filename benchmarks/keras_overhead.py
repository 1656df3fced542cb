"""How much longer a Keras training takes with a callback that records every batch, on JAX and on torch.

Each backend has a process of its own, with one thread for its computations. Two networks are trained on scikit-learn's
digits: a convolutional one of some milliseconds a step, which has the target, and one of two small dense layers, where
little else happens but Keras's own work for a step. The callbacks take turns from `fit` to `fit`, in a new order each
time, so that whatever else the machine does hits all of them alike. A figure is the lower quartile over epochs, for one
step, as CPU time of the whole process, so that what a callback does on threads of Keras's pool counts; the wall time
stands beside it. The time runs from the first batch of an epoch until the pool is done with the last one.

Keras calls callbacks on its pool while all in the list say that they are `async_safe`; the row "a synchronous callback
that does nothing" shows what the same costs on the thread that trains. Of Keras's own peers, `TensorBoard` needs
TensorFlow to run and W&B's callbacks need it to be imported; MLflow's does not. `CSVLogger` writes once an epoch.
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

_TURNS = 20
_EPOCHS = 4  # Of one `fit`. The first one does not count.
_STEPS = 24  # Of an epoch.
_BATCH = 64
_CALLS = 300
_LIMIT = 1.02
_OFF, _OURS, _SYNCHRONOUS = (
    "no callback",
    'TraceletCallback(log_freq="batch")',
    "a synchronous callback that does nothing",
)

Samples = dict[str, list[tuple[float, float]]]


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
        for name, limit in (("convolutional", _LIMIT), ("dense", None)):
            samples = _train(_network(name), callbacks, scaled(_TURNS, scale, 2))
            _show_training(f"Keras on {backend}: one step of a small {name} network, recorded", samples, limit)
        _show_calls(backend, callbacks, scaled(_CALLS, scale, 20))
        callbacks[_OURS].stop()
        mlflow.end_run()


def _callbacks(directory: str) -> dict[str, Any]:
    import keras
    import mlflow
    from mlflow.keras import MlflowCallback

    from tracelet_keras import TraceletCallback

    @final
    class Nothing(keras.callbacks.Callback):  # type: ignore[misc]  # Keras ships no types.
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            pass

    mlflow.set_tracking_uri(f"sqlite:///{directory}/mlflow.db")
    mlflow.start_run()
    return {
        _OURS: TraceletCallback(log_freq="batch", dir=directory, log_model=False),
        "a synchronous callback that does nothing": Nothing(),
        "CSVLogger, once an epoch": keras.callbacks.CSVLogger(f"{directory}/log.csv"),
        "MlflowCallback(log_every_n_steps=1)": MlflowCallback(log_every_epoch=False, log_every_n_steps=1),
    }


def _train(model: Any, callbacks: Mapping[str, Any], turns: int) -> Samples:
    """CPU and wall time of a step in each epoch, in microseconds."""
    import keras
    import numpy as np
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images = (images[: _STEPS * _BATCH] / 16).astype(np.float32)

    @final
    class Begins(keras.callbacks.Callback):  # type: ignore[misc]  # Keras ships no types.
        """Comes last, and so starts the clock after all others have begun their epoch."""

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.began_ns = time.process_time_ns(), time.perf_counter_ns()

    @final
    class Ends(keras.callbacks.Callback):  # type: ignore[misc]  # Keras ships no types.
        """Comes first, and so stops it before they end theirs: a real epoch has more steps to pay for that."""

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            cpu_ns, wall_ns = begins.began_ns
            cpu_ns, wall_ns = time.process_time_ns() - cpu_ns, time.perf_counter_ns() - wall_ns
            if epoch > 0:
                samples[present].append((cpu_ns / _STEPS / 1e3, wall_ns / _STEPS / 1e3))

    begins, ends = Begins(), Ends()
    samples: Samples = {name: [] for name in (_OFF, *callbacks)}
    for turn in range(turns + 1):
        for present in random.sample(list(samples), len(samples)):
            own = [callbacks[present]] if present in callbacks else []
            model.fit(images, labels[: len(images)], _BATCH, _EPOCHS, 0, [ends, *own, begins])
        if turn == 0:  # Files were made, and code was compiled.
            samples = {name: [] for name in samples}
    return samples


def _show_training(title: str, samples: Samples, limit: float | None) -> None:
    cpu_us, wall_us = (
        {name: statistics.quantiles([sample[index] for sample in found])[0] for name, found in samples.items()}
        for index in (0, 1)
    )
    rows = []
    for name in samples:
        ratio = cpu_us[name] / cpu_us[_OFF]
        target = Target(ratio, limit, "times") if name == _OURS and limit is not None else None
        figure = f"{cpu_us[name]:.0f} µs (wall {wall_us[name]:.0f})"
        rows.append(Row(name, figure, ratio=f"{ratio:.3f}", target=target))
    show(f"{title}; ratios to {_OFF}", rows)


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
    show(f"Keras on {backend}: the callback's own calls for a batch of two metrics; ratios to {_OURS}", rows)


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
