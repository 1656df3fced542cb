"""`tracelet ui` on much: a thousand runs, a run of ten million points in a hundred series, a run that logs on.

Each figure is the wall time of a whole answer over HTTP from a server in a process of its own, by a client on the same
machine; the files are in the page cache. The first chart is the first one that this server is asked for, so that it
reads all points of the run; memory is the server's resident memory at its highest.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import random
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

from benchmarks.measuring import Row, Target, scaled, show

_RUNS = 1000
POINTS = 10_000_000
SERIES = 100
LIVE_PER_S = 1000
_LIVE_S = 5.0
_ZOOMS = 20
TOKEN = "benchmark"


def main(scale: float = 1.0) -> None:
    """Measure and print."""
    runs, points = scaled(_RUNS, scale, 3), scaled(POINTS, scale, SERIES)
    with tempfile.TemporaryDirectory(prefix="tracelet-benchmark-") as place:
        directory = Path(place)
        context = multiprocessing.get_context("spawn")
        for write, arguments in ((_write_many, (directory, runs)), (write_large, (directory, points))):
            writer = context.Process(target=write, args=arguments)
            writer.start()
            writer.join()
        with server(directory) as (base, pid):
            table_s = _time(f"{base}/api/runs?limit=100")
            sorted_s = _time(f"{base}/api/runs?limit=100&sort=metric.loss")
            question = {"run": "large", "name": "metric/7", "points": 1000}
            first_s = _time(f"{base}/api/series?{urlencode(question)}")
            steps = points // SERIES
            zooms_s = []
            for _ in range(_ZOOMS):
                low = random.random() * steps * 0.9
                part = {**question, "name": f"metric/{random.randrange(SERIES)}", "from": low, "to": low + steps * 0.1}
                zooms_s.append(_time(f"{base}/api/series?{urlencode(part)}"))
            peak_mb = _peak_bytes(pid) / 1e6
            behind, answer_s = _follow(directory, base, _LIVE_S * min(1.0, scale * 10))
    show(
        f"tracelet ui: {runs:,} runs, and one of {points:,} points in {SERIES} series",
        [
            Row("table of runs", f"{table_s * 1e3:.0f} ms"),
            Row("the same, sorted by a metric for the first time", f"{sorted_s * 1e3:.0f} ms"),
            Row("first chart", f"{first_s * 1e3:.0f} ms", target=Target(first_s, 1.0, "s")),
            Row(
                "zoom, the slowest of 20", f"{max(zooms_s) * 1e3:.0f} ms", target=Target(max(zooms_s) * 1e3, 200, "ms")
            ),
            Row("server's memory at its highest", f"{peak_mb:.0f} MB", target=Target(peak_mb, 500, "MB")),
            Row(f"live, {LIVE_PER_S:,} records/s: an answer", f"{answer_s * 1e3:.0f} ms"),
            Row("live: how old the newest point is", f"{behind:.2f} s", target=Target(behind, 1.0, "s")),
        ],
    )


def experiment(directory: Path, name: str):
    from tracelet import Experiment
    from tracelet.settings import TraceletSettings

    return Experiment(
        name, [], run_id=name, collectors=(), settings=TraceletSettings(dir=directory, show_progress=False)
    )


def _write_many(directory: Path, runs: int) -> None:
    for index in range(runs):
        with experiment(directory, f"run{index}") as run:
            run.log_params({"lr": 10 ** -random.uniform(1, 4), "width": random.choice([64, 128, 256])})
            for step in range(100):
                run.log_metric("loss", random.random() / (1 + step), step)


def write_large(directory: Path, points: int) -> None:
    with experiment(directory, "large") as run:
        names = [f"metric/{index}" for index in range(SERIES)]
        for step in range(points // SERIES):
            for name in names:
                run.log_metric(name, random.random(), step)


def _write_live(directory: Path, duration_s: float) -> None:
    with experiment(directory, "live") as run:
        end_s = time.monotonic() + duration_s
        step = 0
        while time.monotonic() < end_s:
            for _ in range(LIVE_PER_S // 100):
                run.log_metric("loss", random.random(), step)
                step += 1
            time.sleep(0.01)


def _follow(directory: Path, base: str, duration_s: float) -> tuple[float, float]:
    """How far the newest point that is shown was behind, and how long an answer took: medians."""
    import json

    writer = multiprocessing.get_context("spawn").Process(target=_write_live, args=(directory, duration_s))
    writer.start()
    behind_s, answers_s = [], []
    address = f"{base}/api/series?run=live&name=loss&x=wall&points=1000"
    while writer.is_alive():
        began_s = time.time()
        with contextlib.suppress(urllib.error.HTTPError):  # It has not begun.
            series = json.loads(_get(address))["series"]
            if series and writer.is_alive():
                answers_s.append(time.time() - began_s)
                behind_s.append(time.time() - series[0]["x"][-1])
        time.sleep(0.2)
    writer.join()
    return statistics.median(behind_s or [0.0]), statistics.median(answers_s or [0.0])


@contextlib.contextmanager
def server(directory: Path) -> Iterator[tuple[str, int]]:
    receiving, sending = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(directory, sending))
    process.start()
    sending.close()  # So that a server that fails to start is noticed here.
    try:
        yield f"http://127.0.0.1:{receiving.recv()}", process.pid or 0
    finally:
        process.terminate()
        process.join()


def _serve(directory: Path, sending) -> None:
    from tracelet.ui.server import listen, make_app, serve

    listening = listen("127.0.0.1", 0)
    serve(make_app(directory, TOKEN), listening, lambda: sending.send(listening.getsockname()[1]))


def _get(address: str) -> bytes:
    port = address.split(":")[2].partition("/")[0]
    request = urllib.request.Request(address, headers={"Cookie": f"tracelet_{port}={TOKEN}"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read()


def _time(address: str) -> float:
    began_s = time.perf_counter()
    _get(address)
    return time.perf_counter() - began_s


def _peak_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
