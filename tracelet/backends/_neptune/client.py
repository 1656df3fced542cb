"""Opens a run of the Neptune client, and keeps from the user's process what the client does to it.

Called on the backend's thread. After `open_run` the process is as before: `sys.excepthook` is the user's, no filter of
warnings is left, nothing was said on stdout, and no hook of ours or of the client waits at the interpreter's exit (all
that counts is on the disk by then).
"""

from __future__ import annotations

import atexit
import base64
import contextlib
import functools
import json
import logging
import os
import re
import ssl
import sys
import threading
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, final

from tracelet.errors import PermanentError, RetryableError
from tracelet.utils.imports import require

FEATURE: Final = "The Neptune backend"
_LONGEST_FORK_WAIT_S: Final = 5.0  # For each of two locks; a disk that hangs holds up no fork for longer.

# By name, since the client's module can be chosen. An error of a class below one of these counts as well.
_PERMANENT: Final = frozenset(
    {
        "Forbidden",
        "MetadataContainerNotFound",
        "NeptuneClientUpgradeRequiredError",
        "NeptuneIncorrectProjectQualifiedNameException",
        "NeptuneInvalidApiTokenException",
        "NeptuneLegacyProjectException",
        "NeptuneMissingApiTokenException",
        "NeptuneMissingProjectNameException",
        "Unauthorized",
    }
)


def open_run(client: str, **arguments: Any) -> Any:
    """A run that captures nothing by itself.

    Args:
        client: The module: `neptune`, or one with the same API.
        **arguments: More for its `init_run`.

    Raises:
        MissingDependencyError: The module is not installed.
        PermanentError: The key or the project is wrong.
        RetryableError, OSError: The server is away, or the disk does not let us.
    """
    neptune = _imported(client)
    hook = sys.excepthook
    try:
        with quiet(client):
            run = neptune.init_run(
                capture_stdout=False,
                capture_stderr=False,
                capture_hardware_metrics=False,
                capture_traceback=False,
                git_ref=False,
                **arguments,
            )
    except OSError:
        raise
    except Exception as error:
        raise translated(error) from error
    if sys.excepthook is not hook:  # Not where the user has a run of their own, and with it the hook.
        require(f"{client}.internal.utils.uncaught_exception_handler", FEATURE).instance.deactivate()
    # It would call `run.stop()`, which waits a minute and more for a server that is away.
    atexit.unregister(run._shutdown_hook)  # noqa: SLF001  there is no public way
    return run


def folder_of(run: Any) -> Path:
    """Where the client keeps the operations of this opening of the run."""
    return Path(run._op_processor.data_path).resolve()  # noqa: SLF001  there is no public way


def translated(error: Exception) -> Exception:
    """An error of the client, as delivery understands it."""
    text = " ".join(re.sub(r"\x1b\[\d*m", "", str(error)).replace("-" * 4, "").split())
    names = {cls.__name__ for cls in type(error).__mro__}
    kind = PermanentError if names & _PERMANENT else RetryableError
    return kind(f"{type(error).__name__}: {text:.500}")


def require_answer(token: str | None, timeout_s: float) -> None:
    """See whether the server of a key is there: without it the client would block for a minute.

    Raises:
        ConnectionError: It does not answer in time.
    """
    try:
        address = json.loads(base64.b64decode(token or ""))
        url = str(address.get("api_url") or address["api_address"])
    except (ValueError, LookupError, AttributeError):
        return  # No key: the client says so.
    if not url.startswith(("http://", "https://")):
        return
    try:
        urllib.request.urlopen(url, timeout=timeout_s).close()
    except urllib.error.HTTPError as error:
        error.close()
        if error.code >= 500:  # Any other answer is one.
            raise ConnectionError(f"the Neptune server at {url} is out of order: {error}") from error
    except OSError as error:
        if not isinstance(getattr(error, "reason", None), ssl.SSLError):  # The client has its own view of certificates.
            raise ConnectionError(f"the Neptune server at {url} does not answer: {error}") from error


@final
class ForkGuard:
    """Held while the client's buffer may hold records: a fork waits for the end of it.

    In a forked child the client writes its copy of the buffer to the parent's file. So these records would be there
    twice, and half lines, at which `neptune sync` gives up; and if the parent was writing, the child would hang in that
    for ever, at the buffer's lock (seen at the first of 60 forks beside a busy backend).
    """

    def __init__(self) -> None:
        """Not for use: see `fork_guard`."""
        self._turn = threading.Lock()  # Whoever waits for `_lock` holds it: so that a fork gets its turn.
        self._lock = threading.Lock()
        self._fork = threading.local()
        os.register_at_fork(before=self._before, after_in_parent=self._after, after_in_child=self._after)

    def __enter__(self) -> None:
        with self._turn:
            self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()

    def _before(self) -> None:
        locks = (self._turn, self._lock)
        self._fork.held = [lock for lock in locks if lock.acquire(timeout=_LONGEST_FORK_WAIT_S)]

    def _after(self) -> None:
        for lock in self._fork.held:
            lock.release()


@functools.cache  # Hooks of a fork can't be taken back.
def fork_guard() -> ForkGuard:
    """The one of this process."""
    return ForkGuard()


@contextlib.contextmanager
def quiet(client: str) -> Iterator[None]:
    """Keep the client's messages of this thread out of the user's stdout, all but warnings and errors."""
    thread = threading.get_ident()
    logger = logging.getLogger(client.partition(".")[0])

    def is_wanted(record: logging.LogRecord) -> bool:
        return record.thread != thread or record.levelno >= logging.WARNING

    logger.addFilter(is_wanted)
    try:
        yield
    finally:
        logger.removeFilter(is_wanted)


def _imported(client: str) -> Any:
    """The client, without the filters of warnings that it sets for its own."""
    before = list(warnings.filters)
    neptune = require(client, FEATURE)
    for item in [item for item in warnings.filters if item not in before and item[2].__module__.startswith(client)]:
        warnings.filters.remove(item)  # type: ignore[attr-defined]  # it is a list, whatever its stub says
    return neptune
