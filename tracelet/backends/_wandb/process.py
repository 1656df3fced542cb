"""Calls into the process in which the SDK of Weights & Biases runs.

Called on the backend's thread. Why a process: in the user's own the SDK would share its settings, its key, its exit
hooks, `os.environ["WANDB_SERVICE"]` and the one wandb-core with the user's own runs, and its work on each row the
interpreter's lock with the training. This one can die and be started again without anybody noticing.

It has a session of its own, so that Ctrl-C or the death of a training's process group leaves it the time to bring out
what it has.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, Final, final

from tracelet.errors import MissingDependencyError, PermanentError, RetryableError, TraceletError

_ERRORS: Final[Mapping[str, type[TraceletError]]] = {
    error.__name__: error for error in (MissingDependencyError, PermanentError)
}

_END_TIMEOUT_S: Final = 10.0


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
        self._process = subprocess.Popen(
            # -P: nothing in the working directory, such as the `wandb/` there, may stand in for a module.
            [sys.executable, "-P", "-m", "tracelet.backends._wandb.serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**defaults, **surroundings, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            encoding="ascii",
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

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
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"call": name, "with": arguments}) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise RetryableError(f"the process of W&B's SDK is gone: {error}") from error

    def result(self) -> Any:
        """Wait for what the next call gives; raises as `call`."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RetryableError(f"the process of W&B's SDK has ended with the code {self._process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            kind = _ERRORS.get(answer["error"])
            raise RetryableError(f"{answer['error']}: {answer['text']}") if kind is None else kind(answer["text"])
        return answer["result"]

    def end(self) -> None:
        """Let it end by itself, now that it has been told to `close` or has nothing open."""
        with contextlib.suppress(OSError):  # What it was sent last did not arrive: it is gone.
            try:
                self._process.communicate(timeout=_END_TIMEOUT_S)
            except subprocess.TimeoutExpired:  # Its wandb-core does not end, which has been seen.
                self._process.kill()
                self._process.communicate()

    def kill(self) -> None:
        """End it at once. Its wandb-core sees that, and ends too."""
        self._process.kill()
        self.end()
