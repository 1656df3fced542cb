"""From a value to the journal: what each kind of value becomes, and under which step.

Called on any thread that logs. Guarantee: a name that is no string raises `InvalidNameError`; nothing else raises, and
whatever was given is recorded in some form: a text where it is no number, a file where it is a vector. What had to be
changed says so in the record's metadata, and once a name in the log. What a device still computes has the step and the
time of the call, and is written when it is there (see `delivery.resolve`); a tracer of JAX alone is a `UsageError`.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Protocol, final, runtime_checkable

from tracelet.core.hashing import Hashing
from tracelet.core.records import MetricData, MetricType
from tracelet.delivery.resolve import Deferred, Resolver, defer, is_on_device
from tracelet.errors import InvalidNameError
from tracelet.journal.artifacts import LATEST, Artifact, described, with_manifest
from tracelet.journal.directory import RunDirectory
from tracelet.journal.files import store_bytes, store_file
from tracelet.journal.manifests import Manifest, claim, keep, manifest_path
from tracelet.journal.reader import FILE_TYPES
from tracelet.journal.writer import MAX_SERIES, Series, SeriesId
from tracelet.utils.media import Encoded, encode_tensor
from tracelet.utils.values import as_scalar, as_step, as_text, json_like

logger = logging.getLogger(__name__)

_MAX_WARNINGS: Final = 1000  # One a name; the set of names stays bounded.
_SCALARS: Final = (MetricType.SCALAR, MetricType.SYSTEM)
_WITHOUT_STEP: Final = (MetricType.SYSTEM, MetricType.PARAMETER, MetricType.CUSTOM)
"""The experiment's current iteration says nothing about these; a SYSTEM series counts its own."""

Points = tuple[int, Mapping[str, float]]
"""A step, and the values of series at it."""


class Journal(Protocol):
    """Where records go: a `JournalWriter`, or nowhere (`NullJournal`)."""

    series: dict[SeriesId, Series]
    lost: int

    def append(self, key: int, step: int, value: float, time_ns: int | None = None) -> None:
        """As `JournalWriter.append`."""

    def append_all(self, values: Mapping[str, float], step: int, time_ns: int | None = None) -> None:
        """As `JournalWriter.append_all`."""

    def define(self, identity: SeriesId) -> Series | None:
        """As `JournalWriter.define`."""

    def write_record(
        self,
        name: str,
        value: Any,
        kind: MetricType,
        *,
        step: int | None = None,
        time_ns: int | None = None,
        source: str | None = None,
        metadata: Any = None,
    ) -> None:
        """As `JournalWriter.write_record`."""

    def open(self) -> None:
        """As `JournalWriter.open`."""

    def close(self) -> None:
        """As `JournalWriter.close`."""


@final
class NullJournal:
    """Keeps nothing: for the setting `disabled`."""

    def __init__(self) -> None:
        self.series: dict[SeriesId, Series] = {}
        self.lost = 0
        self._series = Series(0, "", MetricType.SCALAR, None)

    def append(self, key: int, step: int, value: float, time_ns: int | None = None) -> None:
        """Nothing happens."""

    def append_all(self, values: Mapping[str, float], step: int, time_ns: int | None = None) -> None:
        """Nothing happens, but to names that are new."""
        if not values.keys() <= self.series.keys():
            raise KeyError

    def define(self, identity: SeriesId) -> Series | None:
        """The same series for every name, so that the fast path is as fast."""
        if len(self.series) < MAX_SERIES:
            self.series[identity] = self._series
        return self._series

    def write_record(
        self,
        name: str,
        value: Any,
        kind: MetricType,
        *,
        step: int | None = None,
        time_ns: int | None = None,
        source: str | None = None,
        metadata: Any = None,
    ) -> None:
        """Nothing happens."""

    def open(self) -> None:
        """Nothing happens."""

    def close(self) -> None:
        """Nothing happens."""


@final
class Intake:
    """See the module docstring."""

    def __init__(self, journal: Journal, run: RunDirectory, *, keep_files: bool = True) -> None:
        """Make an intake.

        Args:
            journal: Where records go.
            run: Where files go.
            keep_files: False where nothing is to be recorded at all.
        """
        self.iteration: int | None = None
        """The step of calls that name none; None: each series counts its own."""
        self.journal = journal
        self.run = run
        """Where files go."""
        self._keep_files = keep_files
        self._warned: set[str] = set()
        self._fallback_step: Callable[[], int] = itertools.count().__next__
        self.resolver = Resolver()
        self.hashing = Hashing(run.path)

    def emit(self, metric: MetricData) -> None:
        """Record what a source hands over."""
        name, value, kind, iteration = metric.name, metric.value, metric.type, metric.iteration
        source = None if metric.source is None else as_text(metric.source)
        metadata = None if metric.metadata is None else json_like(metric.metadata)
        if metadata is not None and not isinstance(metadata, dict):
            metadata = {"metadata": metadata}
        time_ns = None if metric.timestamp is None else _time_ns(metric.timestamp)
        if time_ns is None and metric.timestamp is not None:  # It gets the time of this call.
            metadata = {**(metadata or {}), "timestamp": as_text(metric.timestamp)}
        if kind in _SCALARS:
            self.metric(name, value, iteration, kind=kind, time_ns=time_ns, source=source, metadata=metadata)
        elif kind is MetricType.ARTIFACT:
            self.artifact(name, value, iteration, time_ns, source, metadata)
        elif kind in FILE_TYPES:
            self.file(name, value, kind, iteration, time_ns, source, metadata)
        else:
            self.record(name, value, kind, iteration, time_ns, source, metadata)

    def metric(
        self,
        name: str,
        value: Any,
        iteration: Any = None,
        *,
        kind: MetricType = MetricType.SCALAR,
        time_ns: int | None = None,
        source: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Record one value of a series."""
        check_name(name)
        if is_on_device(value) or is_on_device(iteration):
            self._later([(name, value)], iteration, kind, time_ns, source, metadata)
        else:
            self._metric(name, value, iteration, kind, time_ns, source, metadata)

    def metrics(self, values: Sequence[tuple[str, Any]], iteration: Any) -> None:
        """Record values of which each `is_on_device`: as `metric`, with one copy for all."""
        if values:
            self._later(values, iteration)

    def points(self, name: str, value: Deferred[Sequence[Points]], size_bytes: int) -> None:
        """Record the points that a computation gives, when it is done.

        Args:
            name: Under this name is recorded what went wrong, if something does.
            value: The points.
            size_bytes: What it holds on its device.
        """
        time_ns = time.time_ns()

        def write(found: Sequence[Points] | Exception) -> None:
            if isinstance(found, Exception):
                self._record_failure(name, found, None, time_ns)
                return
            for step, values in found:
                try:
                    self.journal.append_all(values, step, time_ns)
                except (KeyError, TypeError, struct.error):  # A series is new, say.
                    for series_name, number in values.items():
                        self._metric(series_name, number, step, MetricType.SCALAR, time_ns)

        self.resolver.put(value, write, size_bytes)

    def _later(
        self,
        values: Sequence[tuple[str, Any]],
        iteration: Any,
        kind: MetricType = MetricType.SCALAR,
        time_ns: int | None = None,
        source: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Have values recorded when they are there, under the step and the time of now."""
        time_ns = time_ns or time.time_ns()
        if iteration is None and kind not in _WITHOUT_STEP:
            iteration = self.iteration
        counted = [iteration if iteration is not None else self._next_step(name, kind, source) for name, _ in values]
        kept = defer([*(value for _, value in values), *counted])

        def write(found: Sequence[Any] | Exception) -> None:
            steps = counted if isinstance(found, Exception) else found[len(values) :]
            for place, (name, _) in enumerate(values):
                value = found if isinstance(found, Exception) else found[place]
                if isinstance(value, Exception):
                    self._record_failure(name, value, steps[place], time_ns, source, metadata)
                else:
                    self._metric(name, value, steps[place], kind, time_ns, source, metadata)

        self.resolver.put(kept, write, kept.size_bytes)

    def _next_step(self, name: str, kind: MetricType, source: str | None) -> int:
        series = self.journal.define(_identity(name, kind, source))
        return (series.next_step if series is not None else self._fallback_step)()

    def _metric(
        self,
        name: str,
        value: Any,
        iteration: Any,
        kind: MetricType,
        time_ns: int | None = None,
        source: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        scalar = as_scalar(value)
        if scalar is None:
            self._record_odd_value(name, value, iteration, time_ns, source, metadata)
            return
        step, details = self._step(name, iteration, kind, metadata)
        if scalar.exact is not None:
            details["exact"] = scalar.exact
            self._warn_once(name, f"is no number that a float can hold: {scalar.exact[:40]}")
        series = self.journal.define(_identity(name, kind, source))
        if step is None:
            step = (series.next_step if series is not None else self._fallback_step)()
        if details or series is None:
            self.journal.write_record(
                name, scalar.value, kind, step=step, time_ns=time_ns, source=source, metadata=details
            )
        else:
            self.journal.append(series.key, step, scalar.value, time_ns)

    def record(
        self,
        name: str,
        value: Any,
        kind: MetricType,
        iteration: Any = None,
        time_ns: int | None = None,
        source: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Record one value of any other type."""
        check_name(name)
        step, details = self._step(name, iteration, kind, metadata)
        value = as_text(value) if kind is MetricType.TEXT else json_like(value)
        self.journal.write_record(name, value, kind, step=step, time_ns=time_ns, source=source, metadata=details)

    def file(
        self,
        name: str,
        path: Any,
        kind: MetricType,
        iteration: Any = None,
        time_ns: int | None = None,
        source: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Record a file of the user's, and keep it with the run."""

        def store() -> str:
            return store_file(self.run, Path(os.path.abspath(path)), "media", name)

        self.made(name, kind, store, path, iteration, time_ns, source, metadata)

    def artifact(
        self,
        name: str,
        path: Any,
        iteration: Any = None,
        time_ns: int | None = None,
        source: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Artifact:
        """Record a file or directory of the user's as the next version of an artifact, and keep it with the run.

        Args:
            name: Of the artifact.
            path: The file or directory. Not looked at where `metadata` has a `reference`: then that is recorded.
            iteration: The step.
            time_ns: Unix time in nanoseconds. None: now.
            source: Who made it.
            metadata: `type`, `aliases`, `reference`, `metadata`, and what an adapter adds.

        Returns:
            The artifact. Its digest is computed in the background. It has no path where it could not be kept; then a
            text is recorded in its place.
        """
        details = dict(metadata or {})
        kept: list[tuple[Path, Manifest]] = []

        def store() -> str:
            place = claim(self.run, name)
            details["version"] = place.name
            if "reference" in details:
                return str(details["reference"])
            content, manifest = keep(Path(os.path.abspath(path)), place, name)
            details.update(size_bytes=manifest.size_bytes, files=len(manifest.files))
            kept.append((content, manifest))
            self.hashing.put(manifest_path(place))
            return os.fspath(content.relative_to(self.run.path))

        self.made(name, MetricType.ARTIFACT, store, path, iteration, time_ns, source, details)
        step, _ = as_step(self.iteration if iteration is None else iteration)
        record = MetricData(name, "", MetricType.ARTIFACT, step, (time_ns or time.time_ns()) / 1e9, metadata=details)
        artifact = described(record, self.run.identity)
        artifact = replace(artifact, aliases=tuple(sorted({*artifact.aliases, LATEST})))
        return with_manifest(artifact, *kept[0]) if kept else artifact

    def is_in(self, path: Path) -> bool:
        """Whether the run is kept in this directory, which then can't be kept in the run."""
        return Path(os.path.realpath(self.run.path)).is_relative_to(os.path.realpath(path))

    def encoded(
        self,
        name: str,
        value: Any,
        kind: MetricType,
        encode: Callable[[Any], Encoded],
        iteration: Any = None,
        metadata: Mapping[str, Any] | None = None,
        time_ns: int | None = None,
        source: str | None = None,
    ) -> None:
        """Record a value as a file: an image, a figure, a sound. A path of a file that is there is kept as it is."""
        check_name(name)
        if isinstance(value, (str, os.PathLike)):
            self.file(name, value, kind, iteration, time_ns, source, metadata)
            return
        details = dict(metadata or {})

        def store() -> str:
            made = encode(value)
            details.update(made.details)
            return store_bytes(self.run, made.data, "media", name, made.suffix)

        self.made(name, kind, store, value, iteration, time_ns, source, details)

    def made(
        self,
        name: str,
        kind: MetricType,
        make: Callable[[], Any],
        value: Any,
        iteration: Any = None,
        time_ns: int | None = None,
        source: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Record what `make` gives; where it fails, what `value` was, in words."""
        check_name(name)
        if not self._keep_files:
            return
        try:
            kept = make()
        except Exception as error:  # noqa: BLE001 - the code of a foreign value or of an SDK may raise anything
            self._warn_once(name, f"can't be kept as {kind.value}: {error}")
            reason = {**(metadata or {}), "failed": kind.value, "error": as_text(error)}
            self.record(name, as_text(value)[:1000], MetricType.TEXT, iteration, time_ns, source, reason)
            return
        step, details = self._step(name, iteration, kind, metadata)
        self.journal.write_record(name, kept, kind, step=step, time_ns=time_ns, source=source, metadata=details)

    def _record_odd_value(
        self,
        name: str,
        value: Any,
        iteration: Any,
        time_ns: int | None,
        source: str | None,
        metadata: Mapping[str, Any] | None,
    ) -> None:
        """What was logged as a metric and is no number: a vector becomes a tensor, anything else its text."""
        if isinstance(value, str):
            self.record(name, value, MetricType.TEXT, iteration, time_ns, source, metadata)
        elif isinstance(value, (bytes, complex)) or not _is_array_like(value):
            self._warn_once(name, f"is no number but {type(value).__name__}; its text is recorded")
            self.record(name, as_text(value), MetricType.TEXT, iteration, time_ns, source, metadata)
        else:
            self._warn_once(name, "holds more than one number; it is recorded as a tensor. See log_histogram, too")
            self.encoded(name, value, MetricType.TENSOR, encode_tensor, iteration, metadata, time_ns, source)

    def _record_failure(
        self,
        name: str,
        error: Exception,
        iteration: Any,
        time_ns: int,
        source: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """What a device could not compute: a text that says why."""
        text = as_text(error)
        self._warn_once(name, f"could not be computed: {text:.500}")
        reason = {**(metadata or {}), "failed": MetricType.SCALAR.value, "error": text[:10_000]}
        self.record(name, f"could not be computed: {text:.1000}", MetricType.TEXT, iteration, time_ns, source, reason)

    def _step(
        self, name: str, iteration: Any, kind: MetricType, metadata: Mapping[str, Any] | None
    ) -> tuple[int | None, dict[str, Any]]:
        """The step, and the metadata with what had to be changed in it."""
        details: dict[str, Any] = json_like(metadata) if metadata else {}
        if iteration is None and kind not in _WITHOUT_STEP:
            iteration = self.iteration
        step, exact = as_step(iteration)
        if exact is not None:
            details["iteration"] = exact
            self._warn_once(name, f"has an iteration that is no integer of 64 bits: {exact[:40]}")
        return step, details

    def _warn_once(self, name: str, what: str) -> None:
        if name not in self._warned and len(self._warned) < _MAX_WARNINGS:
            self._warned.add(name)
            logger.warning("%.200r %s", name, what)


def check_name(name: Any) -> None:
    """Refuse what is no name.

    Raises:
        InvalidNameError: `name` is no string.
    """
    if not isinstance(name, str):
        raise InvalidNameError(f"a name must be a str, not {type(name).__name__}: {as_text(name):.200}")


def _identity(name: str, kind: MetricType, source: str | None) -> SeriesId:
    return name if kind is MetricType.SCALAR and source is None else (name, kind, source)


def _time_ns(timestamp_s: Any) -> int | None:
    """None where it is no number, or the year is not within 1677 to 2262."""
    scalar = as_scalar(timestamp_s)
    time_ns = scalar.value * 1e9 if scalar is not None else math.nan
    return round(time_ns) if abs(time_ns) < 2**63 else None


def _is_array_like(value: Any) -> bool:
    return isinstance(value, (list, tuple, _Shaped))


@runtime_checkable
class _Shaped(Protocol):
    shape: Any
