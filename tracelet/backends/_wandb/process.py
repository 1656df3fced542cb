"""Calls into the process in which the SDK of Weights & Biases runs.

Called on the backend's thread; the channel `artifacts` on that of its artifacts, so that neither waits for the other.
Why a process: in the user's own the SDK would share its settings, its key, its exit hooks,
`os.environ["WANDB_SERVICE"]` and the one wandb-core with the user's own runs, and its work on each row the
interpreter's lock with the training. This one can die and be started again without anybody noticing.

It has a session of its own, so that Ctrl-C or the death of a training's process group leaves it the time to bring out
what it has.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from typing import IO, Any, Final, final

from tracelet.errors import MissingDependencyError, PermanentError, RetryableError, TraceletError

_ERRORS: Final[Mapping[str, type[TraceletError]]] = {
    error.__name__: error for error in (MissingDependencyError, PermanentError)
}

_END_TIMEOUT_S: Final = 10.0


@final
class Channel:
    """Calls of one thread, and their results."""

    def __init__(self, requests: IO[str], answers: IO[str]) -> None:
        """Take the two ends that are ours."""
        self._requests = requests
        self._answers = answers

    def call(self, name: str, **arguments: Any) -> Any:
        """Call one of `_wandb.serve`'s, and wait for its result.

        Raises:
            PermanentError, MissingDependencyError: As it raised them.
            RetryableError: Anything else, or the process is gone. It is of no more use.
        """
        self.begin(name, **arguments)
        return self.result()

    def begin(self, name: str, **arguments: Any) -> None:
        """Call one of `_wandb.serve`'s. Its `result` has to be asked for; those of several calls come in their order.

        Raises:
            RetryableError: The process is gone.
        """
        try:
            self._requests.write(json.dumps({"call": name, "with": arguments}) + "\n")
            self._requests.flush()
        except (OSError, ValueError) as error:  # Or it has been closed.
            raise RetryableError(f"the process of W&B's SDK is gone: {error}") from error

    def result(self) -> Any:
        """Wait for what the next call gives; raises as `call`."""
        try:
            line = self._answers.readline()
        except (OSError, ValueError) as error:  # As above.
            raise RetryableError(f"the process of W&B's SDK is gone: {error}") from error
        if not line:
            raise RetryableError("the process of W&B's SDK has ended")
        answer = json.loads(line)
        if "error" in answer:
            kind = _ERRORS.get(answer["error"])
            raise RetryableError(f"{answer['error']}: {answer['text']}") if kind is None else kind(answer["text"])
        return answer["result"]

    def close(self) -> None:
        """Close our ends."""
        for end in (self._requests, self._answers):
            with contextlib.suppress(OSError):  # What it was sent last did not arrive: it is gone.
                end.close()


@final
class WandbProcess:
    """The process, from its start to its end."""

    def __init__(self, state_dir: str) -> None:
        """Start it.

        Args:
            state_dir: Where the SDK puts the copies of tables, which wait for the upload; else in the user's home.

        Raises:
            OSError: The system has no room for a process.
        """
        # The user's own variables go before. Without them no crash of the SDK is reported to its makers.
        defaults = {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false", "WANDB_DATA_DIR": state_dir}
        # A wandb-core of the user's own serves his runs: ours would end with those, and the settings would be mixed up.
        surroundings = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
        ours, theirs = socket.socketpair()
        with ours, theirs:
            self._process = subprocess.Popen(
                # -P: nothing in the working directory, such as the `wandb/` there, may stand in for a module.
                [sys.executable, "-P", "-m", "tracelet.backends._wandb.serve", str(theirs.fileno())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**defaults, **surroundings, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
                encoding="ascii",
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
            self.artifacts = Channel(ours.makefile("w", encoding="ascii"), ours.makefile("r", encoding="ascii"))
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self.main = Channel(self._process.stdin, self._process.stdout)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def end(self) -> None:
        """Let it end by itself, now that it has been told to `close` or has nothing open."""
        with contextlib.suppress(OSError):  # What it was sent last did not arrive: it is gone.
            try:
                self._process.communicate(timeout=_END_TIMEOUT_S)
            except subprocess.TimeoutExpired:  # Its wandb-core does not end, which has been seen.
                self._process.kill()
                self._process.communicate()
        self.artifacts.close()

    def kill(self) -> None:
        """End it at once. Its wandb-core sees that, and ends too."""
        self._process.kill()
        self.end()
