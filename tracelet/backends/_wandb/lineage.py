"""Which artifacts a run used, in W&B's own form. In the SDK's process: called on its main thread, asks on another.

The service has to be asked for the artifact, and may be away, while rows only go to a file: so nobody waits for the
answer but the end of the run, and what has none by then is asked again at the run's next start. Offline the SDK refuses
(`Run.use_artifact`: "Cannot use artifact when in offline mode"); then the configuration alone tells of the use.

Guarantee: a use is shown of the very content that was used, or not at all.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Mapping
from typing import Any, Final, final

from tracelet.backends._wandb import mapping
from tracelet.delivery.state import RemoteState

_STATE: Final = "uses"


@final
class Lineage:
    """The uses of one run."""

    def __init__(self, wandb: Any, run: Any, settings: Mapping[str, Any], state: RemoteState) -> None:
        """Ask again for what had no answer."""
        self._wandb = wandb
        self._run = run
        self._settings = settings
        self._state = state
        self._threads = concurrent.futures.ThreadPoolExecutor(max_workers=1)
        self._asked: dict[concurrent.futures.Future[None], Mapping[str, Any]] = {}
        for facts in () if run.offline else state[_STATE] or ():
            self._ask(facts)

    def add(self, facts: Mapping[str, Any]) -> None:
        """Tell W&B that the run uses an artifact, unless the run itself has made it, or its content is not known."""
        own = mapping.remote_id(str(facts["run_uuid"])) == self._run.id
        if not (self._run.offline or own or facts["digest"] is None):
            self._ask(facts)
            self._keep()

    def end(self) -> None:
        """Wait for the answers, as long as an attempt to reach the service may take."""
        if self._asked:
            concurrent.futures.wait(self._asked, timeout=self._settings["timeout_s"])
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._keep()

    def _ask(self, facts: Mapping[str, Any]) -> None:
        self._asked[self._threads.submit(self._use, facts)] = facts

    def _use(self, facts: Mapping[str, Any]) -> None:
        run, settings = self._run, self._settings
        address = {} if settings["base_url"] is None else {"base_url": settings["base_url"]}
        api = self._wandb.Api(address, api_key=settings["api_key"])
        name = f"{mapping.artifact_name(facts['name'])}:tracelet-{facts['version']}"
        found = api.artifact(f"{run.entity}/{run.project}/{name}")
        if found.metadata.get("tracelet/digest") != facts["digest"]:  # Another run's, of the same name.
            raise LookupError(f"{name} is not what was used")
        run.use_artifact(found)

    def _keep(self) -> None:
        """Remember what has no answer, or a bad one: the artifact may reach the service later."""
        done = {future for future in self._asked if future.done() and not future.cancelled() and not future.exception()}
        self._asked = {future: facts for future, facts in self._asked.items() if future not in done}
        self._state.update({_STATE: list(self._asked.values())})
