"""What the loggers of both Lightning namespaces have in common: all but the base class.

Lightning calls, on the thread that runs the stage and in every process of the training, in this order:
    `experiment`                      as a stage is set up; on rank zero this starts the run
    `log_hyperparams`, `log_graph`    as a stage begins: for `fit`, and again for `test`
    `log_metrics`                     every `log_every_n_steps`; `save` after it, which has nothing left to do
    `finalize`                        after each stage, and after an exception

Guarantee: each call hands over to the experiment and keeps its promises: what was logged is on the disk when the call
returns, and no call waits for a backend or raises because of the outside world. Only `finalize("failed")` and `stop`
end the run, and give the backends their time. Rank zero records; on all other ranks nothing happens.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

from lightning_utilities.core.rank_zero import rank_zero_only
from torch import Tensor
from torch.nn import Module
from torch.nn.parameter import UninitializedParameter

from tracelet.core.experiment import Backends, Experiment, Resume
from tracelet.errors import UsageError
from tracelet.utils.guarding import reported
from tracelet.utils.values import as_mapping, as_text, flatten
from tracelet_lightning.checkpoints import Checkpoints, LogModel
from tracelet_lightning.media import MediaHelpers
from tracelet_lightning.place import Place
from tracelet_lightning.recording import Recording


class LoggerBase(Place, MediaHelpers):
    """Records a training with Tracelet. See the module docstring.

    The run begins with the first stage (`fit`, `validate`, `test`, `predict`) and takes in all later ones. It ends with
    `stop()` or with the program. An exception in a stage ends it as `failed`; a stage after that goes on with the same
    run, as its next attempt.
    """

    def __init__(
        self,
        name: str = "lightning",
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
        log_graph: bool = True,
        prefix: str = "",
    ) -> None:
        """Prepare a logger; nothing is written before the first stage.

        Args:
            name: The run's name, for people.
            backend: Where the run goes besides the local disk: names, instances, or several. None: the setting
                `backend`.
            config: Parameters of your own. Those of `save_hyperparameters()` are recorded without it.
            tags: Key and value, or words.
            project: Groups runs. None: the setting `project`.
            run_id: Names the run, unique in its project; Lightning calls it the version. None: a new one is made.
            resume: What to do about `run_id`: `"allow"` (None), `"must"` (True) or `"never"` (False), as for
                `Experiment`.
            dir: Where runs are kept. None: the setting `dir`.
            collectors: Names of collectors. None: the setting `collectors`.
            experiment: An experiment to record into, in place of all of the above. One that you have started yourself
                is yours to stop; only after Ctrl-C the logger does, since Lightning ends the program then.
            log_model: Which checkpoints are kept with the run: none, those that Lightning has at the end of a stage
                (True), `"all"` as they are saved, the `"best"` or the `"last"` one so far.
            log_graph: Whether to record the model's summary and its number of parameters.
            prefix: Stands before the names of metrics and media, divided by a `/`.

        Raises:
            InvalidNameError: A name is no string.
            SettingsError: A setting is wrong.
            UsageError: `resume` or `log_model` is none of the above, or `experiment` comes with arguments that
                describe another one.
        """
        super().__init__()
        options = {
            "name": name, "backend": backend, "config": config, "tags": tags, "project": project, "run_id": run_id,
            "resume": resume, "dir": dir, "collectors": collectors,
        }  # fmt: skip
        self.recording = Recording(options, experiment)
        """For the callback, which tells it which run a checkpoint belongs to."""
        self._checkpoints = Checkpoints(log_model)
        self._log_graph = log_graph
        self._given_prefix = self._prefix = f"{prefix}{self.group_separator}" if prefix else ""
        self._known: dict[str, str] = {}  # What has been recorded, to record it again only when it has changed.

    # -- what it is ----------------------------------------------------------------------------------------------------

    @property
    def _latest(self) -> Experiment:
        return self.recording.latest

    @property
    def experiment(self) -> Experiment:
        """The experiment, running: the first use starts the run. On all ranks but zero, Lightning's dummy.

        Raises:
            TraceletError: What `Experiment.start()` raises: a backend that is not installed, say.
        """
        return cast("Experiment", self._dummy_experiment()) if _is_other_rank() else self.recording.for_lightning()

    @property
    def _recorder(self) -> Experiment:
        return cast("Experiment", self._dummy_experiment()) if _is_other_rank() else self.recording.experiment

    @staticmethod
    @abstractmethod
    def _dummy_experiment() -> Any:
        """What takes every call and does nothing, of this namespace of Lightning."""

    # -- what Lightning calls ------------------------------------------------------------------------------------------

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Record metrics under the names, values and step that Lightning gives them.

        Raises:
            InvalidNameError: A name is no string. The other metrics are recorded all the same.
        """
        if self._prefix:
            metrics = {f"{self._prefix}{name}": value for name, value in metrics.items()}
        self._recorder.log_metrics(metrics, step)

    @rank_zero_only
    def log_hyperparams(self, params: Any, metrics: Mapping[str, Any] | float | None = None) -> None:
        """Record hyper-parameters, once; one that has changed is recorded again.

        Args:
            params: A mapping, Namespace, dataclass, pydantic model or OmegaConf, nested as deep as you like.
            metrics: First values of metrics, for step 0. A number alone is `hp_metric`.

        Raises:
            UsageError: `params` has no named fields.
        """
        if params is not None and as_mapping(params) is None:
            raise UsageError(f"log_hyperparams() takes named values, not {type(params).__name__}: {params!r:.200}")
        self._log_params(() if params is None else flatten(params))
        if metrics is not None:
            named = metrics if isinstance(metrics, Mapping) else {"hp_metric": metrics}
            self.log_metrics(dict(self._unknown("metric", named.items())), 0)

    @rank_zero_only
    def log_graph(self, model: Module, input_array: Tensor | None = None) -> None:
        """Record the model's summary and its number of parameters, once. The model is not run for it."""
        if not self._log_graph:
            return
        for name, summary in self._unknown("text", [("model/summary", as_text(model))]):
            self._recorder.log_text(name, summary)
        parameters = [p for p in model.parameters() if not isinstance(p, UninitializedParameter)]
        trainable, total = (sum(p.numel() for p in parameters if p.requires_grad or every) for every in (False, True))
        counts = {"parameters": total, "trainable_parameters": trainable, "frozen_parameters": total - trainable}
        self._log_params((f"model/{name}", count) for name, count in counts.items())

    @rank_zero_only
    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        """Keep a checkpoint with the run, if it is one to keep. A fault is logged: the training is worth more."""
        with reported("keeping a checkpoint"):
            self._checkpoints.saved(self.recording.experiment, checkpoint_callback)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Note the end of a stage.

        After `success`, and `finished` before SLURM requeues the job, the run goes on: the backends are told to catch
        up, and nobody waits for them. `failed` ends the run, with the exception that is being handled.
        """
        if self.recording.latest.is_running:
            with reported("keeping checkpoints"):
                self._checkpoints.stage_ended(self.recording.latest)
        self.recording.stage_ended(is_failed=status in ("failed", "aborted"))

    # -- what users call -----------------------------------------------------------------------------------------------

    @rank_zero_only
    def stop(self, status: str = "finished") -> None:
        """End the run now and not with the program. A later stage goes on with it, as its next attempt.

        Args:
            status: `finished` or `failed`.

        Raises:
            UsageError: `status` is neither.
        """
        self.recording.latest.stop(status)
        self._checkpoints.let_go(self.recording.latest)

    # -- what the callback calls ---------------------------------------------------------------------------------------

    def resume(self, saved: Mapping[str, Any]) -> None:
        """Go on with the run of a checkpoint; `saved` is its `resume_state()`."""
        before = self._latest.run_id
        self.recording.resume(saved)
        if self._latest.run_id != before:
            self._known.clear()

    def set_apart(self, stage: str) -> None:
        """Have a word stand before the names of metrics and media from now on; an empty one ends that."""
        self._prefix = stage + self._given_prefix

    # -- inside --------------------------------------------------------------------------------------------------------

    def _log_params(self, params: Iterable[tuple[str, Any]]) -> None:
        self._recorder.log_params(dict(self._unknown("parameter", params)))

    def _unknown(self, kind: str, values: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
        """Those that have not been recorded, or not with this value."""
        for name, value in values:
            key, text = f"{kind} {name}", repr(value)
            if self._known.get(key) != text:
                self._known[key] = text
                yield name, value


def _is_other_rank() -> bool:
    return bool(rank_zero_only.rank > 0)  # type: ignore[attr-defined]  # Lightning keeps the rank there.
