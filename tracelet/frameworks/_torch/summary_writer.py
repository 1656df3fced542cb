"""TensorBoard's `SummaryWriter`, into a run of Tracelet.

Called by scripts, on any thread. Guarantee: as the `log_*` calls of an experiment, which its methods end in: what was
added is on the disk when the call returns, and no value raises. What can't be kept in its form is recorded in words.
"""

from __future__ import annotations

import hashlib
import os
import socket
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self, final

from tracelet.core.experiment import Experiment
from tracelet.core.records import REWIND_NAME, MetricType
from tracelet.errors import UsageError
from tracelet.frameworks._torch.file_writer import FileWriter
from tracelet.frameworks._torch.media import MediaWriter
from tracelet.utils.values import as_text


@final
class SummaryWriter(MediaWriter):
    """`torch.utils.tensorboard.SummaryWriter`, with the same methods and arguments, that records with Tracelet.

    A call without `global_step` is of step 0, as in TensorBoard. Values are kept in full, not as `float32`.
    """

    def __init__(
        self,
        log_dir: str | os.PathLike[str] | None = None,
        comment: str = "",
        purge_step: int | None = None,
        max_queue: int = 10,
        flush_secs: float = 120,
        filename_suffix: str = "",
        *,
        experiment: Experiment | None = None,
    ) -> None:
        """Begin a run, or go on with that of the same `log_dir`.

        Args:
            log_dir: Names the run; made as a directory, for what the script may put there. None: a new run, whose
                directory it is.
            comment: Ends the name of a run without a `log_dir`.
            purge_step: The points of this step and later ones are superseded by what comes now.
            max_queue: Kept as an attribute: nothing waits in a queue.
            flush_secs: Kept as an attribute: each call writes.
            filename_suffix: Kept as an attribute.
            experiment: One that runs, to record into in place of a run of its own; `close` does not stop it.

        Raises:
            TraceletError: What `Experiment.start()` raises: a backend that is not installed, say.
        """
        super().__init__()
        self._is_ours = experiment is None
        self._experiment = _experiment(log_dir, comment).reopen() if experiment is None else experiment
        self.log_dir = os.fspath(self._experiment.run_dir if log_dir is None else log_dir)
        if log_dir is not None:
            os.makedirs(log_dir, exist_ok=True)
        self.purge_step = None
        self.max_queue, self.flush_secs, self.filename_suffix = max_queue, flush_secs, filename_suffix
        self._hparams: list[Mapping[str, Any]] = []
        if purge_step is not None:
            self._emit(REWIND_NAME, float(purge_step - 1), MetricType.SYSTEM, purge_step - 1, None)

    # -- numbers -------------------------------------------------------------------------------------------------------

    def add_scalar(
        self,
        tag: str,
        scalar_value: Any,
        global_step: Any = None,
        walltime: float | None = None,
        new_style: bool = False,
        double_precision: bool = False,
    ) -> None:
        """Record one value of a series. `new_style` and `double_precision` say how TensorBoard would store it."""
        if walltime is None:
            self._running().log_metric(tag, scalar_value, 0 if global_step is None else global_step)
        else:
            self._emit(tag, scalar_value, MetricType.SCALAR, global_step, walltime)

    def add_scalars(
        self, main_tag: str, tag_scalar_dict: Mapping[str, Any], global_step: Any = None, walltime: float | None = None
    ) -> None:
        """Record several values, as the series `main_tag/tag`."""
        for tag, value in tag_scalar_dict.items():
            self.add_scalar(f"{main_tag}/{tag}", value, global_step, walltime)

    def add_text(self, tag: str, text_string: str, global_step: Any = None, walltime: float | None = None) -> None:
        """Record a text."""
        self._emit(tag, text_string, MetricType.TEXT, global_step, walltime)

    # -- facts ---------------------------------------------------------------------------------------------------------

    def add_hparams(
        self,
        hparam_dict: Any,
        metric_dict: Any,
        hparam_domain_discrete: dict[str, list[Any]] | None = None,
        run_name: str | None = None,
        global_step: Any = None,
    ) -> None:
        """Record hyper-parameters, and the metrics that they led to, each as a dict.

        The first call describes this run. One with other hyper-parameters is another trial: a run of its own, which
        ends with the call, and is called `run_name`.

        Raises:
            UsageError: One of the two is no dict.
        """
        if not isinstance(hparam_dict, dict) or not isinstance(metric_dict, dict):
            raise UsageError("add_hparams() takes two dicts, of hyper-parameters and of metrics")
        step = 0 if global_step is None else global_step
        experiment = self._running()
        if not self._hparams or hparam_dict == self._hparams[0]:
            self._hparams = [dict(hparam_dict)]
            experiment.log_params(hparam_dict)
            experiment.log_metrics(metric_dict, step)
            return
        name = f"{experiment.name}/{time.time()}" if run_name is None else run_name
        root = experiment.run_dir.parent.parent
        with Experiment(name, None, hparam_dict, project=experiment.project, dir=root, collectors=()) as trial:
            trial.log_metrics(metric_dict, step)

    def add_graph(
        self, model: Any, input_to_model: Any = None, verbose: bool = False, use_strict_trace: bool = True
    ) -> None:
        """Record a model as the text `model/summary`. It is not run for it, so the other arguments have no effect."""
        self._running().log_text("model/summary", as_text(model))

    def add_onnx_graph(self, prototxt: str | os.PathLike[str]) -> None:
        """Keep an ONNX file as an artifact.

        Raises:
            UsageError: It is not there.
        """
        self._running().log_artifact(prototxt, type="model")

    def add_custom_scalars(self, layout: Mapping[str, Any]) -> None:
        """Keep TensorBoard's layout of charts, as the record `custom_scalars`. Nothing of ours draws it."""
        self._emit("custom_scalars", layout, MetricType.CUSTOM, None, None)

    def add_custom_scalars_multilinechart(
        self, tags: Sequence[str], category: str = "default", title: str = "untitled"
    ) -> None:
        """As `add_custom_scalars`, for one chart."""
        self.add_custom_scalars({category: {title: ["Multiline", list(tags)]}})

    def add_custom_scalars_marginchart(
        self, tags: Sequence[str], category: str = "default", title: str = "untitled"
    ) -> None:
        """As `add_custom_scalars`, for one chart of three series."""
        self.add_custom_scalars({category: {title: ["Margin", list(tags)]}})

    # -- life cycle ----------------------------------------------------------------------------------------------------

    @property
    def experiment(self) -> Experiment:
        """Where it all goes, with everything that it can do."""
        return self._running()

    @property
    def file_writer(self) -> FileWriter | None:
        """What scripts flush, and add protocol buffers to. None after `close`."""
        return FileWriter(self) if self._experiment.is_running else None

    @property
    def all_writers(self) -> dict[str, FileWriter] | None:
        """The same, by its directory."""
        writer = self.file_writer
        return None if writer is None else {self.log_dir: writer}

    def _get_file_writer(self) -> FileWriter:
        """As scripts call it."""
        self._running()
        return FileWriter(self)

    def get_logdir(self) -> str:
        """The directory of the script's own files."""
        return self.log_dir

    def flush(self) -> None:
        """Tell the backends to catch up. On the disk it is all already."""
        self._experiment.flush(timeout=0)

    def close(self) -> None:
        """End the run. A later call goes on with it, as its next attempt."""
        if self._is_ours:
            self._experiment.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the run, as `failed` after an exception."""
        if self._is_ours:
            self._experiment.__exit__(kind, error, trace)

    # -- inside --------------------------------------------------------------------------------------------------------

    def _running(self) -> Experiment:
        if self._is_ours and not self._experiment.is_running:
            self._experiment = self._experiment.reopen()
        return self._experiment


def _experiment(log_dir: str | os.PathLike[str] | None, comment: str) -> Experiment:
    """The run of this directory: of an absolute path, since two projects may both have a `runs/1`."""
    if log_dir is None:
        return Experiment(f"{time.strftime('%b%d_%H-%M-%S')}_{socket.gethostname()}{comment}")
    name, path = os.fspath(log_dir), os.path.abspath(log_dir)
    return Experiment(name, run_id=f"{os.path.basename(path)}-{hashlib.sha256(path.encode()).hexdigest()[:8]}")
