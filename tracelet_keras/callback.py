"""`TraceletCallback`: what users make. Keras calls it as `hooks` says."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, final

from tracelet.core.experiment import Backends, Experiment, Resume
from tracelet.errors import UsageError
from tracelet_keras.gradients import GradientNorms
from tracelet_keras.hooks import RecordingHooks
from tracelet_keras.run import TrainingRun


@final
class TraceletCallback(RecordingHooks):
    """Records a training with Tracelet: `model.fit(x, y, callbacks=[TraceletCallback(project="digits")])`.

    The run begins with the first `fit`, `evaluate` or `predict`, and takes in all later ones of the same callback. It
    ends with `stop()` or with the program. A step is one batch that was trained on; the first one is step 1.
    """

    def __init__(
        self,
        name: str = "keras",
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
        log_freq: int | Literal["epoch", "batch"] = "epoch",
        log_model: bool = True,
        gradient_norm: bool = False,
        checkpoint: str | os.PathLike[str] | None = None,
        prefix: str = "",
    ) -> None:
        """Prepare a callback; nothing is written before the first `fit`, `evaluate` or `predict`.

        Args:
            name: The run's name, for people.
            backend: Where the run goes besides the local disk: names, instances, or several. None: the setting
                `backend`.
            config: Parameters of your own, beside those of the model and of `fit`.
            tags: Key and value, or words.
            project: Groups runs. None: the setting `project`.
            run_id: Names the run, unique in its project. None: a new one is made.
            resume: What to do about `run_id`: `"allow"` (None), `"must"` (True) or `"never"` (False), as for
                `Experiment`.
            dir: Where runs are kept. None: the setting `dir`.
            collectors: Names of collectors. None: the setting `collectors`.
            experiment: An experiment to record into, in place of all of the above. One that you have started yourself
                is yours to stop.
            log_freq: `"epoch"`: at the end of each epoch. `"batch"`: after each batch, too; n: after each n-th, too.
            log_model: Whether to record the model's summary, its number of parameters, and how it was compiled.
            gradient_norm: Whether to record the norm of the gradients after the same batches; torch only.
            checkpoint: What the training goes on from if it was broken off: the directory of `BackupAndRestore` or
                `OrbaxCheckpoint`, or the file of a `TraceletModelCheckpoint`. The run of that checkpoint then goes on.
            prefix: Stands before the names of metrics, divided by a `/`.

        Raises:
            InvalidNameError: A name is no string.
            SettingsError: A setting is wrong.
            UsageError: `log_freq` or `resume` is none of the above, this backend of Keras has no gradients, or
                `experiment` comes with arguments that describe another one.
        """
        if log_freq not in ("epoch", "batch") and (type(log_freq) is not int or log_freq < 1):
            raise UsageError(f"log_freq is 'epoch', 'batch' or a number of batches, not {log_freq!r}")
        if experiment is None:
            make = functools.partial(
                Experiment, name, backend, config, tags, run_id=run_id, project=project, resume=resume, dir=dir,
                collectors=collectors,
            )  # fmt: skip
        elif any(given is not None for given in (backend, config, tags, project, run_id, resume, dir, collectors)):
            raise UsageError("TraceletCallback(experiment=…) records into that one: give the rest to Experiment()")
        else:
            make = functools.partial(_itself, experiment)
        super().__init__(
            TrainingRun(
                make,
                is_chosen=experiment is not None or run_id is not None,
                checkpoint=None if checkpoint is None else Path(checkpoint),
            ),
            every=log_freq if isinstance(log_freq, int) else {"epoch": None, "batch": 1}[log_freq],
            log_model=log_model,
            norms=GradientNorms() if gradient_norm else None,
            prefix=f"{prefix}/" if prefix else "",
        )

    @property
    def experiment(self) -> Experiment:
        """The experiment that the run is recorded with."""
        return self._run.experiment

    def stop(self, status: str | None = None) -> None:
        """End the run now and not with the program. A later `fit` goes on with it, as its next attempt.

        After an exception in `fit`, Keras's threads may still have batches to tell of: this waits for them, at most ten
        seconds. Only the batch that was interrupted may be missing then.

        Args:
            status: `finished` or `failed`. None: `failed` if the last `fit` did not come to its end.

        Raises:
            UsageError: `status` is none of these.
        """
        self._progress.wait_for_late()
        self._run.stop(status)


def _itself(experiment: Experiment) -> Experiment:
    return experiment
