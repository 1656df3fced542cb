"""Brings a run's artifacts to a server beside all else. On the thread of the backend's artifacts, but for `close`.

The client has one queue and one thread for each opening of a run, and sends the files of a batch before its values: a
large one would hold back every metric. So this opens the run once more, when the first artifact comes.

Guarantee: when `store` returns, the server has acknowledged the artifact.
"""

from __future__ import annotations

import threading
from typing import Any, final

from tracelet.backends._base import RunFacts
from tracelet.backends._neptune.client import FEATURE, fork_guard
from tracelet.backends._neptune.paths import NeptunePaths
from tracelet.backends._neptune.session import NeptuneSession
from tracelet.backends._neptune.settings import NeptuneSettings
from tracelet.backends._neptune.writer import NeptuneWriter, delivered_fields
from tracelet.core.records import MetricData
from tracelet.errors import RetryableError
from tracelet.utils.imports import require


@final
class NeptuneLane:
    """See the module docstring."""

    def __init__(self, settings: NeptuneSettings, facts: RunFacts, paths: NeptunePaths) -> None:
        """Nothing is opened yet."""
        self._settings = settings
        self._facts = facts
        self._paths = paths
        self._lock = threading.Lock()  # Of the next two.
        self._session: NeptuneSession | None = None
        self._is_closed = False
        self._unanswered: MetricData | None = None  # In the client's queue; not acknowledged in time.

    def store(self, record: MetricData) -> None:
        """Store one artifact.

        Raises:
            RejectedError: The file is gone.
            RetryableError, OSError: The server is away, or takes longer than it may; the artifact then comes again.
        """
        session = self._opened()
        if record != self._unanswered:
            fields = delivered_fields(record)
            file_type: Any = require(f"{self._settings.client}.types", FEATURE).File
            directory = self._facts.state_dir / "files"
            writer = NeptuneWriter(session.run, file_type, self._paths.reserve, self._paths, directory)
            with fork_guard():
                writer.write([(fields, record)])
                session.run.wait(disk_only=True)
        self._unanswered = record
        session.wait()
        self._unanswered = None

    def close(self) -> None:
        """Let go, from the backend's thread. What is on its way then is sent again by a later delivery."""
        with self._lock:
            self._is_closed = True
            session, self._session = self._session, None
        if session is not None:
            session.close()

    def _opened(self) -> NeptuneSession:
        with self._lock:
            if self._is_closed:
                raise RetryableError("the delivery to Neptune was stopped")
            if self._session is None:
                self._session = NeptuneSession(self._settings, self._facts)
            return self._session
