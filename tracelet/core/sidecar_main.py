"""The delivery process of a run: `python -m tracelet.core.sidecar_main`, started by `core.sidecar`.

Threads:
    main                 the order, the workers' start, the wait for the run's end, the end.
    tracelet-commands    reads the commands of the training process.
    tracelet-<backend>   one for each backend, as in the training process.

It follows the run directory, reports there, and outlives a training that is killed: then it delivers the last records,
tells the trackers so, and ends. It goes on for `linger_s` where a tracker is away at the end, and then leaves the rest
to `tracelet sync`. Guarantee: the training process is only ever written to, never waited for.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, Final, final

from tracelet.core.intake import Intake
from tracelet.core.orchestrator import DataFlowOrchestrator, RoutingRule
from tracelet.core.plugins import PluginManager
from tracelet.core.pruning import let_go
from tracelet.core.sidecar import DeliveryOrder
from tracelet.journal.directory import RunDirectory
from tracelet.journal.status import ProcessIdentity
from tracelet.journal.summary import write_summary
from tracelet.journal.watch import RunWatch
from tracelet.journal.writer import JournalWriter
from tracelet.utils.garbage import expect_many_records
from tracelet.utils.redaction import clean

logger = logging.getLogger("tracelet.sidecar")

_POLL_S: Final = 1.0  # How soon the end of a killed training is noticed.
_NICENESS: Final = 5  # The training comes first.


def main() -> None:
    """Deliver the run that the first line of the standard input names, until it has ended."""
    # Not `sys.stdin`, whose lock a thread that waits for a command would hold when the interpreter ends.
    with os.fdopen(0, "rb", buffering=0) as orders, os.fdopen(os.dup(1), "wb", buffering=0) as channel:
        os.dup2(2, 1)  # What an SDK prints goes to the log, and not among the messages.
        _give_way()
        expect_many_records()
        speaker = _Speaker(channel)
        handler = logging.StreamHandler()
        handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logging.basicConfig(level=logging.INFO, handlers=[handler])
        logging.getLogger("tracelet").addHandler(speaker)
        line = orders.readline()
        if line:  # Else the training process died before it could say anything.
            _deliver(DeliveryOrder.decode(line), orders, speaker)


def _deliver(order: DeliveryOrder, orders: IO[bytes], speaker: _Speaker) -> None:
    run = RunDirectory.open(Path(order.run))
    plugins = PluginManager(allow=order.allow, deny=order.deny)
    for name, config in order.backends.items():
        plugins.load(name).config = dict(config)
    journal = JournalWriter(run, role="attached")  # For the errors of the plug-ins; its files come with the first one.
    orchestrator = DataFlowOrchestrator(
        Intake(journal, run), run, plugins, steps=lambda backend: order.processors.get(backend, ())
    )
    orchestrator.on_alert(lambda alert: speaker.say({"alert": asdict(alert)}))
    for fields in order.rules:
        orchestrator.add_routing_rule(RoutingRule.from_fields(fields))
    orchestrator.start(orchestrator, collect_interval_s=1.0)

    commands = _Commands(orders, orchestrator, speaker)
    threading.Thread(target=commands.run, name="tracelet-commands", daemon=True).start()
    starter = ProcessIdentity.from_fields(order.starter)
    watch = RunWatch(run, starter)
    while watch.look() is None and not commands.stop_asked.wait(_POLL_S):
        pass
    workers = orchestrator.request_stop(
        order.linger_s, ending=lambda: RunWatch(run, starter).look(), attempts=float("inf")
    )
    for worker in workers:
        worker.join(order.linger_s + 60.0)
        speaker.say({"ended": worker.name, "gave_up": worker.gave_up})
    journal.close()
    write_summary(run.path)
    if order.keep_local != "all":  # When the program has ended: until then it may read its run, or reopen it.
        limit_s = time.monotonic() + order.linger_s
        while starter is not None and starter.is_alive(heartbeat_age_s=0.0) and time.monotonic() < limit_s:
            time.sleep(_POLL_S)
        let_go(run.path, order.keep_local, tuple(order.backends))


@final
class _Commands:
    """What the training process asks for."""

    def __init__(self, orders: IO[bytes], orchestrator: DataFlowOrchestrator, speaker: _Speaker) -> None:
        self.stop_asked = threading.Event()
        self._orders = orders
        self._orchestrator = orchestrator
        self._speaker = speaker

    def run(self) -> None:
        """Read commands until there is nobody left to give any."""
        for line in self._orders:
            try:
                self._obey(json.loads(line))
            except (ValueError, KeyError, TypeError):
                logger.exception("a command is not understood: %r", line[:200])

    def _obey(self, command: Mapping[str, Any]) -> None:
        if "flush" in command:
            self._flush(command["flush"])
        elif "rule" in command:
            self._orchestrator.add_routing_rule(RoutingRule.from_fields(command["rule"]))
        elif "stop" in command:
            self.stop_asked.set()

    def _flush(self, number: int) -> None:
        flushes = self._orchestrator.request_flush()

        def answer(_: Future[bool]) -> None:
            if all(future.done() for future in flushes):
                complete = all(future.result() for future in flushes)
                self._speaker.say({"flush": number, "complete": complete})

        for future in flushes:
            future.add_done_callback(answer)


@final
class _Formatter(logging.Formatter):
    """Keeps credentials out of the log, which is a file of the run: texts of SDKs' errors may hold some."""

    def format(self, record: logging.LogRecord) -> str:
        return clean(super().format(record))


def _give_way() -> None:
    """Let the training have the processor first."""
    os.nice(_NICENESS)
    try:  # With autogroups, which desktops have, the niceness of a process counts among those of its session alone.
        Path("/proc/self/autogroup").write_text(str(_NICENESS))
    except OSError as error:
        logger.debug("there are no autogroups: %s", error)


@final
class _Speaker(logging.Handler):
    """Tells the training process something; nothing happens where it is gone."""

    def __init__(self, channel: IO[bytes]) -> None:
        super().__init__(logging.WARNING)
        self._channel: IO[bytes] | None = channel

    def say(self, message: Mapping[str, Any]) -> None:
        """Send one message."""
        self.acquire()
        try:
            if self._channel is not None:
                self._channel.write(json.dumps(message).encode() + b"\n")
        except OSError:
            self._channel = None
        finally:
            self.release()

    def emit(self, record: logging.LogRecord) -> None:
        """Hand a warning on, to be said where the user sees it."""
        self.say({"log": [record.levelno, record.name, record.getMessage()]})


if __name__ == "__main__":
    main()
