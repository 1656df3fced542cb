"""`TraceletTracker` for Accelerate: `Accelerator(log_with="tracelet")`.

Accelerate makes it in `init_trackers`, in the first process, and calls on the thread that trains: `start`,
`store_init_configuration`, then `log` for each `Accelerator.log`, and `finish` in `end_training`. Users may make one
themselves, in every process: then, too, the first one records, and in the others nothing happens.

Guarantee: each call hands over to the experiment and keeps its promises. `finish` alone gives the backends their time.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Final, final

from tracelet.core.experiment import Backends, Experiment, Resume
from tracelet.errors import MissingDependencyError, UsageError
from tracelet.utils.redaction import redacted

try:
    from accelerate.tracking import (  # type: ignore[import-untyped]  # It ships no types.
        GeneralTracker,
        on_main_process,
        register_tracker_class,
    )
except ImportError as error:
    raise MissingDependencyError(
        f"TraceletTracker needs accelerate 1.15 or later: {error}. Install it with: pip install 'tracelet[hf]'"
    ) from error


@final
class TraceletTracker(GeneralTracker):  # type: ignore[misc]  # As above, and below.
    """Records a training loop of Accelerate's with Tracelet. See the module docstring."""

    name: Final = "tracelet"
    requires_logging_directory: Final = False
    main_process_only: Final = True

    def __init__(
        self,
        project_name: str | None = None,
        name: str | None = None,
        backend: Backends | None = None,
        tags: Mapping[str, str] | Sequence[str] | None = None,
        run_id: str | None = None,
        resume: Resume | bool | None = None,
        *,
        dir: str | os.PathLike[str] | None = None,
        collectors: Sequence[str] | None = None,
        experiment: Experiment | None = None,
    ) -> None:
        """Prepare a tracker; nothing is written before `start()`.

        All but the first argument are given as `init_trackers(…, init_kwargs={"tracelet": {…}})`.

        Args:
            project_name: Groups runs. None: the setting `project`.
            name: The run's name, for people. None: that of the project.
            backend: Where the run goes besides the local disk: names, instances, or several.
            tags: Key and value, or words.
            run_id: Names the run, unique in its project. None: a new one is made.
            resume: What to do about `run_id`, as for `Experiment`.
            dir: Where runs are kept. None: the setting `dir`.
            collectors: Names of collectors. None: the setting `collectors`.
            experiment: An experiment to record into, in place of all of the above.

        Raises:
            InvalidNameError: A name is no string.
            SettingsError: A setting is wrong.
            UsageError: `resume` is none of what it can be.
        """
        super().__init__()
        self._experiment = experiment or Experiment(
            name or project_name or "accelerate", backend, None, tags, project_name, run_id, resume,
            dir=dir, collectors=collectors,
        )  # fmt: skip

    @property
    def tracker(self) -> Experiment:
        """The experiment. It runs in the first process alone."""
        return self._experiment

    @on_main_process  # type: ignore[untyped-decorator]  # As above.
    def start(self) -> None:
        """Begin the run.

        Raises:
            TraceletError: What `Experiment.start()` raises: a backend that is not installed, say.
        """
        self._experiment = self._experiment.reopen()

    @on_main_process  # type: ignore[untyped-decorator]  # As above.
    def store_init_configuration(self, values: Any) -> None:
        """Record the configuration as parameters, without credentials."""
        self._experiment.log_params(dict(redacted(values)))

    @on_main_process  # type: ignore[untyped-decorator]  # As above.
    def log(self, values: Mapping[str, Any], step: int | None = None, **options: Any) -> None:
        """Record values of series; nested ones are joined with `/`, and a text is recorded as a text."""
        self._experiment.log_metrics(values, step)

    @on_main_process  # type: ignore[untyped-decorator]  # As above.
    def log_images(self, values: Mapping[str, Any], step: int | None = None, **options: Any) -> None:
        """Record images: each value is one, or several as a list or as an array of shape (N, H, W, C)."""
        for name, images in values.items():
            if isinstance(images, (list, tuple)) or len(getattr(images, "shape", ())) == 4:
                for index, image in enumerate(images):
                    self._experiment.log_image(f"{name}/{index}", image, step)
            else:
                self._experiment.log_image(name, images, step)

    @on_main_process  # type: ignore[untyped-decorator]  # As above.
    def log_table(
        self,
        table_name: str,
        columns: Sequence[str] | None = None,
        data: Sequence[Sequence[Any]] | None = None,
        dataframe: Any = None,
        step: int | None = None,
        **options: Any,
    ) -> None:
        """Record a table: `columns` and `data`, its rows; or a pandas frame."""
        self._experiment.log_table(table_name, dataframe, step, columns=columns, rows=data)

    @on_main_process  # type: ignore[untyped-decorator]  # As above.
    def log_figure(self, name: str, figure: Any, step: int | None = None, **options: Any) -> None:
        """Record a figure of matplotlib or plotly."""
        self._experiment.log_figure(name, figure, step)

    @on_main_process  # type: ignore[untyped-decorator]  # As above.
    def log_artifact(self, path: str | os.PathLike[str], name: str | None = None, type: str | None = None) -> None:
        """Keep a file or directory with the run.

        Raises:
            UsageError: There is nothing at `path`.
        """
        self._experiment.log_artifact(path, name, type)

    @on_main_process  # type: ignore[untyped-decorator]  # As above.
    def log_artifacts(self, directory: str | os.PathLike[str], name: str | None = None) -> None:
        """Keep what is in a directory with the run, each file or directory as an artifact of its own.

        Args:
            directory: It is not touched.
            name: Stands before the names, with a `/`.

        Raises:
            UsageError: There is no such directory.
        """
        if not os.path.isdir(directory):
            raise UsageError(f"log_artifacts(): there is no directory {os.fspath(directory)!r}")
        for entry in sorted(os.listdir(directory)):
            self._experiment.log_artifact(os.path.join(directory, entry), f"{name}/{entry}" if name else entry)

    @on_main_process  # type: ignore[untyped-decorator]  # As above.
    def finish(self) -> None:
        """End the run."""
        self._experiment.stop()


register_tracker_class(TraceletTracker)
