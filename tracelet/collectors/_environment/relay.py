"""The process that records what a training prints: `python -m tracelet.collectors._environment.relay`.

Started by `console.ConsoleCapture`, which says on standard input what to do (`RelayOrder`, a line of JSON) and, by
closing it, that the run has ended. It passes on what the training prints to where that went before, and records a copy
in the run, as a writer of its own. When all is recorded it says `done` on standard output.

Guarantees: what has come is passed on before it is recorded, and for as long as anybody writes (a worker of the
training may outlive it). Of a training that is killed, all that it has printed reaches the terminal and the run.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import select
import signal
import termios
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self, final

from tracelet.collectors._environment.transcript import Transcript
from tracelet.core.records import MetricType
from tracelet.journal.directory import RunDirectory
from tracelet.journal.status import ProcessIdentity
from tracelet.journal.writer import JournalWriter
from tracelet.utils.redaction import Redactor

DONE: Final = b"done\n"
SOURCE: Final = "environment_collector"

_POLL_S: Final = 0.5
_FLUSH_S: Final = 10.0
_READ_BYTES: Final = 1 << 16
_MAX_LEFT: Final = 1000  # Pieces: a worker that outlives the run may print without end.
_MAX_FOLLOWED_BYTES: Final = 1 << 22  # At once.
_IGNORED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP, signal.SIGPIPE)


@final
@dataclass(frozen=True, slots=True)
class Channel:
    """One place where the training prints to.

    Attributes:
        name: `stdout`, `stderr`, or `output` where both go to the same place.
        source: A file descriptor to read from: a pipe, the master of a pseudo-terminal, or a file that is followed.
        target: Where to pass on what was read; None where a file is followed.
        offset: Where to begin in a file.
    """

    name: str
    source: int
    target: int | None
    offset: int = 0


@final
@dataclass(frozen=True, slots=True)
class RelayOrder:
    """What the relay is told.

    Attributes:
        run: The run directory.
        channels: What to record.
        starter: The training process, as `ProcessIdentity.fields` gives it.
        max_chars: Of all texts of a channel together.
        redaction: What `Redactor` is made of.
    """

    run: str
    channels: Sequence[Channel]
    starter: Mapping[str, Any]
    max_chars: int
    redaction: Mapping[str, Sequence[str]]

    def encode(self) -> bytes:
        """As a line."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> Self:
        """Read it back."""
        fields = json.loads(line)
        return cls(**{**fields, "channels": [Channel(**channel) for channel in fields["channels"]]})


def main() -> None:
    """Take the order, leave the training's process tree, and relay."""
    with os.fdopen(os.dup(0), "rb", buffering=0) as orders:
        line = orders.readline()
    if not line or os.fork():  # As an orphan it is no child that the training would have to wait for.
        os._exit(0)
    os.chdir("/")  # So that it holds no file system that the user wants to unmount.
    for number in _IGNORED:  # Ctrl-C and a closed terminal are for the training; this ends when nobody writes.
        signal.signal(number, signal.SIG_IGN)
    _Relay(RelayOrder.decode(line)).run()


@final
class _Relay:
    def __init__(self, order: RelayOrder) -> None:
        self._redactor = Redactor(**order.redaction)
        run = RunDirectory.open(Path(order.run))
        self._journal = JournalWriter(run, role="attached", redactor=self._redactor)
        self._starter = ProcessIdentity.from_fields(order.starter)
        self._relayed = {channel.source: channel for channel in order.channels if channel.target is not None}
        self._followed = {
            c.source: (os.open(f"/proc/self/fd/{c.source}", os.O_RDONLY), c) for c in order.channels if c.target is None
        }
        self._offsets = {channel.source: channel.offset for channel in order.channels}
        self._transcripts = {c.source: self._transcript(c.name, order.max_chars) for c in order.channels}
        self._is_recording = True
        self._flushed_s = time.monotonic()
        self._poll = select.poll()
        for descriptor in (0, *self._relayed):
            self._poll.register(descriptor, select.POLLIN)

    def run(self) -> None:
        """Until nobody can write any more."""
        while self._relayed or self._is_recording:
            has_ended = self._pass_on(_POLL_S)
            if not self._is_recording:
                continue
            self._follow()
            if has_ended or not self._is_starter_alive():
                for _ in range(_MAX_LEFT):  # What is in the pipes still belongs to the run.
                    if self._pass_on(0.0) is not None:
                        break
                self._end_recording()
            elif time.monotonic() - self._flushed_s >= _FLUSH_S:
                self._flush()

    def _pass_on(self, timeout_s: float) -> bool | None:
        """Pass on what has come.

        Returns:
            None: something has come; else whether the run has ended.
        """
        has_come, has_ended = False, False
        for descriptor, _ in self._poll.poll(timeout_s * 1000):
            if descriptor == 0:
                self._poll.unregister(0)  # The only message is its end.
                has_ended = True
                continue
            data = _read(descriptor)
            if data:
                _write(self._relayed[descriptor].target, data)
                self._record(descriptor, data)
                has_come = True
            else:
                self._poll.unregister(descriptor)
                del self._relayed[descriptor]
        for channel in self._relayed.values():
            _copy_window_size(channel)
        return has_ended if has_ended or not has_come else None

    def _follow(self) -> None:
        """Read what has come to files."""
        for source, (file, _) in self._followed.items():
            size = os.fstat(file).st_size
            if size < self._offsets[source]:  # Somebody has cut it: it begins anew.
                self._offsets[source] = 0
            # Where there is very much, the middle is left out: nobody waits for this process.
            self._offsets[source] = max(self._offsets[source], size - _MAX_FOLLOWED_BYTES)
            while data := os.pread(file, _READ_BYTES, self._offsets[source]):
                self._offsets[source] += len(data)
                self._record(source, data)

    def _record(self, source: int, data: bytes) -> None:
        if self._is_recording:
            self._transcripts[source].feed(data)

    def _flush(self, *, is_last: bool = False) -> None:
        self._flushed_s = time.monotonic()
        for transcript in self._transcripts.values():
            transcript.flush(is_last=is_last)

    def _end_recording(self) -> None:
        self._follow()
        self._flush(is_last=True)
        self._journal.close()
        self._is_recording = False
        with suppress(OSError):  # The training may be gone.
            os.write(1, DONE)
        os.close(1)

    def _transcript(self, name: str, max_chars: int) -> Transcript:
        def write(text: str, number: int) -> None:
            self._journal.write_record(f"console/{name}", text, MetricType.TEXT, step=number, source=SOURCE)

        return Transcript(write, max_chars, self._redactor)

    def _is_starter_alive(self) -> bool:
        return self._starter is not None and self._starter.is_alive(0.0)


def _read(descriptor: int) -> bytes:
    """What has come; nothing at the end. A pseudo-terminal that nobody has open any more gives an error there."""
    try:
        return os.read(descriptor, _READ_BYTES)
    except OSError:
        return b""


def _write(descriptor: int | None, data: bytes) -> None:
    """All of it, however long the other side takes; where that is gone, nothing."""
    assert descriptor is not None
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:  # Another process has made the terminal non-blocking.
            select.select((), (descriptor,), ())
        except OSError as error:
            if error.errno != errno.EINTR:
                return


def _copy_window_size(channel: Channel) -> None:
    """Programs ask the pseudo-terminal how wide it is."""
    assert channel.target is not None
    with suppress(OSError):  # It is no terminal, or it has been closed.
        size = fcntl.ioctl(channel.target, termios.TIOCGWINSZ, bytes(8))
        if size != fcntl.ioctl(channel.source, termios.TIOCGWINSZ, bytes(8)):
            fcntl.ioctl(channel.source, termios.TIOCSWINSZ, size)


if __name__ == "__main__":
    main()
