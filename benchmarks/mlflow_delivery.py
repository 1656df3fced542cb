"""How fast records come to a real MLflow server, which runs on SQLite on the same machine.

The first table has the delivery alone: a worker takes a journal that is written already to the server, beside the least
that MLflow itself offers, a loop of `MlflowClient.log_batch` with the 1,000 metrics that a request may hold. Both are
connected before, and take turns on the same server with the same points. The server does most of the work.

The second table has what a user waits for: from the import of MLflow, over a loop that logs at full speed, until the
run is closed and everything is on the server. The peer is `mlflow.log_metric(synchronous=False)`: as it comes, with a
request a point; and with `MLFLOW_ASYNC_LOGGING_BUFFERING_SECONDS=1`, which gathers them and has no target, since both
then wait for the server. The peer logs fewer points, because as many would take it minutes: the time after its run is
open is multiplied, as the row says.

The points are counted in the server's database.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, final

from benchmarks.measuring import Row, Target, in_new_process, scaled, show
from benchmarks.trackers import check, delivery_s, points_in_mlflow, quieten, settings_for
from tests.backends.mlflow_server import MlflowServer
from tracelet import Experiment, TraceletSettings

_ROUNDS = 3
_DELIVERED = 20_000
_LOGGED = 100_000
_BUFFERED = 10_000
_UNBUFFERED = 1_000
_SERIES = 10
_A_REQUEST = 1_000


@final
class Times(NamedTuple):
    """From the beginning of a whole run, in seconds."""

    opened: float  # Log calls can be made.
    logged: float  # The last of them has returned.
    closed: float  # The call that ends the run has returned.


def main(scale: float = 1.0) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="tracelet-benchmark-") as folder, MlflowServer(Path(folder)) as server:
        measure(server, scale)


def measure(server: MlflowServer, scale: float) -> None:
    """Measure on a server that runs already."""
    _show_delivery(server, scaled(_DELIVERED, scale, _SERIES), scaled(_ROUNDS, scale))
    _show_whole_runs(server, scale)


# -- the delivery alone ------------------------------------------------------------------------------------------------


def _show_delivery(server: MlflowServer, points: int, rounds: int) -> None:
    names = [(uuid.uuid4().hex, uuid.uuid4().hex) for _ in range(rounds)]
    seconds = in_new_process(_deliver_in_turns, server.uri, points, names)
    for pair in names:
        for name in pair:
            check(points_in_mlflow(server, name), points)
    ours, bare = (points / statistics.median(column) for column in zip(*seconds, strict=True))
    ratio = statistics.median(bare_s / ours_s for ours_s, bare_s in seconds)
    target = Target(ratio, 0.9, "times its rate", at_least=True)
    row = Row(f"{points:,} points", f"{ours:,.0f} a second", f"log_batch, bare: {bare:,.0f}", f"{ratio:.2f}", target)
    show("Delivery of a written journal to MLflow", [row])


def _deliver_in_turns(server_uri: str, points: int, names: Sequence[tuple[str, str]]) -> list[tuple[float, float]]:
    """The seconds that our runs and the bare ones take."""
    with tempfile.TemporaryDirectory(prefix="tracelet-benchmark-") as directory:
        settings = settings_for(directory, server_uri)
        return [(_deliver(settings, points, ours), _log_batches(server_uri, points, bare)) for ours, bare in names]


def _deliver(settings: TraceletSettings, points: int, name: str) -> float:
    from tracelet.backends.mlflow_backend import MLflowBackend

    with Experiment(name, collectors=(), settings=settings) as experiment:
        for series, step, value in _points(points):
            experiment.log_metric(series, value, step)
    return delivery_s(MLflowBackend(), settings, experiment.run_dir)


def _log_batches(server_uri: str, points: int, name: str) -> float:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    client = MlflowClient(server_uri)
    run_id = client.create_run("0", run_name=name).info.run_id
    began_s = time.perf_counter()
    batch = []
    for series, step, value in _points(points):
        batch.append(Metric(series, value, time.time_ns() // 1_000_000, step))
        if len(batch) == _A_REQUEST:
            client.log_batch(run_id, batch)
            batch = []
    if batch:
        client.log_batch(run_id, batch)
    return time.perf_counter() - began_s


# -- whole runs --------------------------------------------------------------------------------------------------------


def _show_whole_runs(server: MlflowServer, scale: float) -> None:
    points = scaled(_LOGGED, scale, _SERIES)
    ours = _whole_run(server, points)
    rows = []
    for peer, all_of_it, buffering_s in (("as it comes", _UNBUFFERED, 0), ("gathered for 1 s", _BUFFERED, 1)):
        count = scaled(all_of_it, scale, _SERIES)
        found = _whole_run(server, count, buffering_s)
        theirs = Times(found.opened, *(found.opened + (at - found.opened) * points / count for at in found[1:]))
        ratio = theirs.closed / ours.closed
        rows.append(
            Row(
                f"{points:,} points",
                f"{ours.logged:.2f} / {ours.closed:.1f} s",
                f"async, {peer}: {theirs.logged:,.1f} / {theirs.closed:,.1f} s ({points / count:.0f} times {count:,})",
                f"{ratio:.1f}",
                None if buffering_s else Target(ratio, 1, "times sooner", at_least=True),
            )
        )
    show("A run at full speed to MLflow: until the log calls have returned / until it is closed", rows)


def _whole_run(server: MlflowServer, points: int, buffering_s: int | None = None) -> Times:
    """One of ours, or one of MLflow's asynchronous ones."""
    name = uuid.uuid4().hex
    if buffering_s is None:
        times = in_new_process(_record, server.uri, points, name)
    else:
        times = in_new_process(_log_async, server.uri, points, name, buffering_s)
    check(points_in_mlflow(server, name), points)
    return times


def _record(server_uri: str, points: int, name: str) -> Times:
    with tempfile.TemporaryDirectory(prefix="tracelet-benchmark-") as directory:
        began_s = time.perf_counter()
        with Experiment(name, "mlflow", collectors=(), settings=settings_for(directory, server_uri)) as experiment:
            opened_s = time.perf_counter() - began_s
            for series, step, value in _points(points):
                experiment.log_metric(series, value, step)
            logged_s = time.perf_counter() - began_s
        return Times(opened_s, logged_s, time.perf_counter() - began_s)


def _log_async(server_uri: str, points: int, name: str, buffering_s: int) -> Times:
    with tempfile.TemporaryDirectory(prefix="tracelet-benchmark-") as directory:
        quieten(directory)
        if buffering_s:
            os.environ["MLFLOW_ASYNC_LOGGING_BUFFERING_SECONDS"] = str(buffering_s)
        began_s = time.perf_counter()
        import mlflow

        mlflow.set_tracking_uri(server_uri)
        with mlflow.start_run(run_name=name):
            opened_s = time.perf_counter() - began_s
            for series, step, value in _points(points):
                mlflow.log_metric(series, value, step, synchronous=False)
            logged_s = time.perf_counter() - began_s
        return Times(opened_s, logged_s, time.perf_counter() - began_s)


def _points(count: int) -> Iterator[tuple[str, int, float]]:
    for index in range(count):
        step, series = divmod(index, _SERIES)
        yield f"train/metric{series}", step, index / count


if __name__ == "__main__":
    main()
