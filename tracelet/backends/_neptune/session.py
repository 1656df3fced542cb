"""One opening of a run by the Neptune client, and what ties the openings of a run together.

Called on the backend's thread only. `async`: the server knows the run by its uuid, and by its own id from the first
answer on. `offline`: the client begins a folder, and an id, each time; at the end of an opening, or at the next
beginning after a kill, what is new goes to the end of the first folder.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, Final, final

from tracelet.backends._base import RunFacts
from tracelet.backends._neptune.client import folder_of, fork_guard, open_run, quiet, require_answer
from tracelet.backends._neptune.queue import append_queue, is_acknowledged
from tracelet.backends._neptune.settings import NeptuneSettings
from tracelet.delivery.state import RemoteState
from tracelet.errors import RetryableError

_POLL_S: Final = 0.05
_FLUSH_PERIOD_S: Final = 0.5  # How often the client looks for something to send; 5 by default.


@final
class NeptuneSession:
    """See the module docstring.

    Attributes:
        run: The client's object.
        folder: Where its queue is; offline, that of the first opening.
        remote_id: What Neptune calls the run: `ABC-12`, or offline a uuid.
        url: Where a browser finds it; None offline.
    """

    def __init__(self, settings: NeptuneSettings, facts: RunFacts) -> None:
        """Open the run: a new one, or the one of the last time.

        Raises:
            MissingDependencyError, PermanentError, RetryableError, OSError: As `open_run`.
        """
        self._settings = settings
        self._state = RemoteState(facts.state_dir)
        self.url: str | None = None
        if settings.mode == "offline":
            self._open_offline(facts)
        else:
            self._open_async(facts)

    def _open_offline(self, facts: RunFacts) -> None:
        self._join_folders()  # The last process may have been killed.
        with fork_guard():  # The first operations are in the buffer.
            self.run = self._open(facts, mode="offline", custom_run_id=facts.run_uuid)
            self.run.wait(disk_only=True)
        newest = folder_of(self.run)
        first = self._first_folder()
        self._state.update({"newest": str(newest)} if first else {"folder": str(newest), "newest": None})
        self.folder = first or newest
        self.remote_id = self.folder.name.split("__")[1]

    def _open_async(self, facts: RunFacts) -> None:
        settings = self._settings
        require_answer(settings.token, settings.connect_timeout_s)
        remote_id = self._state["remote_id"]
        self.run = self._open(
            facts,
            mode="async",
            project=settings.project or os.environ.get("NEPTUNE_PROJECT") or f"workspace/{facts.run_project}",
            api_token=settings.token,
            flush_period=_FLUSH_PERIOD_S,
            **({"with_id": remote_id} if remote_id else {"custom_run_id": facts.run_uuid}),
        )
        self.folder = folder_of(self.run)
        self.url = str(self.run.get_url())
        self.remote_id = self.url.rstrip("/").rpartition("/")[2]
        self._state.update({"remote_id": self.remote_id})

    def _open(self, facts: RunFacts, **arguments: Any) -> Any:
        if "with_id" not in arguments:  # Which keeps what is there.
            # None would be: the script that runs. And the client sets an empty description where it is given none.
            arguments |= {"source_files": [], "description": self._state["description"] or ""}
        return open_run(self._settings.client, name=facts.run_name, **arguments)

    def keep_description(self, description: str) -> None:
        """Give it to the next opening as well: the client would overwrite it with nothing.

        Raises:
            OSError: The disk does not take it.
        """
        self._state.update({"description": description})

    def wait(self) -> None:
        """Wait until the server, if there is one, has acknowledged what is in the files of the queue.

        Raises:
            RetryableError: It does not do so in time.
        """
        if self._settings.mode == "offline":
            return
        deadline_s = time.monotonic() + self._settings.answer_timeout_s
        while not is_acknowledged(self.folder):
            if time.monotonic() > deadline_s:
                raise RetryableError(f"the Neptune server has not answered in {self._settings.answer_timeout_s:g} s")
            time.sleep(_POLL_S)

    def close(self) -> None:
        """End the client's threads. What the server has not got by then stays in the client's folder.

        Raises:
            OSError: The folders can't be joined; the next opening does it.
        """
        with quiet(self._settings.package):
            self.run.stop(seconds=self._settings.connect_timeout_s)
        if self._settings.mode == "offline":
            self._join_folders()

    def _first_folder(self) -> Path | None:
        """None too where `neptune sync` has taken it away: then the run begins anew on the server."""
        folder = self._state["folder"]
        return Path(folder) if folder and Path(folder).is_dir() else None

    def _join_folders(self) -> None:
        first, newest = self._first_folder(), self._state["newest"]
        if newest and Path(newest).is_dir():
            if first is not None:
                append_queue(Path(newest), first)
            else:
                self._state.update({"folder": newest})
        self._state.update({"newest": None})
