"""The hooks of the callback.

Keras calls, on the thread that trains if nothing else is said:
    `set_params`, `set_model`                   as a `fit`, `evaluate` or `predict` begins
    `on_train_begin`, `on_test_begin`, …        then; the first one starts the run
    `on_epoch_begin`, `on_train_batch_begin`    for each epoch and batch
    `on_train_batch_end`                        on JAX and torch on threads of Keras's pool, late and in any order
    `on_test_begin`, `on_test_end`              inside an epoch for its validation, else for `evaluate`
    `on_epoch_end`, `on_train_end`              when the pool has done all; after an exception they never come

Guarantee: what Keras has given to a hook is on the disk when the hook returns. No hook waits for a backend, and the
thread that trains turns no tensor into a number between two batches: Keras's pool does, since the callback says that it
is `async_safe`. A fault in here is logged once and stops no training; what the user has to mend raises at the start.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

import keras  # type: ignore[import-untyped]  # Keras ships no types.

from tracelet.utils.guarding import safely
from tracelet_keras import facts
from tracelet_keras.gradients import GradientNorms
from tracelet_keras.guarding import GuardedCallback
from tracelet_keras.progress import Progress
from tracelet_keras.run import TrainingRun

_FIT: Final = {"epochs": "epochs", "steps": "steps_per_epoch"}  # What `fit` says of itself, and how it is recorded.
_RATE_INTERVAL_S: Final = 1.0  # JAX takes up to 2 ms to compute a schedule: between epochs, not each step does it.


class RecordingHooks(GuardedCallback):
    """See the module docstring."""

    async_safe = True

    def __init__(
        self, run: TrainingRun, *, every: int | None, log_model: bool, norms: GradientNorms | None, prefix: str
    ) -> None:
        """Prepare. `every`: record after a batch that completes so many steps; None: after epochs only."""
        super().__init__()
        self._run, self._log_model, self._norms, self._prefix = run, log_model, norms, prefix
        self._step_time_name = f"{prefix}train/step_time_s"
        self._is_detailed, self._progress = every is not None, Progress(every)
        self._reached = 0  # The step of the last `fit`.
        self._begin_session()

    def _begin_session(self) -> None:
        self._is_training = self._is_fit = False
        self._trained: dict[str, float] = {}  # What the training of this epoch took, once it has ended.
        self._validated: frozenset[str] = frozenset()  # The metrics that the validation of this epoch has recorded.
        self._began_s = 0.0  # `evaluate`, a validation, or `predict`.
        self._schedules: facts.Schedules = {}
        self._rates_at_s = 0.0

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_schedules": {}}

    # -- fit -----------------------------------------------------------------------------------------------------------

    def set_model(self, model: keras.Model) -> None:
        """A `fit`, `evaluate` or `predict` comes. If the last one ended with an exception, nobody has said so."""
        self._progress.wait_for_late()
        if model is not self._model:
            self._progress.forget_optimizer()
        super().set_model(model)
        self._reached = self._progress.step
        self._begin_session()

    def on_train_begin(self, logs: Any = None) -> None:
        """Start the run, or go on with it.

        Raises:
            TraceletError: What `Experiment.start()` raises: a backend that is not installed, say.
        """
        self._look_back()
        self._run.begin()
        self._describe()
        self._begin_training()

    @safely
    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Find out where the training stands: another callback may have restored it."""
        together = 1 if self._model is None else self._model.steps_per_execution
        reached, self._reached = max(self._reached, self._progress.step), 0
        self._progress.begin_epoch(facts.steps_taken(self._model), together)
        if not self._prefix:  # Otherwise others record into this run, too, and may stand elsewhere.
            self._run.begin_epoch(self._progress.step, reached)
        self._is_training, self._trained, self._validated = True, {}, frozenset()
        self._schedules = facts.schedules(self._model) if self._is_detailed else {}

    @safely
    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Record what the step before took: it ends where this one begins."""
        step, step_time_s = self._progress.begin_batch(batch)
        if step_time_s is not None and self._progress.is_due(step):
            self._run.experiment.log_metric(self._step_time_name, step_time_s, step)
            if self._norms is not None:
                self._norms.take(step, self._model)

    @safely
    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Record the metrics. On a thread of Keras's pool, where it has one."""
        logs = logs or {}
        try:
            step = self._progress.end_batch(batch, logs)
            if self._progress.is_due(step):
                self._record("train/", logs, step)
                if self._norms is not None:
                    self._record_norms(self._norms)
                if self._schedules:
                    self._record_rates(step)
        finally:
            self._progress.leave_batch()

    @safely
    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Record the metrics, what the epoch took, and the validation's metrics that it has not recorded itself."""
        self._end_epoch(logs or {}, {"epoch": float(epoch)})

    @safely
    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Note the end of `fit`. A loop of one's own may have had no epochs: then it is recorded as one."""
        if self._progress.steps_of_epoch:
            self._end_epoch(logs or self._progress.last_logs, {})
        self._is_training = False
        self._run.end_training()

    # -- evaluate, a validation, predict -------------------------------------------------------------------------------

    def on_test_begin(self, logs: Any = None) -> None:
        """Begin `evaluate` as `on_train_begin` begins `fit`; or a validation."""
        if self._is_training:
            self._end_training_part()
        else:
            self._begin_inference()
        self._began_s = time.perf_counter()

    @safely
    def on_test_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Record the metrics, at the step of the training."""
        logs = logs or {}
        metrics = {**logs, "time_s": time.perf_counter() - self._began_s}
        if self._is_training:  # The pool may not be done with the epoch if another callback keeps validations off it.
            self._record("val/", metrics, self._progress.step_of_validation)
            self._validated = frozenset(logs)
        else:
            self._record("test/", metrics, self._progress.step)

    def on_predict_begin(self, logs: Any = None) -> None:
        """Begin as `on_train_begin` does."""
        if not self._is_training:
            self._begin_inference()
        self._began_s = time.perf_counter()

    @safely
    def on_predict_end(self, logs: Any = None) -> None:
        """Record what it took; predictions themselves are for `TraceletPredictions`."""
        self._record("predict/", {"time_s": time.perf_counter() - self._began_s}, self._progress.step)

    # -- inside --------------------------------------------------------------------------------------------------------

    @safely
    def _look_back(self) -> None:
        self._run.look_back(self._model)

    @safely
    def _describe(self) -> None:
        self._run.say(facts.setting())
        if self._log_model and self._model is not None and self._model.built:
            self._run.say(facts.size(self._model))
            self._run.say_text("model/summary", facts.summary(self._model))
            self._run.say(facts.optimization(self._model))
            self._run.say(facts.compilation(self._model))  # Last, since a loss of one's own may have no configuration.

    @safely
    def _begin_training(self) -> None:
        self._run.begin_training()
        params = self.params or {}
        self._is_fit = _FIT.keys() <= params.keys()
        self._run.say((f"fit/{name}", params[key]) for key, name in _FIT.items() if key in params)
        self._progress.begin_training(params["steps"] if self._is_fit else None)
        self._progress.begin_epoch(facts.steps_taken(self._model))
        self._is_training = True

    def _begin_inference(self) -> None:
        self._look_back()
        self._run.begin()
        self._describe()
        self._find_step()

    @safely
    def _find_step(self) -> None:
        if not self._progress.steps_of_epoch:
            self._progress.begin_epoch(facts.steps_taken(self._model))

    @safely
    def _end_training_part(self) -> None:
        """Once an epoch: before its validation, or at its end."""
        if not self._trained:
            # In a loop of one's own they may be those of one batch alone, which is what `train_on_batch` leaves.
            samples = facts.samples_seen(self._model) if self._is_fit else 0.0  # It waits for the last step.
            time_s = self._progress.epoch_s
            self._trained = {"time_s": time_s} | ({"samples_per_s": samples / time_s} if samples else {})

    def _end_epoch(self, logs: Mapping[str, Any], more: Mapping[str, float]) -> None:
        self._end_training_part()
        progress, step, took = self._progress, self._progress.step, self._trained
        is_due = progress.is_due(step)
        known = progress.last_logs if is_due else {}
        training = {name: value for name, value in logs.items() if not name.startswith("val_")}
        validation = {name.removeprefix("val_"): logs[name] for name in logs.keys() - training.keys()}
        news = {name: value for name, value in training.items() if repr(value) != repr(known.get(name))}
        self._record("train/", news, step)
        self._record("val/", {name: validation[name] for name in validation.keys() - self._validated}, step)
        self._record("", more, step)
        self._record("train/", took, step)
        if took and progress.steps_of_epoch:
            self._record("train/", {"mean_step_time_s": took["time_s"] / progress.steps_of_epoch}, step)
        state = facts.optimizer_state(self._model)
        self._record("train/", {name: value for name, value in state if name not in training}, step)
        progress.end_epoch(facts.steps_taken(self._model))
        if self._norms is not None:
            if is_due:
                self._norms.take(step, self._model)
            self._record_norms(self._norms)

    def _record(self, stage: str, metrics: Mapping[str, Any], step: int) -> None:
        stage = self._prefix + stage
        self._run.experiment.log_metrics({stage + name: value for name, value in metrics.items()}, step)

    def _record_rates(self, step: int) -> None:
        now_s = time.monotonic()
        if now_s - self._rates_at_s >= _RATE_INTERVAL_S:
            self._rates_at_s = now_s
            self._record("train/", facts.scheduled_rates(self._schedules, step), step)

    def _record_norms(self, norms: GradientNorms) -> None:
        for step, norm in norms.taken():
            self._record("train/", {"grad_norm": norm}, step)
