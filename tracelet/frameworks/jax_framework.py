"""JAX and Flax: train states, optimizers and step functions that record; and what JAX itself does.

    from tracelet import Experiment
    from tracelet.frameworks.jax_framework import TraceletTrainState, tracked

    state = TraceletTrainState.create(apply_fn=model.apply, params=params, tx=optax.adam(1e-3))

    @tracked(donate_argnums=0)
    def train_step(state, batch):
        loss, grads = jax.value_and_grad(loss_of)(state.params, batch)
        return state.apply_gradients(grads=grads, loss=loss)

    with Experiment("digits"):
        for batch in batches:
            state = train_step(state, batch)

Importing this module imports no JAX; each name does, when it is used first. `JAXFramework` lives on the experiment's
thread; its listener is called on any thread that compiles, and `tracelet-jax` reads memory and speed.
"""

from __future__ import annotations

import importlib
import logging
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, final

from tracelet.core.plugins import FrameworkPlugin, PluginMetadata, PluginType
from tracelet.core.records import MetricData, MetricType
from tracelet.errors import ExperimentStateError, SettingsError
from tracelet.utils.imports import require

if TYPE_CHECKING:
    from tracelet.frameworks._jax.monitoring import monitor
    from tracelet.frameworks._jax.nnx_parts import TraceletMultiMetric, TraceletOptimizer
    from tracelet.frameworks._jax.tracking import capture, tracked
    from tracelet.frameworks._jax.train_state import TraceletTrainState, wrap

__all__ = [
    "JAXFramework",
    "TraceletMultiMetric",
    "TraceletOptimizer",
    "TraceletTrainState",
    "capture",
    "monitor",
    "tracked",
    "wrap",
]

logger = logging.getLogger(__name__)

_HOMES: Final = {
    "TraceletMultiMetric": "nnx_parts",
    "TraceletOptimizer": "nnx_parts",
    "TraceletTrainState": "train_state",
    "capture": "tracking",
    "monitor": "monitoring",
    "tracked": "tracking",
    "wrap": "train_state",
}
_COMPILED: Final = "/jax/core/compile/backend_compile_duration"
_MEMORY: Final = ("bytes_in_use", "peak_bytes_in_use", "bytes_limit")


def __getattr__(name: str) -> Any:
    """Load a public name when it is used (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    for package in ("jax", "flax", "optax"):
        require(package, f"{name} of tracelet.frameworks.jax_framework")
    return getattr(importlib.import_module(f"tracelet.frameworks._jax.{_HOMES[name]}"), name)


@final
class JAXFramework(FrameworkPlugin):
    """Records what JAX does, by its own listeners: compilations, the memory of devices, steps per second.

    A compilation is a point of `jax/compile_s`; its metadata names the function and says how many times it has been
    compiled, so that a step that is compiled again and again shows.
    """

    def __init__(self) -> None:
        """Nothing is imported yet."""
        self._interval_s = 10.0
        self._compilations: Counter[str] = Counter()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    @classmethod
    def get_metadata(cls) -> PluginMetadata:
        """As `PluginBase`."""
        return PluginMetadata(
            name="jax",
            version="1.0.0",
            type=PluginType.FRAMEWORK,
            description="JAX: compilations, device memory and steps per second.",
            author="Tracelet",
            dependencies=("jax",),
            capabilities=frozenset({"metric_capture"}),
        )

    def get_source_id(self) -> str:
        """What its records say that they come from."""
        return "jax_framework"

    def initialize(self, config: dict[str, Any]) -> None:
        """Take the configuration.

        Args:
            config: `interval`, in seconds: how often memory and speed are read. 10 without it.

        Raises:
            SettingsError: It is no such number.
        """
        interval_s = config.get("interval", 10.0)
        if not isinstance(interval_s, (int, float)) or not interval_s > 0:
            raise SettingsError(f"the interval of the framework 'jax' is no number of seconds: {interval_s!r}")
        self._interval_s = float(interval_s)

    def start(self) -> None:
        """Listen."""
        if self._active:
            return
        monitoring = require("jax.monitoring", "The framework plug-in 'jax'")
        self._active = True
        monitoring.register_event_duration_secs_listener(self._took)
        self._ended.clear()
        self._thread = threading.Thread(target=self._read, name="tracelet-jax", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Listen no more."""
        if not self._active:
            return
        self._active = False
        require("jax.monitoring", "The framework plug-in 'jax'").unregister_event_duration_listener(self._took)
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def get_status(self) -> dict[str, Any]:
        """How often what was compiled."""
        return {"active": self._active, "compilations": dict(self._compilations.most_common(20))}

    # -- any thread ----------------------------------------------------------------------------------------------------

    def _took(self, event: str, duration_s: float, **details: Any) -> None:
        if event != _COMPILED:
            return
        function = str(details.get("fun_name", ""))
        self._compilations[function] += 1
        about = {"function": function, "times": self._compilations[function]}
        self._emit("jax/compile_s", duration_s, about)

    # -- tracelet-jax --------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        steps, read_s = _steps_made(), time.monotonic()
        while not self._ended.wait(self._interval_s):
            before, before_s = steps, read_s
            steps, read_s = _steps_made(), time.monotonic()
            if steps > before:
                self._emit("jax/steps_per_s", (steps - before) / (read_s - before_s))
            try:
                found = memory_of(require("jax", "The framework plug-in 'jax'").local_devices())
            except Exception as error:  # noqa: BLE001 - a device's driver may raise anything
                logger.debug("the memory of the devices can't be read: %s", error)
                continue
            for name, value in found.items():
                self._emit(name, value)

    def _emit(self, name: str, value: float, metadata: Mapping[str, Any] | None = None) -> None:
        source = self.get_source_id()
        try:
            self.emit_metric(MetricData(name, value, MetricType.SYSTEM, None, time.time(), source, metadata))
        except ExperimentStateError as error:  # It has ended meanwhile.
            logger.debug("%s of JAX is not recorded: %s", name, error)


def memory_of(devices: Iterable[Any]) -> dict[str, float]:
    """What devices say of their memory, in bytes; a CPU says nothing.

    Args:
        devices: From `jax.local_devices()`.
    """
    return {
        f"jax/device_{device.id}/{name}": float(stats[name])
        for device in devices
        if (stats := device.memory_stats())
        for name in _MEMORY
        if name in stats
    }


def _steps_made() -> int:
    """How many steps have been recorded in this process; without importing what would count them."""
    rows = sys.modules.get("tracelet.frameworks._jax.rows")
    return 0 if rows is None else int(rows.Rows.steps)
