"""Records what a program prints, at the level of the file descriptors 1 and 2, without standing in its way.

Threads:
    tracelet-environment   `start`, `stop`.
    tracelet-console       `_listen`: switches the descriptors back should the relay die.

Where a descriptor leads decides what is done:

- a file (`python train.py > log`, SLURM, nohup): nothing is switched; the file is read as it grows;
- a terminal or a pipe: the descriptor is switched to a pseudo-terminal or a pipe, which a process of its own (`relay`)
  passes on. `isatty()` stays what it was;
- what Python itself does not print to (a notebook, pytest, `redirect_stdout`): nothing.

Why a process: a thread that reads a pipe would need the interpreter's lock, so that a library which prints more than a
pipe holds while it has that lock would stand still for ever; and with the process a killed training would take the
last 64 KiB along, from the terminal too. The relay needs neither, and survives. In a container it does not: when the
first process there ends, the kernel kills all others, and what is on its way is lost. So there only files are read,
unless the user asks for more.

Guarantees: if the relay dies, or can't even start, output goes to where it went before within moments, and none is
lost but what the relay held in hand (this process has the reading ends, too, and passes on what is left in them); a
descriptor that the user has switched meanwhile is left as it is. Once, in the 0.1 s in which the relay starts, output
comes that much later.
"""

from __future__ import annotations

import fcntl
import logging
import os
import stat
import subprocess
import sys
import termios
import threading
import tty
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, final

from tracelet.collectors._container import container_id
from tracelet.collectors._environment.relay import DONE, Channel, RelayOrder
from tracelet.journal.status import ProcessIdentity
from tracelet.utils.redaction import Redactor

logger = logging.getLogger(__name__)

ConsoleMode = Literal["auto", "always", "off"]
Kind = Literal["file", "terminal", "pipe"]

_STOP_S: Final = 1.5  # Less than the experiment waits for a collector.


@final
@dataclass(slots=True)
class _Switch:
    """A place where the program prints to.

    Attributes:
        name: As `Channel`.
        kind: What it is.
        descriptors: 1, 2 or both.
        original: A copy of the descriptor as it was.
        reading: The end that the relay reads from. This process keeps it open, so that a dead relay breaks no writer.
        writing: The end that the program's output is switched to; closed once it is.
        identity: Of the writing end: whether a descriptor still leads to it.
    """

    name: str
    kind: Kind
    descriptors: list[int]
    original: int
    reading: int | None = None
    writing: int | None = None
    identity: tuple[int, int] | None = None


@final
class ConsoleCapture:
    """See the module docstring."""

    def __init__(self, run_dir: Path, mode: ConsoleMode, max_chars: int, redactor: Redactor) -> None:
        """Nothing happens before `start`.

        Args:
            run_dir: The run that the texts go to.
            mode: `always`: in a container and under pytest, too.
            max_chars: Of all texts of a channel together.
            redactor: Hides credentials in them.
        """
        self._run_dir = run_dir
        self._mode = mode
        self._max_chars = max_chars
        self._redactor = redactor
        self._switches: list[_Switch] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()  # For the descriptors.

    def start(self) -> None:
        """Start the relay, and do not wait for it.

        Raises:
            OSError: There is no descriptor or process to be had.
        """
        if self._mode == "off" or not sys.executable or getattr(sys, "frozen", False):
            return
        only_files = self._mode == "auto" and ("PYTEST_CURRENT_TEST" in os.environ or container_id() is not None)
        self._switches = list(_places(only_files=only_files))
        if not self._switches:
            return
        try:
            for switch in self._switches:
                _open(switch)
            self._spawn()
            self._switch_over()
        except BaseException:
            self._give_up()
            raise
        self._thread = threading.Thread(target=self._listen, name="tracelet-console", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Switch back, and wait a moment until all that was printed is recorded."""
        process, self._process = self._process, None
        if process is None:
            return
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):  # Closed, or gone: there is nothing to flush.
                stream.flush()
        with self._lock:
            self._switch_back()
        assert process.stdin is not None
        process.stdin.close()
        if self._thread is not None:
            self._thread.join(_STOP_S)
        self._close()

    def get_status(self) -> dict[str, str]:
        """How each place is read, by its name."""
        return {switch.name: switch.kind for switch in self._switches}

    # -- inside --------------------------------------------------------------------------------------------------------

    def _spawn(self) -> None:
        channels = [_channel(switch) for switch in self._switches]
        own = ProcessIdentity.own().fields()
        order = RelayOrder(os.fspath(self._run_dir), channels, own, self._max_chars, self._redactor.rules)
        passed = {descriptor for channel in channels for descriptor in (channel.source, channel.target)}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tracelet.collectors._environment.relay"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            pass_fds=tuple(descriptor for descriptor in passed if descriptor is not None),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            start_new_session=True,  # Ctrl-C and a closed terminal are for the training alone.
        )  # fmt: skip
        assert self._process.stdin is not None
        self._process.stdin.write(order.encode())
        self._process.stdin.flush()

    def _listen(self) -> None:
        """What the relay says, to its end."""
        process = self._process
        if process is None or process.stdout is None:
            return
        process.wait()  # It goes on as an orphan.
        with process.stdout as lines:
            is_done = lines.readline() == DONE
        if not is_done:
            with self._lock:
                self._switch_back()
                self._rescue()
            logger.warning("the process that records the output has died; output is no longer recorded")

    def _switch_over(self) -> None:
        for switch in self._switches:
            if switch.writing is not None:
                for descriptor in switch.descriptors:
                    os.dup2(switch.writing, descriptor)
                os.close(switch.writing)
                switch.writing = None

    def _switch_back(self) -> None:
        for switch in self._switches:
            for descriptor in switch.descriptors:
                with suppress(OSError):  # The user has closed it.
                    if _identity(descriptor) == switch.identity:
                        os.dup2(switch.original, descriptor)

    def _rescue(self) -> None:
        """Pass on what is still on its way to a relay that has died."""
        for switch in self._switches:
            if switch.reading is not None:
                os.set_blocking(switch.reading, False)
                with suppress(OSError):  # No more has come, or nobody takes it.
                    while data := os.read(switch.reading, 1 << 16):
                        os.write(switch.original, data)

    def _give_up(self) -> None:
        """Leave everything as it was."""
        process, self._process = self._process, None
        self._switch_back()
        self._close()
        if process is not None:
            process.kill()
            process.communicate()

    def _close(self) -> None:
        with self._lock:
            for switch in self._switches:
                for descriptor in (switch.original, switch.reading, switch.writing):
                    if descriptor is not None:
                        os.close(descriptor)
            self._switches = []


def _places(*, only_files: bool) -> Iterator[_Switch]:
    """Where Python's output goes, if it goes to the descriptors 1 and 2: one place for both, or two."""
    found: dict[tuple[int, int], _Switch] = {}
    for descriptor, stream in ((1, sys.stdout), (2, sys.stderr)):
        with suppress(OSError, ValueError, AttributeError):  # It is closed, or there is none: pythonw, a daemon.
            if stream.fileno() != descriptor:
                continue
            kind, identity = _kind(descriptor), _identity(descriptor)
            if identity in found:
                found[identity].descriptors.append(descriptor)
                found[identity].name = "output"
            elif kind == "file" or (kind is not None and not only_files):
                name = "stdout" if descriptor == 1 else "stderr"
                found[identity] = _Switch(name, kind, [descriptor], fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3))
    yield from found.values()


def _kind(descriptor: int) -> Kind | None:
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return "file"
    if os.isatty(descriptor):
        return "terminal"
    return "pipe" if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) else None  # Nobody reads /dev/null.


def _identity(descriptor: int) -> tuple[int, int]:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino


def _open(switch: _Switch) -> None:
    """Make the two ends of what a place is switched to."""
    if switch.kind == "pipe":
        switch.reading, switch.writing = os.pipe()
    elif switch.kind == "terminal":
        switch.reading, switch.writing = os.openpty()
        tty.setraw(switch.writing)  # The real terminal is the one that turns line feeds into new lines.
        size: Any = fcntl.ioctl(switch.original, termios.TIOCGWINSZ, bytes(8))
        fcntl.ioctl(switch.writing, termios.TIOCSWINSZ, size)
    if switch.writing is not None:
        switch.identity = _identity(switch.writing)


def _channel(switch: _Switch) -> Channel:
    if switch.reading is None:
        return Channel(switch.name, switch.original, None, os.fstat(switch.original).st_size)
    return Channel(switch.name, switch.reading, switch.original)
