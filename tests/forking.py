"""Runs small programs in processes of their own, which do not import the same packages for seconds each.

One process imports them, and forks another for each program. That one begins as a fresh interpreter does, with nothing
but the packages loaded, and ends as one: with a traceback on stderr, by a signal, or through its exit hooks.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

_FORKING = """
import importlib, json, os, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        break
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
else:
    sys.exit()
program = json.loads(line)
os.chdir(program["directory"])
os.environ.clear()
os.environ.update(program["environment"])
for descriptor, path in enumerate([os.devnull, program["printed"], program["printed"]]):
    os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND), descriptor)
sys.argv[1:] = program["arguments"]
exec(program["code"])
"""


class ForkingProcess:
    """A process with these modules imported."""

    def __init__(self, *modules: str, **environment: str) -> None:
        self._own = {**environment, "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", _FORKING, *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | self._own,
        )

    def run(self, code: str, *arguments: str | Path) -> tuple[int, str]:
        """Run a program where and as this process would; gives how it ended, and what it printed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        printed = Path("printed.txt").absolute()
        printed.unlink(missing_ok=True)
        program = {"code": code, "arguments": list(map(str, arguments)), "printed": str(printed)}
        program |= {"directory": os.getcwd(), "environment": os.environ | self._own}
        self._process.stdin.write(json.dumps(program) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline()), printed.read_text()

    def close(self) -> None:
        """End it."""
        self._process.communicate()
