"""Runs the body of a test where Keras has one of its backends: each in a process of its own, kept for all tests.

A process can import Keras with one backend only, and this one imports it with none.
"""

from __future__ import annotations

import concurrent.futures
import importlib.util
import multiprocessing
import os
import pickle
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import tracelet

BACKENDS = [name for name in ("jax", "torch", "tensorflow") if importlib.util.find_spec(name)]
FRAMEWORKS = "(absl|flax|jax|keras|keras_tuner|orbax|tensorflow|tensorboard|torch)"


class KerasProcess:
    """A process whose Keras has this backend."""

    def __init__(self, backend: str) -> None:
        self.backend = backend
        context = multiprocessing.get_context("spawn")
        self._pool = concurrent.futures.ProcessPoolExecutor(1, context, _choose, (backend,))

    def run(self, body: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Call a function of a module, which may import Keras, in the test's directory; returns what it returns."""
        return self._pool.submit(_call, os.getcwd(), body, args, options).result()

    def close(self) -> None:
        self._pool.shutdown()


def _choose(backend: str) -> None:
    os.environ["KERAS_BACKEND"] = backend
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if backend == "torch":
        import torch

        torch.set_num_threads(1)


def _call(directory: str, body: Callable[..., Any], args: Any, options: Any) -> Any:
    os.chdir(directory)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("default", module=FRAMEWORKS)
            return body(*args, **options)
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # noqa: BLE001  It may be anything, and would break the pool.
            raise RuntimeError("".join(traceback.format_exception(error))) from None
        raise
    finally:
        while (experiment := tracelet.get_active_experiment()) is not None:
            experiment.stop()
