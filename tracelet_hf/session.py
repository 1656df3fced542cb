"""What the events of a trainer come to. Called by `TraceletCallback` alone: on the training thread, in its order.

Guarantee: `begin` raises what the user has to mend; what else is raised here, the callback logs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

from transformers import TrainerControl, TrainerState, TrainingArguments

from tracelet.utils.losses import LossWatch
from tracelet_hf.card import link_card
from tracelet_hf.facts import parameters
from tracelet_hf.models import LogModel, Models
from tracelet_hf.progress import Progress
from tracelet_hf.recording import Recording


@final
class Session:
    """The recording of a trainer, with all that belongs to it. See the module docstring."""

    def __init__(self, recording: Recording, progress: Progress, log_model: LogModel, *, true_loss: bool) -> None:
        """Make one that has recorded nothing yet."""
        self.recording = recording
        self.progress = progress
        self._models = Models(log_model)
        self._losses = LossWatch() if true_loss else None

    def saved(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return self.recording.identity

    def begin(
        self, args: TrainingArguments, state: TrainerState, saved: Mapping[str, Any] | None, *, all_together: bool
    ) -> bool:
        """Begin the run, or go on with it, as `Recording.begin`; whether this process records.

        Raises:
            TraceletError: What `Experiment.start()` raises.
        """
        self.recording.begin(args, state, saved, all_together=all_together)
        return self.recording.has_begun

    def describe(self, args: TrainingArguments, state: TrainerState, model: Any) -> None:
        """Record the parameters, on the first rank."""
        if state.is_world_process_zero:
            self.recording.log_params(parameters(args, model))
            if state.trial_params:
                self.recording.log_params((f"trial/{name}", value) for name, value in state.trial_params.items())

    def training_began(self, args: TrainingArguments, state: TrainerState, model: Any, optimizer: Any) -> None:
        """A training begins, and the run has begun."""
        self.recording.training_began(state)
        self.progress.begin(args, state, model, optimizer)
        if self._losses is not None:
            self._losses.attach(model)

    def step_ended(self, state: TrainerState, control: TrainerControl) -> None:
        """A step has ended, and its log and evaluation are to come."""
        if not control.should_log:  # The log notes the time.
            self.progress.throughput.step_ended()
        if self._losses is not None:
            self._losses.step_ended(state.global_step)
        if state.best_metric is not None:
            self._log_best(state)

    def epoch_ended(self, state: TrainerState) -> None:
        """An epoch has ended."""
        self.recording.log(self.progress.epoch(state), state.global_step)

    def log(self, args: TrainingArguments, state: TrainerState, logs: Mapping[str, Any]) -> None:
        """Record what the trainer logs, and what is known besides."""
        try:  # Steps before this one come first.
            if self._losses is not None and "loss" in logs:
                for step, loss in self._losses.read():
                    self.recording.log(self.progress.true_loss(step, loss), step)
        finally:
            self.recording.log(self.progress.values(logs, args, state), state.global_step)

    def evaluated(self, state: TrainerState) -> None:
        """An evaluation has ended; the trainer has not compared it with the best one yet."""
        self.progress.evaluated(state)
        self.progress.throughput.pause_ended()

    def pause_ended(self) -> None:
        """A prediction or a checkpoint has ended."""
        self.progress.throughput.pause_ended()

    def checkpoint_saved(self, args: TrainingArguments, state: TrainerState) -> None:
        """Keep a checkpoint, on the first rank."""
        self._log_best(state)
        if state.is_world_process_zero:
            self._models.checkpoint_saved(self.recording.experiment, args, state)

    def training_ended(self, args: TrainingArguments, state: TrainerState, model: Any, processing_class: Any) -> None:
        """A training has ended; keep the model."""
        self.recording.training_ended()
        if self._losses is not None:
            self._losses.detach()
        self._log_best(state)
        if state.is_world_process_zero:
            self._models.training_ended(self.recording.experiment, args, state, model, processing_class)

    def push_begins(self, state: TrainerState, model: Any) -> None:
        """Have the model card name the run. A push in a training writes no card."""
        if state.is_world_process_zero and not self.recording.is_in_training:
            link_card(model, self.recording.run_id, self.recording.urls)

    def stop(self, status: str) -> None:
        """End the run.

        Raises:
            UsageError: `status` is none that a run can end with.
        """
        self.recording.stop(status)
        if self.recording.has_begun:
            self._models.let_go(self.recording.latest)

    def _log_best(self, state: TrainerState) -> None:
        """Record a new best value: the trainer notes it after the evaluation's own event."""
        found = self.progress.new_best(state)
        if found is not None and state.is_world_process_zero:
            self.recording.log(*found)
