"""NNX: an optimizer that records its steps, and metrics that record themselves.

`TraceletOptimizer.update` is called while a step function is traced, or in plain Python; `TraceletMultiMetric.log` on
the thread that trains, outside of compiled functions. Guarantee: both are what Flax's own are, with the same state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

import jax
from flax import nnx

from tracelet.core.experiment import Experiment
from tracelet.errors import UsageError
from tracelet.frameworks._jax.leaving import Outlet, emit
from tracelet.frameworks._jax.measuring import learning_rates, norm
from tracelet.frameworks._jax.rows import flattened
from tracelet.frameworks._jax.train_state import MEASURES, Measure


@final
class TraceletOptimizer(nnx.Optimizer):  # type: ignore[type-arg]  # Of any model.
    """An `nnx.Optimizer` that records the steps that it makes.

    ```python
    @tracked(transform=nnx.jit)
    def train_step(model, optimizer, batch):
        loss, grads = nnx.value_and_grad(loss_of)(model, batch)
        optimizer.update(model, grads, metrics={"loss": loss})
    ```
    """

    def __init__(
        self,
        model: Any,
        tx: Any,
        *,
        wrt: Any,
        experiment: Experiment | None = None,
        prefix: str = "train",
        measure: Sequence[Measure] = MEASURES,
        learning_rate: Any = None,
        all_processes: bool = False,
        **options: Any,
    ) -> None:
        """Make one.

        Args:
            model: As in `nnx.Optimizer`, as the next two and `options`.
            tx: The Optax transformation.
            wrt: Which variables it is for.
            experiment: What records. None: the active one, each time. In a tracked function, that has its own.
            prefix: In front of the names of metrics.
            measure: What is recorded besides the metrics that `update` is given.
            learning_rate: The learning rate, or the schedule that gives it for a step, where `optax.inject_hyperparams`
                does not put it into the state.
            all_processes: In a JAX program of several processes, record in each one, and not in the first one only.
            **options: For `nnx.Optimizer`.
        """
        super().__init__(model, tx, wrt=wrt, **options)
        self.outlet = Outlet(experiment, all_processes)
        self.prefix, self.measure, self.learning_rate = prefix, tuple(measure), learning_rate

    def update(self, model: Any, grads: Any, /, *, metrics: Mapping[str, Any] | None = None, **kwargs: Any) -> Any:
        """Make a step, as `nnx.Optimizer` does, and record it.

        Args:
            model: As in `nnx.Optimizer`, as the next one and `kwargs`.
            grads: The gradients.
            metrics: What else to record of this step.
            **kwargs: For the transformation.

        Returns:
            The updates.

        Raises:
            UsageError: A metric is no single number.
        """
        done = self.step[...]
        updates = super().update(model, grads, **kwargs)
        found = dict(metrics or {})
        if "grad_norm" in self.measure:
            found["grad_norm"] = norm(nnx.as_pure(nnx.state(grads, self.wrt)))
        if "update_norm" in self.measure:
            found["update_norm"] = norm(nnx.as_pure(updates))
        if "param_norm" in self.measure:
            found["param_norm"] = norm(nnx.as_pure(nnx.state(model, self.wrt)))
        if "learning_rate" in self.measure:
            rate = self.learning_rate
            rates = {"learning_rate": rate(done) if callable(rate) else rate}
            found |= learning_rates(nnx.as_pure(self.opt_state)) if rate is None else rates
        emit(f"{self.prefix}/step", self.step[...], flattened(found, self.prefix), self.outlet)
        return updates


@final
class TraceletMultiMetric(nnx.MultiMetric):
    """An `nnx.MultiMetric` that records what it has gathered."""

    def log(
        self,
        step: int | None = None,
        *,
        prefix: str = "train",
        experiment: Experiment | None = None,
        reset: bool = True,
        all_processes: bool = False,
    ) -> dict[str, Any]:
        """Compute the metrics, record them, and begin anew. Does not wait for a device.

        Args:
            step: The step. None: that of `set_iteration`, or else each metric counts by itself.
            prefix: In front of the names.
            experiment: What records. None: the active one.
            reset: Whether to begin anew.
            all_processes: In a JAX program of several processes, record in each one, and not in the first one only.

        Returns:
            What `compute` gives: arrays.

        Raises:
            UsageError: No experiment is running.
        """
        found: dict[str, Any] = self.compute()
        if reset:
            self.reset()
        if all_processes or jax.process_index() == 0:
            experiment = experiment or Experiment.active()
            if experiment is None:
                raise UsageError("no experiment is running: start one, or give it with experiment=…")
            experiment.log_metrics({prefix: found} if prefix else found, step)
        return found
