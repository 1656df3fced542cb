"""`TraceletCallback` for `transformers.Trainer` and everything built on it: TRL, sentence-transformers.

The trainer calls, on the training thread and in every process of the training, in this order:
    `on_init_end`         as the trainer is made; nothing is written
    `on_train_begin`      the run begins, or goes on
    `on_pre_optimizer_step`, `on_step_end`, `on_log`    each step; each `logging_steps`
    `on_log`, `on_evaluate`, `on_save`              after an evaluation; after a checkpoint
    `on_train_end`        then maybe `on_log` and `on_predict` once more: the run takes them in

Guarantee: what was logged is on the disk when the event returns. `on_train_begin` raises what the user has to mend; no
other event raises: a fault is logged once, and the training goes on. Nothing waits for a backend or a device.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, final

from transformers import TrainerCallback, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from tracelet.core.experiment import Backends, Experiment, Resume
from tracelet.errors import TraceletError
from tracelet.utils.guarding import Guarded, safely
from tracelet_hf.events import Link, saved_in
from tracelet_hf.models import LogModel
from tracelet_hf.progress import Progress
from tracelet_hf.recording import Recording
from tracelet_hf.session import Session


@final
class TraceletCallback(Guarded, TrainerCallback, ExportableState):
    """Records a training with Tracelet: `Trainer(callbacks=[TraceletCallback(project="reviews")])`.

    The run begins with the first training or evaluation, and takes in all later ones. It ends with `stop()` or with the
    program. A training that resumes from a checkpoint goes on with the run of the checkpoint.
    """

    def __init__(
        self,
        name: str | None = None,
        backend: Backends | None = None,
        config: Any = None,
        tags: Mapping[str, str] | Sequence[str] | None = None,
        project: str | None = None,
        run_id: str | None = None,
        resume: Resume | bool | None = None,
        *,
        dir: str | os.PathLike[str] | None = None,
        collectors: Sequence[str] | None = None,
        experiment: Experiment | None = None,
        log_model: LogModel = False,
        all_ranks: bool = False,
        true_loss: bool = False,
        grad_norms: bool = False,
        peak_flops_per_s: float | None = None,
    ) -> None:
        """Prepare a callback; nothing is written before the first training or evaluation.

        Args:
            name: The run's name, for people. None: the `run_name` of the training arguments.
            backend: Where the run goes besides the local disk: names, instances, or several. None: the setting
                `backend`.
            config: Parameters of your own, beside the training arguments and the model's configuration.
            tags: Key and value, or words.
            project: Groups runs. None: the setting `project`.
            run_id: Names the run, unique in its project, and wins over that of a checkpoint. None: a new one is made.
            resume: What to do about `run_id`: `"allow"` (None), `"must"` (True) or `"never"` (False), as for
                `Experiment`.
            dir: Where runs are kept. None: the setting `dir`.
            collectors: Names of collectors. None: the setting `collectors`.
            experiment: An experiment to record into, in place of all of the above. One that you have started yourself
                is yours to stop.
            log_model: Which models are kept with the run: none, the one at the `"end"`, each `"checkpoint"`, or the
                `"best"` checkpoint.
            all_ranks: Whether each process of a distributed training records, and not the first alone. The series of
                the others stand under `rank/1/` and so on.
            true_loss: Whether the loss of every step is recorded as the model computed it, as `train/true_loss`, also
                where `logging_nan_inf_filter` hides it. Costs some 3 µs a forward pass, and never waits for the device.
            grad_norms: Whether the norm of the gradient of each of the optimizer's groups is recorded, after clipping,
                as `grad_norm/group_0` and so on. Costs the device a pass over the gradients each step.
            peak_flops_per_s: What one device can do, for `throughput/mfu`. None: what is known of GPUs by their names.

        Raises:
            InvalidNameError: A name is no string.
            SettingsError: A setting is wrong.
            UsageError: `resume` or `log_model` is none of the above, or `experiment` does not come alone.
        """
        options = {
            "name": name, "backend": backend, "config": config, "tags": tags, "project": project, "run_id": run_id,
            "resume": resume, "dir": dir, "collectors": collectors, "rank": 0 if all_ranks else None,
        }  # fmt: skip
        super().__init__()
        recording = Recording(options, experiment, all_ranks=all_ranks)
        progress = Progress(peak_flops_per_s, grad_norms=grad_norms)
        self._session = Session(recording, progress, log_model, true_loss=true_loss)
        self.place: int | None = None
        """Which one of its trainer's `TraceletCallback`s it is."""
        self.saved: Mapping[str, Any] | None = None
        """What the checkpoint says, if the trainer has made this object from one."""

    # -- what users call -----------------------------------------------------------------------------------------------

    @property
    def experiment(self) -> Experiment:
        """The experiment, running: the first use starts the run.

        Raises:
            TraceletError: What `Experiment.start()` raises: a backend that is not installed, say.
        """
        return self._session.recording.experiment

    @property
    def run_id(self) -> str:
        """The id of the run. A training that resumes from a checkpoint changes it to that of the checkpoint."""
        return self._session.recording.run_id

    def stop(self, status: str = "finished") -> None:
        """End the run now and not with the program. A later training goes on with it, as its next attempt.

        Args:
            status: `finished` or `failed`.

        Raises:
            UsageError: `status` is neither.
        """
        self._session.stop(status)

    # -- what the trainer calls ----------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: where the run is. The arguments are those of the program that resumes it."""
        return {"args": {}, "attributes": {"saved": {**self._session.saved(), "place": self.place or 0}}}

    @safely
    def on_init_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Leave word for an object that the trainer may put in the place of this one."""
        link = Link.of(args, state)
        self.place = len(link.callbacks)
        link.callbacks.append(self)

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Begin the run, or go on with that of the checkpoint.

        Raises:
            TraceletError: What `Experiment.start()` raises.
        """
        self._take_the_place_of_the_users(args)
        # The trainer looks it up as it saves, also where the checkpoint that it resumes from is of others.
        state.stateful_callbacks.setdefault(type(self).__name__, self.state())
        if self._begins(args, state, given, all_together=True):
            self._training_began(args, state, control, **given)

    @safely
    def _training_began(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        self._session.training_began(args, state, given.get("model"), given.get("optimizer"))

    # The next three do by hand what `safely` does: in a training's caches each further call costs 5 µs.
    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Note what differs between the optimizer's groups."""
        if self._session.progress.watches_groups:
            try:
                self._session.progress.optimizer_steps(given["optimizer"])
            except Exception as error:  # noqa: BLE001 - as in `safely`
                self.report("on_pre_optimizer_step", error)

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Note the time, the loss where it is watched, and a new best value."""
        try:
            if self._session.recording.has_begun:
                self._session.step_ended(state, control)
        except Exception as error:  # noqa: BLE001 - as in `safely`
            self.report("on_step_end", error)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **given: Any) -> None:
        """Record what the trainer logs."""
        try:
            if self._session.recording.has_begun or (
                state.is_world_process_zero and self._begins(args, state, given, all_together=False)
            ):
                self._session.log(args, state, logs)
        except Exception as error:  # noqa: BLE001 - as in `safely`
            self.report("on_log", error)

    @safely
    def on_epoch_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Record the epoch."""
        if self._session.recording.has_begun:
            self._session.epoch_ended(state)

    @safely
    def on_evaluate(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Note the time: `on_log` has recorded the metrics."""
        self._session.evaluated(state)

    @safely
    def on_predict(self, args: Any, state: Any, control: Any, metrics: Any, **given: Any) -> None:
        """Record the metrics of a prediction, which come in no log."""
        self.on_log(args, state, control, logs=metrics, **given)
        self._session.pause_ended()

    @safely
    def on_save(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Keep the checkpoint, if it is one to keep."""
        if self._session.recording.has_begun:
            self._session.checkpoint_saved(args, state)
        self._session.pause_ended()

    @safely
    def on_push_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Have the model card name the run."""
        if self._session.recording.has_begun:
            self._session.push_begins(state, given.get("model"))

    @safely
    def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Note the end of the training. The run goes on, and nobody waits for the backends."""
        if self._session.recording.has_begun:
            self._session.training_ended(args, state, given.get("model"), given.get("processing_class"))

    # -- inside --------------------------------------------------------------------------------------------------------

    def _take_the_place_of_the_users(self, args: TrainingArguments) -> None:
        """Be one with the user's callback, if `restore_callback_states_from_checkpoint` has put this in its place."""
        link = Link.in_(args)
        if self.saved is not None and self.place is None and link is not None:
            self.place = min(self.saved["place"], len(link.callbacks) - 1)
            self._session = link.callbacks[self.place]._session  # noqa: SLF001 - it is one of us

    def _begins(
        self, args: TrainingArguments, state: TrainerState, given: Mapping[str, Any], *, all_together: bool
    ) -> bool:
        """Begin the run, as `Recording.begin`; whether this process records."""
        try:
            saved = saved_in(state, type(self).__name__, self.place or 0)
            begun = self._session.begin(args, state, saved, all_together=all_together)
        except TraceletError:
            raise
        except Exception as error:  # noqa: BLE001 - as in `safely`
            self.report("the beginning", error)
            return False
        if begun:
            self._describe(args, state, None, **given)
        return begun

    @safely
    def _describe(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        self._session.describe(args, state, given.get("model"))
