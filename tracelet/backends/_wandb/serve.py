"""The process in which the SDK of Weights & Biases runs: `python -m tracelet.backends._wandb.serve`.

Answers the calls of `_wandb.process`, one line of JSON each, one after the other on the main thread; those about
artifacts come through a socket, whose descriptor is the argument, and are answered on a thread of their own. The end of
the input without `close` means that the caller is gone: what W&B has is brought out, and the run is not marked as
ended.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any, TextIO, final

from tracelet.backends._wandb.run import WandbRun
from tracelet.backends._wandb.stored import read_back
from tracelet.utils.garbage import expect_many_records


@final
class Server:
    """Holds the run, from `open` to `close`."""

    def __init__(self) -> None:
        self._run: WandbRun | None = None
        self._calls: Mapping[str, Callable[..., Any]] = {
            "open": self._open,
            "take": self._take,
            "store": self._store,
            "upload": self._upload,
            "read_back": read_back,
            "close": self._close,
        }

    def serve(self, requests: TextIO, answers: TextIO) -> None:
        """Answer calls until the input ends."""
        for line in requests:
            answers.write(self.answer(line) + "\n")
            answers.flush()

    def serve_artifacts(self, descriptor: int) -> None:
        """Answer calls of a socket, on this thread."""
        with socket.socket(fileno=descriptor) as ours:
            self.serve(ours.makefile("r", encoding="ascii"), ours.makefile("w", encoding="ascii"))

    def answer(self, line: str) -> str:
        """One call's answer. Whatever goes wrong becomes part of it."""
        try:
            request = json.loads(line)
            answer = {"result": self._calls[request["call"]](**request["with"])}
        except Exception as error:  # noqa: BLE001  the caller logs it
            answer = _fault(error)
        return json.dumps(answer)

    def end(self) -> None:
        """The caller is done, or gone: then the run goes on. wandb-core brings out what it has, and ends."""
        if self._run is not None:
            self._run.close(goes_on=True)
        if (wandb := sys.modules.get("wandb")) is not None:
            wandb.teardown()

    @property
    def _opened(self) -> WandbRun:
        assert self._run is not None
        return self._run

    def _open(self, facts: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
        self._run = WandbRun(facts, settings)
        return self._run.facts()

    def _take(self, records: list[list[Any]]) -> None:
        self._opened.take(records)

    def _store(self) -> dict[str, Any]:
        arrived, fault = self._opened.store()
        return {"arrived": arrived, "rejected": None if fault is None else f"{type(fault).__name__}: {fault}"}

    def _upload(self, record: list[Any]) -> dict[str, Any]:
        return self._opened.uploads.upload(record)

    def _close(self) -> None:
        run, self._run = self._opened, None
        run.close()


def _fault(error: Exception) -> dict[str, str]:
    return {"error": type(error).__name__, "text": str(error) or type(error).__name__}


def main() -> None:
    """Serve until the input ends."""
    # The pipes are taken away from whatever else would read or write there: the SDK, and its wandb-core.
    with open(os.dup(0), encoding="ascii") as requests, open(os.dup(1), "w", encoding="ascii") as answers:
        with open(os.devnull) as nothing:
            os.dup2(nothing.fileno(), 0)
        os.dup2(2, 1)
        expect_many_records()
        server = Server()
        threading.Thread(target=server.serve_artifacts, args=(int(sys.argv[1]),), daemon=True).start()
        server.serve(requests, answers)
        server.end()
    sys.stdout.flush()
    os._exit(0)  # The interpreter's own way takes up to 0.4 s, and the end of the user's run waits for it.


if __name__ == "__main__":
    main()
