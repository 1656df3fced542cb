"""A training that prints, in every way there is: `console_program.py MODE END`. Run by `test_console.py`."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tracelet import Experiment
from tracelet.collectors.environment_collector import EnvironmentCollector


def console(experiment: Experiment) -> dict[str, str]:
    return experiment.status()["plugins"]["environment"].get("console", {})


def relay() -> int:
    """The relay's pid: the process that has our end of a pipe as its standard input."""
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            variables = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            continue
        if b"tracelet.collectors._environment.relay" in words and f"CONSOLE_TEST={os.getpid()}".encode() in variables:
            return int(pid)
    raise LookupError


def talk() -> None:
    libc = ctypes.CDLL(None)
    print("from Python")
    sys.stdout.flush()
    os.write(2, b"from a descriptor\n")
    subprocess.run(["echo", "from a child"], check=True)
    libc.puts(b"from C")
    libc.fflush(None)
    for step in range(101):
        print(f"\rstep {step:3} of 100", end="")
    print()
    print(f"terminals {os.isatty(1)} {os.isatty(2)}", flush=True)
    print("\x1b[32mcoloured\x1b[0m", flush=True)


def main(mode: str, end: str) -> None:
    os.environ["CONSOLE_TEST"] = str(os.getpid())
    experiment = Experiment("x", collectors=[], run_id="x")
    experiment.register_plugin(EnvironmentCollector(), {"console": mode, "packages": False})
    experiment.start()
    while mode != "off" and not console(experiment):
        time.sleep(0.001)
    if end == "flood":  # More than a pipe holds, by a library that does not give the interpreter's lock away.
        text = b"x" * 99 + b"\n"
        written, library = 0, ctypes.PyDLL(None)
        while written < 2_000_000:
            part = (text * 20_000)[written % 100 :][: 2_000_000 - written]
            written += library.write(1, part, len(part))
    elif end == "own":
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
    elif end == "outlived" and os.fork() == 0:
        experiment_pid = os.getppid()
        while os.getppid() == experiment_pid:
            time.sleep(0.01)
        os.write(1, b"from a worker that outlived it\n")
        os._exit(0)
    elif end == "orphaned":
        while mode != "off":
            try:
                os.kill(relay(), signal.SIGKILL)
                break
            except LookupError:
                time.sleep(0.01)
        for _ in range(200):
            print("while the relay is dead", flush=True)
            time.sleep(0.001)
    talk()
    if end in ("killed", "outlived"):
        os.kill(os.getpid(), signal.SIGKILL)
    experiment.stop()
    print("after the end", flush=True)
    if end == "own":
        os.write(2, os.readlink("/proc/self/fd/1").encode() + b"\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
