"""Which run a trainer's records go to: a new one, that of the checkpoint, one for each trial, another rank's.

Called on the training thread. `begin` comes first, in every process of the training: as a training begins, or before
the first record of an evaluation alone. `ended` comes after a training, and never after an exception: Hugging Face has
no event for that. So what is still in training when the next one begins, or at the end of the program, has failed.

Guarantee: `begin` raises what the user has to mend, before any training; nothing else here raises or waits, but for
`stop`, and for `begin` where a trial or another run comes before: it gives the backends their time.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from typing import Any, Final, final

from transformers import TrainerState, TrainingArguments

from tracelet.core.experiment import Experiment
from tracelet.core.resuming import resumed
from tracelet.errors import ExperimentStateError, TraceletError, UsageError
from tracelet.settings import TraceletSettings
from tracelet_hf.exit import INTERRUPTED, ExitGuard

logger = logging.getLogger(__name__)

_DEFAULT_NAME: Final = "huggingface"


@final
class Recording:
    """See the module docstring."""

    def __init__(self, options: Mapping[str, Any], experiment: Experiment | None, *, all_ranks: bool) -> None:
        """Prepare; nothing is written.

        Args:
            options: What `Experiment` is made with; a `name` of None is that of the training arguments.
            experiment: In place of one that is made here.
            all_ranks: Whether every process of the training records, and not the first alone.

        Raises:
            TraceletError: As `Experiment`; or `experiment` comes with options of another one.
        """
        if experiment is not None and any(value is not None for key, value in options.items() if key != "rank"):
            raise UsageError("TraceletCallback(experiment=…) records into that one: give the rest to Experiment()")
        self._options = dict(options)
        self._is_given = experiment is not None
        self._base = experiment or self._made()
        self._chosen = self._base
        self._is_ours = False  # Whether it was started here, and so ends here.
        self._all_ranks = all_ranks
        self._trials = self._trainings = 0
        self._exit = ExitGuard()
        self._known: dict[str, str] = {}  # Parameters as they were recorded, to record those that have changed.
        self.has_begun = False
        """Whether this process records now."""
        self.is_in_training = False
        """Whether a training has begun, and not ended."""
        self.prefix = ""
        """Stands before the names of series, on all ranks but the first."""

    @property
    def experiment(self) -> Experiment:
        """The experiment of the run, started. One that was stopped goes on as the run's next attempt.

        Raises:
            TraceletError: What `Experiment.start()` raises.
        """
        if not self._chosen.is_running:
            self._chosen, self._is_ours = self._chosen.reopen(), True
        return self._chosen

    @property
    def latest(self) -> Experiment:
        """The experiment of the run, as it is: not begun, running or stopped."""
        return self._chosen

    @property
    def run_id(self) -> str:
        """The id of the run, also before it begins."""
        return self._chosen.run_id

    @property
    def urls(self) -> dict[str, str]:
        """Where a browser finds the run, by backend."""
        urls = {backend: self._chosen.url(backend) for backend in self._chosen.status()["backends"]}
        return {backend: url for backend, url in urls.items() if url is not None}

    @property
    def identity(self) -> dict[str, Any]:
        """What finds the run again, for a checkpoint."""
        return self._chosen.resume_state()

    # -- life cycle ----------------------------------------------------------------------------------------------------

    def begin(
        self, args: TrainingArguments, state: TrainerState, saved: Mapping[str, Any] | None, *, all_together: bool
    ) -> None:
        """Choose the run and start it, on the first rank; the others join it where they are to record.

        Args:
            args: The training arguments.
            state: At the beginning of the training, or of an evaluation alone.
            saved: The `identity` in the checkpoint that the training resumes from.
            all_together: Whether every rank calls this now, so that they can talk to each other.

        Raises:
            TraceletError: What `Experiment.start()` raises.
        """
        path: str | None = None
        self.has_begun = False
        try:
            if state.is_world_process_zero:
                self._choose(args, state, saved)
                path = os.fspath(self.experiment.run_dir)
                self.has_begun = True
        finally:  # Also where the first rank can't: the others wait for it.
            if all_together and self._all_ranks and args.world_size > 1:
                path = _from_first_rank(path)
        if not state.is_world_process_zero:
            self._join(path, args.process_index)

    def training_began(self, state: TrainerState) -> None:
        """Mark where a training goes on, or begins once more; and see to it that it can't end unnoticed."""
        if not self.prefix:
            self.experiment.begin_training(state.global_step, self._trainings)
        self._trainings += 1
        self.is_in_training = True
        if self._is_ours:
            self._exit.arm(self._chosen)

    def training_ended(self) -> None:
        """Note the end. The run goes on: an evaluation belongs to it; and nobody waits for the backends."""
        self._leave_training()
        self._chosen.flush(timeout=0)

    def stop(self, status: str, error: str | None = None) -> None:
        """End the run."""
        self._leave_training()
        self._chosen.stop(status, error)

    # -- records -------------------------------------------------------------------------------------------------------

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """Record values of series."""
        if self.prefix:
            values = {self.prefix + name: value for name, value in values.items()}
        try:
            self._chosen.log_metrics(values, step)
        except ExperimentStateError:  # The user has stopped it meanwhile.
            self.experiment.log_metrics(values, step)

    def log_params(self, params: Iterable[tuple[str, Any]]) -> None:
        """Record parameters, once; one that has changed is recorded again."""
        changed = {name: value for name, value in params if self._known.get(name) != repr(value)}
        self._known |= {name: repr(value) for name, value in changed.items()}
        self.experiment.log_params(changed)

    # -- inside --------------------------------------------------------------------------------------------------------

    def _choose(self, args: TrainingArguments, state: TrainerState, saved: Mapping[str, Any] | None) -> None:
        if self.is_in_training and self._is_ours:
            self.stop("failed", INTERRUPTED)
            self._trainings = 0  # In the attempt that comes now.
        if state.is_hyper_param_search and not self._is_given:
            chosen = self._trial(state)
        elif saved is not None and not self._is_given and self._options["run_id"] is None:
            chosen = self._resumed(saved)
        else:
            chosen = self._chosen if self._chosen.run_id == self._base.run_id else self._base
        if chosen is self._base and self._base is self._chosen and not (self._is_given or self._is_ours):
            chosen = self._base = self._made(self._options["name"] or args.run_name, run_id=self.run_id)
        if chosen.run_id != self.run_id:
            if self._is_ours:
                self.stop("finished")
            self._trainings, self._known, self._is_ours = 0, {}, False
        self._chosen = chosen

    def _made(self, name: str | None = None, **changed: Any) -> Experiment:
        options = self._options | changed
        return Experiment(**options | {"name": name or self._options["name"] or _DEFAULT_NAME})

    def _trial(self, state: TrainerState) -> Experiment:
        """A run of its own; the tag `hpo` has the same value for all trials of a search."""
        self._trials += 1
        tags = self._options["tags"] or {}
        named = (
            dict(tags) if isinstance(tags, Mapping) else dict.fromkeys([tags] if isinstance(tags, str) else tags, "")
        )
        named |= {"hpo": self._base.run_id, "trial": str(self._trials)}
        name = state.trial_name or f"{self._base.name}-trial-{self._trials}"
        return self._made(name, run_id=None, resume=None, tags=named)

    def _resumed(self, saved: Mapping[str, Any]) -> Experiment:
        """The run of the checkpoint: where it was, or where runs are kept now."""
        if saved["run_id"] == self.run_id and saved["project"] == self._chosen.project:
            return self._chosen
        return resumed(self._made, saved) or self._base

    def _join(self, path: str | None, rank: int) -> None:
        """Record into the run that is there; without one, the experiment takes every call and keeps nothing."""
        if path is not None:
            try:
                self._chosen = Experiment.attach(path, rank=rank)
                self.prefix, self.has_begun = f"rank/{rank}/", True
                return
            except TraceletError as error:  # It can't be seen from another host, say.
                logger.warning("rank %d records nothing: %s", rank, error)
        settings = TraceletSettings.load(disabled=True)
        self._chosen = Experiment(self._base.name, run_id=self._base.run_id, settings=settings)

    def _leave_training(self) -> None:
        self.is_in_training = False
        self._exit.disarm()


def _from_first_rank(path: str | None) -> str | None:
    """What the first rank has, in every process of the training."""
    import torch

    values = [path]
    torch.distributed.broadcast_object_list(values, src=0)
    return values[0]
