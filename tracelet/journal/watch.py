"""Tells whether a run has ended, for those who follow it for days: a look costs the lines that came since the last one.

Called on one thread. Nothing is written, and the run need not know.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from tracelet.core.records import STATUS_NAME, MetricData, MetricType, is_status
from tracelet.journal.directory import RunDirectory, own_files
from tracelet.journal.format import log_name, writer_of_log
from tracelet.journal.reader import WriterReader, first_line
from tracelet.journal.status import ProcessIdentity, RunStatus, tell_status
from tracelet.journal.summary import SUMMARY_FILE

logger = logging.getLogger(__name__)


@final
@dataclass(slots=True)
class _Main:
    """The writer that tells the run's status: that of the newest attempt."""

    reader: WriterReader
    facts: Mapping[str, Any]
    told: MetricData | None = None
    closed: bool = False


@final
class RunWatch:
    """See the module docstring."""

    def __init__(self, run: RunDirectory, starter: ProcessIdentity | None = None) -> None:
        """Look at a run for the first time.

        Args:
            run: The run.
            starter: The process that started it, to go by where a full disk has not let it write that down yet.
        """
        self._run = run
        self._starter = starter
        self._known: set[str] = set()
        self._main: _Main | None = None

    def look(self) -> MetricData | None:
        """The end of the run, as the record that backends get of it; None while it runs.

        A run that was killed never wrote one: it is made here, with the time at which the run was last heard of.
        """
        try:
            self._find_main()
            if self._main is None:
                is_running = self._starter is not None and self._starter.is_alive(heartbeat_age_s=0.0)
                return None if is_running else self._killed()
            return self._end_of(self._main)
        except OSError as error:
            logger.debug("the run can't be looked at now: %s", error)
            return None

    def _find_main(self) -> None:
        new = {writer for name in own_files(self._run.path) if (writer := writer_of_log(name))} - self._known
        for writer in sorted(new):
            facts = first_line(self._run.path / log_name(writer))
            if facts is None:  # Being made at this moment: looked at again.
                continue
            self._known.add(writer)
            if facts.get("role") == "main" and (self._main is None or _born(facts) >= _born(self._main.facts)):
                self._main = _Main(WriterReader(self._run.path, writer), facts)

    def _end_of(self, main: _Main) -> MetricData | None:
        for fields, record in main.reader.lines():
            main.closed |= fields.get("kind") == "close"
            if record is not None and is_status(record):
                main.told = record
        if main.told is not None:
            return main.told
        log = self._run.path / log_name(main.reader.writer)
        status = tell_status(None, main.facts, log, closed=main.closed)
        return None if status is RunStatus.RUNNING else self._killed()

    def _killed(self) -> MetricData:
        files = (self._run.path / name for name in own_files(self._run.path) if name != SUMMARY_FILE)
        last_heard_s = max((os.stat(file).st_mtime for file in files), default=None)
        return MetricData(STATUS_NAME, RunStatus.KILLED.value, MetricType.CUSTOM, None, last_heard_s)


def _born(facts: Mapping[str, Any]) -> int:
    born = facts.get("time_ns")
    return born if isinstance(born, int) else 0
