"""`tracelet runs` in a directory of ten thousand runs: the whole command, from the shell to the last line.

Each figure is the median wall time of a few commands, with their CPU time beside it; the files are in the page cache.
The runs are copies of some real ones, each with an identity of its own, so that making them takes a minute less. The
peer reads the same runs from its SQLite store with `mlflow.search_runs`, in a process of its own as well.
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

from benchmarks.measuring import Row, Target, scaled, show

_RUNS = 10_000
_REAL_RUNS = 20
_PEER_RUNS = 100  # It takes some 30 ms to store one.
_REPEATS = 3
_STORE = """
import mlflow, sys
mlflow.set_tracking_uri(sys.argv[1])
client = mlflow.MlflowClient()
for index in range(int(sys.argv[2])):
    run = client.create_run("0", run_name="sweep").info.run_id
    client.log_batch(run, [mlflow.entities.Metric("val/accuracy", index, 0, 0)])
    client.set_terminated(run)
"""
_SEARCH = """
import mlflow, sys
mlflow.set_tracking_uri(sys.argv[1])
print(mlflow.search_runs(["0"], order_by=["metrics.`val/accuracy` DESC"], max_results=20))
"""


def main(scale: float = 1.0) -> None:
    """Measure and print."""
    runs, peer_runs, repeats = scaled(_RUNS, scale, 20), scaled(_PEER_RUNS, scale, 2), scaled(_REPEATS, scale)
    with tempfile.TemporaryDirectory(prefix="tracelet-benchmark-") as scratch:
        directory = Path(scratch) / "runs"
        make_runs(directory, runs)
        command = [sys.executable, "-c", "from tracelet.cli import main; main()", "runs", "--dir", os.fspath(directory)]
        newest, newest_cpu = _timed(command, repeats)
        best, best_cpu = _timed([*command, "--sort", "metric.val/accuracy:desc"], repeats)
        store = f"sqlite:///{scratch}/mlflow.db"
        subprocess.run([sys.executable, "-c", _STORE, store, str(peer_runs)], check=True, capture_output=True)
        peer, peer_cpu = _timed([sys.executable, "-c", _SEARCH, store], repeats)
    told = f"mlflow.search_runs, {peer_runs:,} runs: {peer:.2f} s (CPU {peer_cpu:.2f})"
    show(
        f"The table of {runs:,} runs",
        [
            Row("tracelet runs", f"{newest:.2f} s (CPU {newest_cpu:.2f})", target=Target(newest, 2, "s")),
            Row(
                "tracelet runs --sort metric.val/accuracy:desc",
                f"{best:.2f} s (CPU {best_cpu:.2f})",
                told,
                f"{peer / best:.1f}",
                Target(best, 2, "s"),
            ),
        ],
    )


def make_runs(directory: Path, count: int) -> None:
    """Fill a directory with runs that have ended."""
    from tracelet import Experiment

    real = []
    for index in range(min(count, _REAL_RUNS)):
        with Experiment("sweep", config={"lr": 10.0**-index}, dir=directory, collectors=()) as experiment:
            for step in range(100):
                experiment.log_metrics({"train/loss": 1 / (step + 1), "val/accuracy": index / _REAL_RUNS}, step)
        real.append(experiment.run_dir)
    for source, index in zip(itertools.cycle(real), range(count - len(real)), strict=False):
        copy = shutil.copytree(source, source.with_name(f"copy-{index:06}"))
        identity = json.loads((copy / "run.json").read_text())
        (copy / "run.json").write_text(json.dumps({**identity, "uuid": uuid.uuid4().hex, "run_id": copy.name}))


def _timed(command: list[str], repeats: int) -> tuple[float, float]:
    """The median wall and CPU time of a command, in seconds."""
    walls_s, cpus_s = [], []
    for _ in range(1 + repeats):
        wall_s, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, "COLUMNS": "120"})
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        walls_s.append(time.perf_counter() - wall_s)
        cpus_s.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(walls_s[1:]), statistics.median(cpus_s[1:])


if __name__ == "__main__":
    main()
