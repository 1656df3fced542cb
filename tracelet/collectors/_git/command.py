"""Runs git so that it can neither ask, nor wait for ever, nor flood, nor run a program of the repository's choosing.

Called on the git collector's thread. GitPython starts the processes.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, final

if TYPE_CHECKING:
    import git

_OPTIONS: Final = (
    "core.fsmonitor=false",  # It may name a program.
    f"core.hooksPath={os.devnull}",
    "core.quotePath=false",
    "core.safecrlf=false",  # A warning for each file would fill the pipe.
    "filter.lfs.clean=",  # Or a changed file of gigabytes would be hashed.
    "filter.lfs.process=",
    "filter.lfs.required=false",
)
_ENVIRONMENT: Final = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",  # The user's own `git` in another window must not meet our lock.
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_PAGER": "cat",
    "LC_ALL": "C",  # The texts of errors are looked at.
}


class GitError(Exception):
    """Git could not do it; the text is git's own."""


class Output(NamedTuple):
    """What git wrote; `is_cut` where it is not all."""

    data: bytes
    is_cut: bool

    def texts(self) -> list[str]:
        """The parts of an output of `-z`; without the last one where that is cut."""
        parts = self.data.decode("utf-8", "surrogateescape").split("\0")
        return parts[:-1]


@final
class GitCommand:
    """Git in one working directory."""

    def __init__(self, git: git.Git, timeout_s: float) -> None:
        """Make one.

        Args:
            git: GitPython's, of the working directory.
            timeout_s: What takes longer is killed.
        """
        self._git = git
        self._timeout_s = timeout_s

    def run(
        self,
        *arguments: str,
        stdin: Path | None = None,
        environment: Mapping[str, str] | None = None,
        max_bytes: int = 1 << 20,
    ) -> Output:
        """Run a command, and give what it wrote.

        Args:
            arguments: The command and its arguments.
            stdin: A file to read from.
            environment: Variables besides our own.
            max_bytes: What is more is not read.

        Raises:
            GitError: It failed, or took too long.
        """
        options = [word for option in _OPTIONS for word in ("-c", option)]
        variables = {**_ENVIRONMENT, **(environment or {})}
        with open(stdin or os.devnull, "rb") as source:
            process = self._git.execute(
                [self._git.GIT_PYTHON_GIT_EXECUTABLE, *options, *arguments],
                istream=source,
                as_process=True,
                env=variables,
            )
        assert process.proc is not None
        child = process.proc
        watch = threading.Timer(self._timeout_s, child.kill)
        watch.daemon = True
        watch.start()
        try:
            data, is_cut = _read(child.stdout, max_bytes)
            if is_cut:
                child.kill()
            said = b"" if child.stderr is None else child.stderr.read(4096)
            code = child.wait()
        finally:
            watch.cancel()
            for pipe in (child.stdout, child.stderr):
                if pipe is not None:
                    pipe.close()
        if code and not is_cut:
            text = said.decode("utf-8", "replace").strip() or f"no end within {self._timeout_s:g} s"
            raise GitError(f"git {arguments[0]}: {text}")
        return Output(data, is_cut)

    def text(self, *arguments: str) -> str:
        """The output of a command as one stripped text.

        Raises:
            GitError: As `run`.
        """
        return self.run(*arguments).data.decode("utf-8", "surrogateescape").strip()


def _read(stream: object, max_bytes: int) -> tuple[bytes, bool]:
    """All of a stream, or its beginning; and whether there was more."""
    assert stream is not None
    data: bytes = stream.read(max_bytes + 1)  # type: ignore[attr-defined]  # GitPython types it as any stream
    return data[:max_bytes], len(data) > max_bytes


def lines(items: Sequence[str]) -> bytes:
    """Paths for `--pathspec-from-file` with `--pathspec-file-nul`."""
    return b"".join(item.encode("utf-8", "surrogateescape") + b"\0" for item in items)
