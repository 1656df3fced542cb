"""The `log_*` calls: what every experiment offers, to users and adapters alike.

Called on any thread, from signal handlers, `__del__` and forked children too.

Guarantee: a record whose call has returned is on the local disk. A call raises `UsageError` for the caller's own
mistakes (a name that is no string, a stopped experiment) and nothing else, and it waits for nobody.
"""

from __future__ import annotations

import os
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tracelet.core.intake import Intake, Journal, Points, check_name
from tracelet.core.records import DEFINE_PREFIX, DESCRIPTION_NAME, TAG_PREFIX, USED_NAME, MetricData, MetricType
from tracelet.delivery.resolve import Deferred, is_on_device
from tracelet.errors import UsageError
from tracelet.journal.artifacts import LATEST, Artifact, find_artifact
from tracelet.journal.format import IDENTITY_FILE
from tracelet.journal.load import Run, find_run
from tracelet.journal.manifests import VERSION
from tracelet.utils.media import encode_audio, encode_figure, encode_image, encode_video, histogram, table
from tracelet.utils.values import as_mapping, as_text, flatten

_MAX_LEVELS: Final = 20


class Recorder(ABC):
    """See the module docstring. `Experiment` adds the life cycle."""

    _journal: Journal
    _intake: Intake

    @abstractmethod
    def _require_running(self) -> None:
        """Raise `ExperimentStateError` where no record can be taken."""

    # -- scalars -------------------------------------------------------------------------------------------------------

    def log_metric(self, name: str, value: Any, iteration: int | None = None) -> None:
        """Record one value of a series.

        Args:
            name: The series; levels are divided by `/`.
            value: A number, or anything of one element: numpy, torch, JAX. NaN and infinities are kept. A text is
                recorded as a text, and a vector as a tensor. What a device still computes is not waited for; it is
                recorded when it is there.
            iteration: The step. None: that of `set_iteration`, or else the series counts by itself: 0, 1, 2, …

        Raises:
            InvalidNameError: `name` is no string.
            ExperimentStateError: The experiment is not running.
        """
        # The fast path: a known series and a float. Nothing here can fail but for the user's own mistakes, and what is
        # not plain goes the long way. `stop` empties `series`, so that this path needs no look at the state.
        try:
            series = self._journal.series[name]
            if type(value) is float:
                if iteration is None:
                    iteration = self._intake.iteration
                    if iteration is None:
                        iteration = series.next_step()
                self._journal.append(series.key, iteration, value)
                return
        except (KeyError, TypeError, ValueError, RuntimeError, struct.error):
            pass  # A new series, or a name or a step that `metric` reports or mends: a tensor may raise any of these.
        self._require_running()
        self._intake.metric(name, value, iteration)

    def log_metrics(self, metrics: Mapping[str, Any], iteration: int | None = None) -> None:
        """Record several values under one step. Nested mappings are joined with `/`.

        Raises:
            InvalidNameError, ExperimentStateError: As `log_metric`.
            UsageError: `metrics` is no mapping, or one that can't be read.
        """
        if type(metrics) is not dict:
            if not isinstance(metrics, Mapping):
                raise UsageError(
                    f"log_metrics() takes a mapping, not {type(metrics).__name__}: {as_text(metrics):.200}"
                )
            metrics = dict(_items(metrics))
        try:  # As in `log_metric`, and all of them in one write: a kill can't come between them.
            step = self._intake.iteration if iteration is None else iteration
            if step is not None:
                self._journal.append_all(metrics, step)
                return
        except (KeyError, TypeError, ValueError, RuntimeError, struct.error):
            pass  # As there; or another thread has changed the mapping meanwhile.
        self._require_running()
        fault: UsageError | None = None
        on_devices: list[tuple[str, Any]] = []
        for name, value in _items(metrics):
            try:
                if type(value) is float:
                    self.log_metric(name, value, iteration)
                else:
                    check_name(name)
                    for inner, leaf in _leaves(name, value):
                        if is_on_device(leaf):
                            on_devices.append((inner, leaf))
                        else:
                            self.log_metric(inner, leaf, iteration)
            except UsageError as error:  # The others are recorded all the same.
                fault = fault or error
        self._intake.metrics(on_devices, iteration)
        if fault is not None:
            raise fault

    def log_params(self, params: Any) -> None:
        """Record parameters: a mapping, Namespace, dataclass, pydantic model or OmegaConf, nested as deep as you like.

        Raises:
            ExperimentStateError: The experiment is not running.
            UsageError: `params` has no named fields.
        """
        self._require_running()
        require_fields(params)
        for name, value in flatten(params):
            self._intake.record(name, value, MetricType.PARAMETER)

    def log_param(self, name: str, value: Any) -> None:
        """Record one parameter.

        Raises:
            InvalidNameError, ExperimentStateError: As `log_metric`.
        """
        check_name(name)
        self.log_params({name: value})

    def log_text(self, name: str, text: str, iteration: int | None = None) -> None:
        """Record a text.

        Raises:
            InvalidNameError, ExperimentStateError: As `log_metric`.
        """
        self._require_running()
        self._intake.record(name, text, MetricType.TEXT, iteration)

    def log_image(self, name: str, image: Any, iteration: int | None = None, caption: str | None = None) -> None:
        """Record an image: an array (H, W), (H, W, C) or (C, H, W), a PIL image, encoded bytes, or a path.

        Raises:
            InvalidNameError, ExperimentStateError: As `log_metric`.
        """
        self._log_encoded(
            name, image, MetricType.IMAGE, encode_image, iteration, {"caption": caption} if caption else None
        )

    def log_figure(self, name: str, figure: Any, iteration: int | None = None) -> None:
        """Record a figure of matplotlib or plotly, or a path of one. The figure stays open.

        Raises:
            InvalidNameError, ExperimentStateError: As `log_metric`.
        """
        self._log_encoded(name, figure, MetricType.FIGURE, encode_figure, iteration)

    def log_audio(self, name: str, audio: Any, iteration: int | None = None, sample_rate_hz: int = 44_100) -> None:
        """Record a sound: samples of shape (n,), (n, channels) or (channels, n), encoded bytes, or a path.

        Raises:
            InvalidNameError, ExperimentStateError: As `log_metric`.
        """
        self._log_encoded(name, audio, MetricType.AUDIO, lambda value: encode_audio(value, sample_rate_hz), iteration)

    def log_video(self, name: str, video: Any, iteration: int | None = None, frames_per_s: float = 4.0) -> None:
        """Record a film: frames of shape (T, H, W, C) or (T, C, H, W), encoded bytes, or a path.

        Raises:
            InvalidNameError, ExperimentStateError: As `log_metric`.
        """
        self._log_encoded(name, video, MetricType.VIDEO, lambda value: encode_video(value, frames_per_s), iteration)

    def log_histogram(self, name: str, values: Any, iteration: int | None = None, bins: int = 64) -> None:
        """Record the distribution of an array's elements, or a ready `(counts, edges)` as of `numpy.histogram`.

        Raises:
            InvalidNameError, ExperimentStateError: As `log_metric`.
        """
        self._log_made(name, MetricType.HISTOGRAM, lambda: histogram(values, bins), values, iteration)

    def log_table(
        self,
        name: str,
        data: Any = None,
        iteration: int | None = None,
        *,
        columns: Sequence[str] | None = None,
        rows: Sequence[Sequence[Any]] | None = None,
    ) -> None:
        """Record a table: a pandas frame, a list of mappings, a mapping of columns, or columns and rows.

        Raises:
            InvalidNameError, ExperimentStateError: As `log_metric`.
        """
        self._log_made(name, MetricType.TABLE, lambda: table(data, columns, rows), data, iteration)

    # -- artifacts -----------------------------------------------------------------------------------------------------

    def log_artifact(
        self,
        path: str | os.PathLike[str] | None = None,
        name: str | None = None,
        type: str | None = None,
        *,
        reference: str | os.PathLike[str] | None = None,
        aliases: str | Sequence[str] = (),
        metadata: Mapping[str, Any] | None = None,
        iteration: int | None = None,
    ) -> Artifact:
        """Keep a file or a directory with the run. Yours is not touched, and may be deleted afterwards.

        Args:
            path: The file or directory. Files over 1 MiB are linked into the run directory where that is possible:
                write new ones, rather than into them. All others are copied.
            name: What is logged under the same name is its next version. None: the file's own name.
            type: `model`, `checkpoint`, `dataset`, `image`, `report`, `code`, or another word.
            reference: In place of `path`, a URI or a path that is recorded and not looked at.
            aliases: Words such as `best`, that move here from other versions of the name.
            metadata: Anything that belongs to it; JSON-like.
            iteration: The step.

        Returns:
            The artifact. Its digest is None: it is computed in the background.

        Raises:
            InvalidNameError, ExperimentStateError: As `log_metric`.
            UsageError: There is nothing at `path`, or the run itself is in there; or an alias is none.
        """
        self._require_running()
        details: dict[str, Any] = {"aliases": alias_list(aliases), "metadata": dict(metadata or {})}
        if type is not None:
            details["type"] = as_text(type)
        if reference is not None:
            if path is not None:
                raise UsageError("log_artifact() takes a path or a reference, and not both")
            details["reference"] = uri = as_uri(reference)
            own = uri.rstrip("/").rpartition("/")[2]
            return self._intake.artifact(own if name is None else name, None, iteration, metadata=details)
        try:
            source = Path(path)  # type: ignore[arg-type]  # None is reported as any other value that is no path.
        except TypeError as error:
            raise UsageError(f"log_artifact() takes a path, not {as_text(path):.200}") from error
        if not os.path.exists(source):
            raise UsageError(f"log_artifact(): there is no file or directory {os.fspath(source)!r}")
        if not source.is_file() and not source.is_dir():
            raise UsageError(f"log_artifact(): {os.fspath(source)!r} is neither a file nor a directory")
        if source.is_dir() and self._intake.is_in(source):
            raise UsageError(f"log_artifact(): {os.fspath(source)!r} holds the run itself; log the parts that you mean")
        own = os.path.basename(os.path.abspath(source))
        return self._intake.artifact(own if name is None else name, source, iteration, metadata=details)

    def use_artifact(self, artifact: str | Artifact, run: str | os.PathLike[str] | Run | None = None) -> Artifact:
        """Record that this run reads an artifact, and find it.

        Args:
            artifact: `name` (its latest version), `name:v3` or `name:best`; or one that was found already.
            run: The run that logged it: a `Run`, or what `load_run` takes. None: this run.

        Raises:
            ExperimentStateError: As `log_metric`.
            RunNotFoundError, ArtifactNotFoundError: There is none.
        """
        self._require_running()
        if not isinstance(artifact, Artifact):
            check_name(artifact)
            artifact = self.get_artifact(artifact) if run is None else self._run_named(run).artifact(artifact)
        facts = {
            key: getattr(artifact, key)
            for key in ("name", "version", "type", "digest", "reference", "run_id", "run_uuid")
        }
        self._intake.record(USED_NAME, facts, MetricType.CUSTOM)
        return artifact

    def get_artifact(self, artifact: str) -> Artifact:
        """The artifact of this run that `name`, `name:v3` or `name:best` means.

        Raises:
            ArtifactNotFoundError: There is none.
        """
        check_name(artifact)
        return find_artifact(self.list_artifacts(), artifact, self._intake.run.identity.run_id)

    def list_artifacts(self, type: str | None = None) -> list[Artifact]:
        """The artifacts of this run, by name and version; those of a type, or all."""
        run = self._intake.run
        return Run(run.path).artifacts(type) if os.path.exists(run.path / IDENTITY_FILE) else []

    # -- what sources hand over ----------------------------------------------------------------------------------------

    def emit_metric(self, metric: MetricData) -> None:
        """Record what a source (an adapter, a plug-in) hands over.

        Raises:
            InvalidNameError, ExperimentStateError: As `log_metric`.
            UsageError: `metric` is no MetricData, or its type no MetricType.
        """
        self._require_running()
        if not isinstance(metric, MetricData):
            raise UsageError(f"emit_metric() takes a MetricData, not {type(metric).__name__}: {as_text(metric):.200}")
        if not isinstance(metric.type, MetricType):
            raise UsageError(f"the type of a MetricData is a MetricType, not {as_text(metric.type):.200}")
        self._intake.emit(metric)

    def emit_points(self, name: str, value: Deferred[Sequence[Points]], size_bytes: int = 0) -> None:
        """Record points that a device still computes: for an adapter that has many of them in one piece.

        Args:
            name: Under this name is recorded, as a text, what went wrong if something does.
            value: Gives steps, and the values of series at each.
            size_bytes: What it holds on its device.

        Raises:
            ExperimentStateError: The experiment is not running.
        """
        self._require_running()
        self._intake.points(name, value, size_bytes)

    def add_barrier(self, wait: Callable[[], None]) -> None:
        """Have `flush` and `stop` call `wait` first: for an adapter whose records come by callbacks from a device."""
        self._intake.resolver.barriers.add(wait)

    # -- facts about the run -------------------------------------------------------------------------------------------

    def set_tags(self, tags: Mapping[str, Any] | Sequence[str]) -> None:
        """Set tags: key and value, or words. A tag that is there gets the new value.

        Raises:
            InvalidNameError, ExperimentStateError: As `log_metric`. Then none of the tags is set.
            UsageError: `tags` is neither.
        """
        self._require_running()
        for key, value in tag_pairs(tags):
            self._intake.record(TAG_PREFIX + key, value, MetricType.CUSTOM)

    def set_description(self, text: str) -> None:
        """Say what the run is about. The last one holds.

        Raises:
            ExperimentStateError: As `log_metric`.
        """
        self._require_running()
        self._intake.record(DESCRIPTION_NAME, as_text(text), MetricType.CUSTOM)

    def set_iteration(self, iteration: int | None) -> None:
        """The step of all calls that name none; None: each series counts by itself again."""
        self._intake.iteration = iteration

    def define_metric(self, name: str, step: str) -> None:
        """Say that the series `step` (an epoch, the samples seen) is the x-axis of the series `name`.

        Raises:
            InvalidNameError, ExperimentStateError: As `log_metric`.
        """
        self._require_running()
        check_name(name)
        check_name(step)
        self._intake.record(DEFINE_PREFIX + name, {"step": step}, MetricType.CUSTOM)

    # -- inside --------------------------------------------------------------------------------------------------------

    def _run_named(self, run: str | os.PathLike[str] | Run) -> Run:
        return run if isinstance(run, Run) else find_run(os.fspath(run), self._intake.run.path.parent.parent)

    def _log_encoded(
        self,
        name: str,
        value: Any,
        kind: MetricType,
        encode: Callable[[Any], Any],
        iteration: int | None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        self._require_running()
        self._intake.encoded(name, value, kind, encode, iteration, metadata)

    def _log_made(
        self, name: str, kind: MetricType, make: Callable[[], Any], value: Any, iteration: int | None
    ) -> None:
        self._require_running()
        self._intake.made(name, kind, make, value, iteration)


def alias_list(aliases: str | Sequence[str]) -> list[str]:
    """The aliases that a user gave, without `latest`, which goes by itself.

    Raises:
        UsageError: One is no word, or looks like a version.
    """
    words: list[Any] = [aliases] if isinstance(aliases, str) else list(aliases)
    for word in words:
        if not isinstance(word, str) or not word or ":" in word or VERSION.fullmatch(word):
            raise UsageError(f"an alias is a word without a colon that is no version like 'v3', not {word!r:.200}")
    return [word for word in dict.fromkeys(words) if word != LATEST]


def as_uri(reference: str | os.PathLike[str]) -> str:
    """A URI as it is, and a path as a URI.

    Raises:
        UsageError: It is neither.
    """
    try:
        text = os.fspath(reference)
        return text if "://" in text else Path(os.path.abspath(text)).as_uri()
    except (TypeError, ValueError) as error:
        raise UsageError(f"a reference is a URI or a path, not {as_text(reference):.200}") from error


def tag_pairs(tags: Any) -> list[tuple[str, str]]:
    """Keys and values of tags in any form.

    Raises:
        InvalidNameError: A key is no string.
        UsageError: It is neither a mapping nor words.
    """
    if isinstance(tags, Mapping):
        pairs = _items(tags)
    elif isinstance(tags, Iterable) and not isinstance(tags, (bytes, bytearray)):
        pairs = [(word, "") for word in ((tags,) if isinstance(tags, str) else tags)]
    else:
        raise UsageError(f"tags are a mapping or words, not {type(tags).__name__}: {as_text(tags):.200}")
    for key, _ in pairs:
        check_name(key)
    return [(key, as_text(value)) for key, value in pairs]


def require_fields(params: Any) -> None:
    """Refuse what has no named fields, and so holds no parameters.

    Raises:
        UsageError: It is no mapping, nor anything like one.
    """
    if as_mapping(params) is None:
        raise UsageError(f"parameters are named values, not {type(params).__name__}: {as_text(params):.200}")


def _items(mapping: Mapping[Any, Any]) -> list[tuple[Any, Any]]:
    """A snapshot: of a dict in one C call, while other threads go on changing it."""
    try:
        return list(mapping.items())
    except Exception as error:
        raise UsageError(f"a {type(mapping).__name__} can't be read as a mapping: {error!r:.200}") from error


def _leaves(name: str, value: Any, parents: tuple[int, ...] = ()) -> Iterator[tuple[str, Any]]:
    """The single values of a nested metric. `parents` has the ids of the mappings around it."""
    if not isinstance(value, Mapping):
        yield name, value
    elif id(value) in parents or len(parents) >= _MAX_LEVELS:
        yield name, "<cycle>" if id(value) in parents else as_text(value)
    else:
        for key, inner in _items(value):
            yield from _leaves(f"{name}/{as_text(key)}", inner, (*parents, id(value)))
