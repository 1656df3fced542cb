"""What the tests of the journal share."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tracelet.core.records import MetricData
from tracelet.journal.directory import RunDirectory
from tracelet.journal.reader import JournalReader
from tracelet.journal.writer import JournalWriter

ROOT = Path(__file__).parents[2]


def new_run(path: Path, run_id: str = "run1") -> RunDirectory:
    return RunDirectory.at(path, "project", run_id, "name")


def new_writer(path: Path, **options: Any) -> JournalWriter:
    writer = JournalWriter(new_run(path), **options)
    writer.open()
    return writer


def log(writer: JournalWriter, name: str, step: int, value: float) -> None:
    """As an experiment does: in the segment where the series could be defined, as a line elsewhere."""
    series = writer.define(name)
    if series is not None:
        writer.append(series.key, step, value)
    else:
        from tracelet.core.records import MetricType

        writer.write_record(name, value, MetricType.SCALAR, step=step)


def records_of(run: RunDirectory | JournalReader) -> list[MetricData]:
    reader = run if isinstance(run, JournalReader) else JournalReader(run)
    return [entry.record for _, entry in reader if entry.record is not None]


def lines_of(run: RunDirectory, kind: str) -> list[Any]:
    return [entry.line for _, entry in JournalReader(run) if entry.line is not None and entry.line["kind"] == kind]


def wait_until(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """For what the keeper does on its own thread."""
    end_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end_s, "it did not come true"
        time.sleep(0.002)


@contextmanager
def file_size_limit(limit_bytes: int) -> Iterator[None]:
    """No file of this process may grow beyond the limit: EFBIG, in a write as in `posix_fallocate`."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
