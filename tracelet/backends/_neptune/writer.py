"""Writes fields by the client: places them, orders the points of a series, and writes a batch with few calls.

For one thread, of the backend or of its artifacts. The points of one series go in one operation of the client's queue.
"""

from __future__ import annotations

import dataclasses
import glob
import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from tracelet.backends._neptune.fields import Field, FieldKind, name_of
from tracelet.backends._neptune.paths import NeptunePaths
from tracelet.backends._neptune.records import fields_of
from tracelet.core.records import MetricData
from tracelet.errors import RejectedError
from tracelet.journal.directory import make_private_directory, write_atomically


def delivered_fields(metric: MetricData) -> Sequence[Field]:
    """What to write of a record.

    Raises:
        RejectedError: The file is gone.
    """
    try:
        return fields_of(metric).fields
    except OSError as error:
        raise RejectedError(f"the file of {metric.name!r} can't be read any more: {error}") from error


@dataclass(slots=True)
class _Points:
    """Of one series. Without steps the server counts."""

    values: list[Any] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)
    timestamps: list[float] = field(default_factory=list)


@final
class NeptuneWriter:
    """See the module docstring."""

    def __init__(
        self,
        run: Any,
        file_type: Any,
        place: Callable[[str, str], tuple[str, bool]],
        paths: NeptunePaths,
        directory: Path,
    ) -> None:
        """Make a writer.

        Args:
            run: The client's run.
            file_type: The client's class for files.
            place: One of the two ways to find a place: `NeptunePaths.place`, or its `reserve`.
            paths: Where the fields are.
            directory: For the files that are made of records; they stay until the server has them.
        """
        self._run = run
        self._file_type = file_type
        self._find_place = place
        self._paths = paths
        self._directory = directory

    def write(self, entries: Iterable[tuple[Sequence[Field], MetricData | None]]) -> None:
        """Put fields into the client's queue.

        Args:
            entries: The fields of a record, and the record; only series need it.

        Raises:
            OSError: The disk does not let us.
        """
        points: dict[str, _Points] = {}
        for fields, metric in entries:
            for one in fields:
                if metric is not None and one.kind.is_series:
                    self._append(one, metric, points)
                else:
                    self._set(one, self._place(one))
        for path, series in points.items():
            self._run[path].extend(series.values, steps=series.steps or None, timestamps=series.timestamps)

    def _place(self, one: Field) -> str:
        if one.path.startswith("sys/"):
            return one.path
        path, is_new = self._find_place(one.key, one.path)
        if is_new and one.owner and path != one.plain_path:
            note = name_of(one, path)
            self._set(note, self._place(note))
        return path

    def _append(self, one: Field, metric: MetricData, points: dict[str, _Points]) -> None:
        path = self._place(one)
        step = self._paths.advance(one.key, metric.iteration)
        if step is None:  # The server refuses it there.
            path = self._place(dataclasses.replace(one, tail=f"{one.tail}_late"))
            steps = dataclasses.replace(one, kind=FieldKind.FLOAT_SERIES, tail=f"{one.tail}_late_step")
            self._add_point(steps, self._place(steps), float(metric.iteration or 0), None, metric, points)
        self._add_point(one, path, one.value, step, metric, points)

    def _add_point(
        self, one: Field, path: str, value: Any, step: int | None, metric: MetricData, points: dict[str, _Points]
    ) -> None:
        time_s = time.time() if metric.timestamp is None else metric.timestamp
        if one.kind is FieldKind.FILE_SERIES:
            caption = (metric.metadata or {}).get("caption")
            self._run[path].append(self._file_type(value), step=step, timestamp=time_s, description=caption)
            return
        series = points.setdefault(path, _Points())
        series.values.append(_sendable(value))
        series.timestamps.append(time_s)
        if step is not None:
            series.steps.append(step)

    def _set(self, one: Field, path: str) -> None:
        target = self._run[path]
        match one.kind:
            case FieldKind.FILE:
                target.upload(one.value)
            case FieldKind.CONTENT:
                text, suffix = one.value
                file = self._directory / f"{hashlib.sha256(path.encode()).hexdigest()[:32]}{suffix}"
                make_private_directory(self._directory)
                write_atomically(file, _sendable(text))
                target.upload(str(file))
            case FieldKind.FILE_SET:
                target.upload_files(glob.escape(one.value))
            case FieldKind.STRING_SET:
                target.add([_sendable(value) for value in one.value])
            case _:
                target.assign(_sendable(one.value))


def _sendable(value: Any) -> Any:
    """A text without what UTF-8 can't hold: at a lone surrogate the server refuses the whole request."""
    return value.encode("utf-8", "backslashreplace").decode("utf-8") if isinstance(value, str) else value
