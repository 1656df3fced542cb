"""Trainings and `tracelet sync` are killed at random moments: MLflow has everything once in the end."""

from __future__ import annotations

import multiprocessing
import random
from pathlib import Path

from tests.backends.mlflow_server import MlflowServer
from tests.backends.mlflow_support import QUIET
from tests.delivery.test_sidecar import is_gone
from tests.outages.conftest import Start
from tests.outages.support import SERIES, WAIT_S, Training, assert_complete, wait_for
from tests.outages.syncing import sync
from tests.outages.training import CONFIG, TAGS
from tracelet import Experiment
from tracelet.delivery.cursor import Cursor
from tracelet.journal.directory import delivery_directory
from tracelet.journal.format import IDENTITY_FILE

pytestmark = QUIET


def kill_at_a_random_moment(training: Training, longest_s: float) -> None:
    wait_for((training.run_dir / IDENTITY_FILE).exists)
    training.join(random.uniform(0.0, longest_s))
    training.kill()


def test_ten_killed_trainings_are_shown_as_killed_with_all_that_they_logged(server: MlflowServer, start: Start):
    trainings = [start(mlflow__tracking_uri=server.uri) for _ in range(10)]
    for training in trainings:
        kill_at_a_random_moment(training, 1.0)
    first, *others = (training.run_id for training in trainings)
    rows = trainings[0].sync(*others)
    assert [(run, "killed") for run in (first, *others)] == [(row["run"], row["closed"]) for row in rows]
    for training in trainings:
        assert_complete(server.uri, training.run_dir, "KILLED")


def test_sidecar_brings_the_last_records_of_a_killed_training_by_itself(server: MlflowServer, start: Start):
    training = start(mlflow__tracking_uri=server.uri, delivery="process")
    training.wait_for_more()
    pid = training.report.pid
    assert pid is not None
    kill_at_a_random_moment(training, 1.0)
    wait_for(lambda: is_gone(pid))
    assert_complete(server.uri, training.run_dir, "KILLED")


def test_fifty_killed_syncs_lose_nothing_and_send_nothing_twice(server: MlflowServer, trainings: None, tmp_path: Path):
    with Experiment("digits", run_id="r1", config=CONFIG, tags=TAGS) as experiment:
        for step in range(2_000):
            experiment.log_metrics({name: step + place / 8 for place, name in enumerate(SERIES)}, step)
    cursor = delivery_directory(experiment.run_dir, "mlflow")
    context = multiprocessing.get_context("forkserver")
    environment = {"MLFLOW_TRACKING_URI": server.uri, "MLFLOW_DISABLE_TELEMETRY": "true"}
    places = []

    def begin_sync() -> multiprocessing.process.BaseProcess:
        has_begun = context.Event()
        process = context.Process(target=sync, args=(experiment.run_dir, environment, has_begun))
        process.start()
        assert has_begun.wait(WAIT_S)
        return process

    longest_s = 0.5
    for _ in range(50):
        process = begin_sync()
        process.join(random.uniform(0.0, longest_s))  # Any moment will do: that is what is tested.
        process.kill()
        process.join()
        places.append(Cursor(cursor).delivered)
        if places[-2:-1] == places[-1:]:  # A busy machine takes longer to begin.
            longest_s = min(1.1 * longest_s, 5.0)
    process = begin_sync()
    process.join(WAIT_S)
    assert 0 == process.exitcode
    assert_complete(server.uri, experiment.run_dir, steps=2_000)
    assert len(set(places)) > 10, "the kills came too early, or too late"
