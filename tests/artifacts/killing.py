"""Processes that are killed while they keep artifacts. Run by test_kills.py, in a process that forks them."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from tracelet import Experiment, TraceletSettings

ALIVE_S = 0.05
"""A child is killed at a random instant of this time; an artifact takes about 10 ms, with its hashing."""

COMMON = b"the same in each of them" * 60_000


def content(number: int) -> dict[str, bytes]:
    """The files of an artifact: a small one, one that is linked, and one that all have."""
    return {"step.txt": b"%d" % number, "part/weights.bin": (b"%08d" % number) * 150_000, "common.bin": COMMON}


def make(number: int) -> Path:
    """The user's directory, whole before it is logged."""
    directory = Path("checkpoints", str(number))
    for name, data in content(number).items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)
    return directory


def log_for_ever(returned: int) -> None:
    """Keep one artifact after the other, and note each that was returned."""
    number = max((int(name) for name in os.listdir("checkpoints")), default=-1) + 1
    with Experiment("killed", run_id="killed", settings=TraceletSettings(collectors=())) as experiment:
        while True:
            path = make(number)
            experiment.log_artifact(path, "checkpoint", metadata={"number": number}, aliases="best")
            os.write(returned, b"%d\n" % number)
            number += 1


def main(kills: int) -> None:
    """Kill `kills` children at random instants; print the numbers of the artifacts that were returned."""
    os.makedirs("checkpoints", exist_ok=True)
    returned = os.open("returned", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    chance = random.Random(7)
    for number in range(kills):
        before = os.fstat(returned).st_size
        pid = os.fork()
        if pid == 0:
            log_for_ever(returned)
        while number % 4 and os.fstat(returned).st_size == before:  # The others are killed amid their start.
            time.sleep(0.001)
        time.sleep(chance.uniform(0.0, ALIVE_S))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    sys.stdout.write(json.dumps([int(line) for line in Path("returned").read_text().split()]))


if __name__ == "__main__":
    main(int(sys.argv[1]))
