"""A run of Weights & Biases, in the process that is the SDK's alone: see `_wandb.process` for who calls it, and how.

All calls come on that process's main thread, in the order `WandbRun()`, (`take`…, `store`)…, `close`; those of
`uploads` on the other one. The guarantee: when `store` returns, what was taken is in the run's `.wandb` file, and so in
the kernel's hands.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, final

from tracelet.backends._wandb import mapping
from tracelet.backends._wandb.configuration import Configuration
from tracelet.backends._wandb.ending import end_run
from tracelet.backends._wandb.history import History
from tracelet.backends._wandb.init import open_run, place_of
from tracelet.backends._wandb.lineage import Lineage
from tracelet.backends._wandb.log import Sent
from tracelet.backends._wandb.mapping import AXIS_PREFIX, STEP_KEY, Form
from tracelet.backends._wandb.media import media
from tracelet.backends._wandb.rows import Rows
from tracelet.backends._wandb.stored import send_again
from tracelet.backends._wandb.uploads import Uploads
from tracelet.core.records import (
    DEFINE_PREFIX,
    DESCRIPTION_NAME,
    GIT_COMMIT_NAME,
    STATUS_NAME,
    TAG_PREFIX,
    USED_NAME,
    MetricData,
    MetricType,
)
from tracelet.delivery.retry import Verdict, judge
from tracelet.delivery.state import RemoteState
from tracelet.utils.imports import require

_NUMBERS: Final = frozenset({MetricType.SCALAR.value, MetricType.SYSTEM.value})
_MAX_ERROR_CHARS: Final = 10_000


@final
class WandbRun:
    """One run of the SDK's, from `wandb.init` to its end."""

    def __init__(self, facts: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        """Open the run, or go on with it.

        Args:
            facts: `run_name`, `run_uuid`, `run_project`, `state_dir`, and the name of the `program` or None.
            settings: The values of `WandbSettings`.

        Raises:
            PermanentError, OSError: As `open_run`.
        """
        self._wandb: Any = require("wandb", "The W&B backend")
        self._state = RemoteState(facts["state_dir"])
        self._settings = settings
        self._status: str | None = None  # The run's, where it was the last record.
        self._taken = 0  # Records since `store`.
        self._fault: Exception | None = None  # What is wrong with the record after these.
        self._rows = Rows(self._log, self._state["axes"] or {})
        self._run = open_run(self._wandb, facts, settings, self._state["tags"] or ())
        self._file = os.fspath(self._run.settings.sync_file)
        # Defined again it changes nothing, and it fails where wandb-core is gone.
        probe = functools.partial(self._run.define_metric, STEP_KEY, hidden=True)
        self._sent = Sent(self._file, probe)
        self.uploads = Uploads(self._wandb, self._run, self._sent, probe)
        self._history = History(self._run)
        self._config = Configuration(self._run)
        self._lineage = Lineage(self._wandb, self._run, settings, self._state)
        self._run.define_metric(STEP_KEY, hidden=True)
        self._run.define_metric("*", step_metric=STEP_KEY, step_sync=False)
        for key, axis in self._rows.axes.items():
            self._define(key, axis)
        self._run.summary.update({STATUS_NAME: "running"})
        unfinished = self._state["unfinished"] or []
        online = {} if self._run.offline else {"unfinished": [*unfinished, self._file], "path": self._run.path}
        self._state.update({"run_id": self._run.id, "files": [*(self._state["files"] or []), self._file], **online})
        self._resend(unfinished)

    def facts(self) -> dict[str, Any]:
        """What is known of the run, for `get_status`."""
        return {**place_of(self._run), "files": self._state["files"]}

    def take(self, records: Sequence[Sequence[Any]]) -> None:
        """Take records, up to the first one that W&B can't hold.

        Args:
            records: Of each the fields of a `MetricData`, the type as its value.

        Raises:
            OSError: wandb-core is gone.
        """
        for name, value, kind, step, time_s, *others in records if self._fault is None else ():
            try:
                if kind in _NUMBERS:
                    self._status = None  # As in `_take`: this is the short way for nearly all records.
                    self._add(name, value, step, time_s)
                else:
                    self._take(MetricData(name, value, MetricType(kind), step, time_s, *others))
            except Exception as error:
                if judge(error) is not Verdict.REJECT:
                    raise
                self._fault = error
                break
            self._taken += 1

    def store(self) -> tuple[int, Exception | None]:
        """Wait until all that was taken is stored: how many records since the last call, and the fault of the next one.

        Raises:
            OSError: wandb-core is gone, or can't write. None is known to have arrived.
        """
        self._rows.end()
        self._write()
        taken, fault = self._taken, self._fault
        self._taken, self._fault = 0, None
        return taken, fault

    def close(self, *, goes_on: bool = False) -> None:
        """End the run as its status says; without one, or where it goes on, bring out what there is and leave it open.

        Raises:
            TimeoutError: As `end_run`.
        """
        self._lineage.end()
        end_run(self._run, None if goes_on else self._status)
        if not self._run.offline:
            self._state.update({"unfinished": []})

    # -- records -------------------------------------------------------------------------------------------------------

    def _take(self, record: MetricData) -> None:
        self._status = None  # What comes after the status shows that the run went on.
        match mapping.form(record):
            case Form.MEDIA:
                self._add(record.name, media(self._wandb, record), record.iteration, record.timestamp)
            case Form.CONFIG:
                self._config.update({self._config.key(record.name): mapping.config_value(record.value)})
            case Form.ARTIFACT:
                self.uploads.log(record)
            case Form.FACT:
                self._take_fact(record)

    def _take_fact(self, record: MetricData) -> None:
        run, name, value = self._run, record.name, record.value
        if name == STATUS_NAME:
            self._status = value
            error = str((record.metadata or {}).get("error") or "")[-_MAX_ERROR_CHARS:]
            run.summary.update({STATUS_NAME: value, **({"tracelet/error": error} if error else {})})
        elif name == DESCRIPTION_NAME:
            run.notes = value
        elif name == GIT_COMMIT_NAME:
            self._config.update({name: value})
        elif name == USED_NAME:
            self._config.update({f"{name}/{mapping.series_key(str(value['name']))}": value})
            self._lineage.add(value)
        elif name.startswith(DEFINE_PREFIX):
            key, axis = self._config.key(name.removeprefix(DEFINE_PREFIX)), self._config.key(value["step"])
            self._rows.axes[key] = axis
            self._state.update({"axes": dict(self._rows.axes)})
            self._define(key, axis)
        elif not mapping.is_word(tag := name.removeprefix(TAG_PREFIX), value):
            self._config.update({mapping.TAG_CONFIG_PREFIX + self._config.key(tag): value})
        elif tag not in (run.tags or ()):
            run.tags = (*(run.tags or ()), tag)
            self._state.update({"tags": list(run.tags)})

    def _add(self, name: str, value: Any, step: int | None, time_s: float | None) -> None:
        self._rows.add(self._config.key(name), value, step, time.time() if time_s is None else time_s)

    def _log(self, row: dict[str, Any]) -> None:
        self._history.log(row)
        self._sent.add("history")

    def _define(self, key: str, axis: str) -> None:
        self._run.define_metric(AXIS_PREFIX + axis, hidden=True)
        self._run.define_metric(key, step_metric=AXIS_PREFIX + axis, step_sync=False)

    # -- what is stored ------------------------------------------------------------------------------------------------

    def _write(self) -> None:
        """Send what is pending, and wait until all is in the file."""
        self._sent.add("config", int(self._config.send()))
        self._history.send()
        self._sent.wait()

    def _resend(self, files: Sequence[str]) -> None:
        """Send again what a wandb-core which died had written to its files, and not brought to the service."""
        if not self._run.offline:
            self._config.update(send_again(files, self._run, self._log))
            self._write()
            self._state.update({"unfinished": [self._file]})
