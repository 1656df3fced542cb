"""What two containers with one shared directory run in the tests, both as process 1: `containers.py RANK DIRECTORY`."""

from __future__ import annotations

import os
import sys
import time

import tracelet
from tracelet.journal.status import RunStatus


def main(rank: str, directory: str) -> None:
    assert 1 == os.getpid()
    with tracelet.shared_experiment("containers", run_id="r", rank=int(rank), dir=directory) as run:
        for step in range(3):
            run.log_metric("loss", float(int(rank) + step), step)
        while rank == "0" and len(tracelet.load_run(run.run_dir).ranks) < 2:
            time.sleep(0.01)
        assert rank == "1" or RunStatus.RUNNING is tracelet.load_run(run.run_dir).status


if __name__ == "__main__":
    main(*sys.argv[1:])
