"""The delivery process of a run, as its training process sees it.

Threads:
    the experiment's    `start`, `request_stop`, `flush`, and what `SidecarDelivery` offers.
    tracelet-sidecar    `_run`: reads what the process says, starts another one should it die, and reaps it.

The process (`core.sidecar_main`) gets a `DeliveryOrder` as the first line of its standard input, so that no credential
is in an argument, the environment or a file; commands follow, a JSON object a line each way. All else it reads from the
run directory. Guarantee: nothing here waits for it but `join`, and it needs the training process for nothing: it sees
by the files that the run has ended or was killed.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Self, final

from tracelet.core.records import MetricData
from tracelet.delivery.report import DeliveryStatus
from tracelet.delivery.stats import WorkerStats
from tracelet.journal.directory import RunDirectory, make_private_directory
from tracelet.journal.status import ProcessIdentity

logger = logging.getLogger(__name__)

LOG_FILE: Final = "sidecar.log"
_RESTARTS: Final = 5
_FIRST_PAUSE_S: Final = 1.0


@final
@dataclass(frozen=True, slots=True)
class DeliveryOrder:
    """What the delivery process is told.

    Attributes:
        run: The run directory.
        backends: The configuration of each backend, by name; with credentials.
        processors: Name and configuration of each processor in front of a backend, by the backend's name.
        rules: The routing rules, as `RoutingRule.fields` gives them.
        allow: As the setting `plugins_allow`.
        deny: As the setting `plugins_deny`.
        linger_s: How long to go on when the run has ended, in seconds.
        keep_local: As the setting `keep_local`.
        starter: The training process, as `ProcessIdentity.fields` gives it.
    """

    run: str
    backends: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    processors: Mapping[str, Sequence[tuple[str, Mapping[str, Any]]]] = field(default_factory=dict)
    rules: Sequence[Mapping[str, Any]] = ()
    allow: Sequence[str] | None = None
    deny: Sequence[str] = ()
    linger_s: float = 0.0
    keep_local: str = "all"
    starter: Mapping[str, Any] = field(default_factory=lambda: ProcessIdentity.own().fields())

    def encode(self) -> bytes:
        """As a line.

        Raises:
            TypeError: A backend's configuration holds something that is no JSON.
        """
        return json.dumps(asdict(self), default=os.fspath).encode() + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> Self:
        """Read it back."""
        return cls(**json.loads(line))


@final
class Sidecar:
    """See the module docstring."""

    def __init__(self, run: RunDirectory, order: DeliveryOrder, on_alert: Callable[[Mapping[str, Any]], None]) -> None:
        """Prepare it; nothing is started yet.

        Args:
            run: What is delivered.
            order: What it is told.
            on_alert: Called on the sidecar's thread with the fields of each `Alert`.

        Raises:
            TypeError: As `DeliveryOrder.encode`.
        """
        self._run_directory = run
        self._order = order.encode()
        self._linger_s = order.linger_s
        self._on_alert = on_alert
        self.deliveries = tuple(SidecarDelivery(self, run, name) for name in order.backends)
        """How the delivery to each backend stands."""
        self._process: subprocess.Popen[bytes] | None = None
        self._flushes: dict[int, Future[bool]] = {}
        self._lock = threading.Lock()  # For the pipe and `_process`.
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="tracelet-sidecar", daemon=True)

    @property
    def pid(self) -> int | None:
        """The process; None before it has been started."""
        return None if self._process is None else self._process.pid

    @property
    def linger_s(self) -> float:
        """How long it goes on when the run has ended, in seconds."""
        return self._linger_s

    # -- the experiment's thread ---------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the process, and do not wait for it."""
        self._spawn()
        self._thread.start()

    def request_stop(self, end: MetricData | None) -> None:
        """The run has ended: have the rest delivered."""
        self._stopping = True
        for delivery in self.deliveries:
            delivery.end = end
        self._say({"stop": True})

    def flush(self) -> Future[bool]:
        """Have the backends get all that is in the journal now; the result says whether they have, once it is known."""
        done: Future[bool] = Future()
        with self._lock:
            number = len(self._flushes)
            self._flushes[number] = done
        if not self._thread.is_alive() or not self._say({"flush": number}):
            self._answer(number, False)
        return done

    def add_rule(self, rule: Mapping[str, Any]) -> None:
        """A routing rule that was added after the start."""
        self._say({"rule": rule})

    def join(self, timeout_s: float) -> bool:
        """Wait for the end of the process; whether it has come."""
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    # -- inside --------------------------------------------------------------------------------------------------------

    def _spawn(self) -> None:
        folder = make_private_directory(self._run_directory.path / "delivery")
        log = os.open(folder / LOG_FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        # `-P` keeps a folder of the working directory, such as the `wandb/` that W&B makes, from passing for a package.
        command = [sys.executable, "-P", "-m", "tracelet.core.sidecar_main"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment,
                start_new_session=True,  # Ctrl-C and a closed terminal are for the training alone.
            )  # fmt: skip
        finally:
            os.close(log)
        with self._lock:
            self._process = process
        self._write(self._order)
        if self._stopping:
            self._say({"stop": True})

    def _say(self, command: Mapping[str, Any]) -> bool:
        return self._write(json.dumps(command).encode() + b"\n")

    def _write(self, line: bytes) -> bool:
        with self._lock:
            pipe = self._process.stdin if self._process is not None else None
            try:
                if pipe is None:
                    return False
                pipe.write(line)
                pipe.flush()
            except (OSError, ValueError) as error:  # It has died, and the pipe may be closed: `_run` notices.
                logger.debug("the delivery process takes no command: %s", error)
                return False
        return True

    # -- the sidecar's thread ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        pause_s = _FIRST_PAUSE_S
        for restart in range(_RESTARTS + 1):
            code = self._listen()
            for number in list(self._flushes):
                self._answer(number, False)
            if code == 0 or self._stopping:
                break
            if restart == _RESTARTS:
                logger.error(
                    "The delivery process of %s ended %d times; it is not started again. The journal keeps every "
                    "record: see %s, then tracelet sync", self._run_directory.path, restart + 1, LOG_FILE,
                )  # fmt: skip
                break
            logger.warning("the delivery process ended with exit code %d; it is started again", code)
            time.sleep(pause_s)
            pause_s *= 2
            try:
                self._spawn()
            except OSError:
                logger.exception("the delivery process can't be started")
                break
        for delivery in self.deliveries:
            delivery.ended.set()

    def _listen(self) -> int:
        """Take what the process says until it ends; gives its exit code."""
        process = self._process
        assert process is not None
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                try:
                    self._take(json.loads(line))
                except (ValueError, KeyError, TypeError):
                    logger.debug("the delivery process said what is no message: %r", line[:200])
        code = process.wait()
        with self._lock:
            if process.stdin is not None:
                try:
                    process.stdin.close()
                except OSError as error:  # What was still to be written has no reader any more.
                    logger.debug("the pipe to the delivery process broke: %s", error)
        return code

    def _take(self, message: Mapping[str, Any]) -> None:
        if "log" in message:
            level, name, text = message["log"]
            logging.getLogger(name).log(level, "%s", text)
        elif "flush" in message:
            self._answer(message["flush"], message["complete"])
        elif "alert" in message:
            self._on_alert(message["alert"])
        elif "ended" in message:
            for delivery in self.deliveries:
                if delivery.name == message["ended"]:
                    delivery.gave_up = message["gave_up"]
                    delivery.ended.set()

    def _answer(self, number: int, complete: bool) -> None:
        with self._lock:
            done = self._flushes.get(number)
        if done is not None and not done.done():
            done.set_result(complete)


@final
class SidecarDelivery:
    """The delivery to one backend, as a `DeliveryWorker` in this process would show it."""

    def __init__(self, sidecar: Sidecar, run: RunDirectory, name: str) -> None:
        self.name = name
        self.end: MetricData | None = None
        self.ended = threading.Event()
        self.gave_up = False
        self._sidecar = sidecar
        self._run = run

    @property
    def goes_on(self) -> str | None:
        """Who goes on with it when nobody waits any more."""
        if self.ended.is_set():
            return None
        return f"the delivery process {self._sidecar.pid}, for up to {self._sidecar.linger_s:.0f} s"

    def join(self, timeout_s: float) -> bool:
        """Wait for the end; whether it has come."""
        return self.ended.wait(max(0.0, timeout_s))

    def waiting(self) -> int:
        """Records in the journal that the backend has not got."""
        return self._status().waiting

    def get_stats(self) -> WorkerStats:
        """How it stands."""
        status = self._status()
        report = status.report
        return WorkerStats(
            state=report.state,
            delivered=status.delivered,
            rejected=status.rejected,
            waiting=status.waiting,
            lag_s=status.lag_s,
            errors=report.errors,
            last_error=report.last_error,
            url=report.url,
        )

    def _status(self) -> DeliveryStatus:
        return DeliveryStatus.of(self._run, self.name, self.end)
