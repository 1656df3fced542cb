"""Finds the MLflow run that belongs to a run of ours, or makes it; reads it back. On the backend's thread only.

Guarantee: one run of ours is one run of MLflow's. The id is kept in `state.json` as soon as it is known, and the run
carries our uuid in the tag `tracelet.run_uuid` from its creation: so neither a kill between the two, nor a lost file,
makes a second one.
"""

from __future__ import annotations

import getpass
import logging
import math
import os
from pathlib import Path

from tracelet.backends._base import RunFacts
from tracelet.backends._mlflow.api import (
    MAX_FLOAT,
    RUN_UUID_TAG,
    MlflowApi,
    RefusalError,
    RemoteRun,
    is_server,
    without_credentials,
)
from tracelet.backends._mlflow.names import KEYS, MAX_TAG_CHARS, TITLES, cut, storable
from tracelet.core.changes import StoredPoint
from tracelet.delivery.state import RemoteState
from tracelet.errors import PermanentError, RetryableError

logger = logging.getLogger(__name__)


def open_run(api: MlflowApi, facts: RunFacts, state: RemoteState, experiment: str | None) -> RemoteRun:
    """The run, found or made.

    Args:
        api: The way to MLflow.
        facts: What our run is.
        state: Keeps the id.
        experiment: The experiment's name from the settings; None: as MLflow's environment variables, or our project.

    Raises:
        PermanentError: It was deleted, or MLflow refuses it.
        RetryableError: MLflow is away.
    """
    try:
        if state["run_id"] is not None:
            return get_active_run(api, str(state["run_id"]), facts.state_dir)
        experiment_id = _experiment_id(api, experiment, facts.run_project)
        run = api.find_run(experiment_id, facts.run_uuid) or _create(api, facts, experiment_id)
    except RefusalError as refusal:
        raise PermanentError(f"MLflow refuses the run: {refusal}") from refusal
    state.update({"run_id": run.run_id})
    return run


def place_of(run: RemoteRun | None, uri: str | None) -> dict[str, str | None]:
    """Where a run is, for `get_status`."""
    return {
        "run_id": run and run.run_id,
        "experiment_id": run and run.experiment_id,
        "tracking_uri": uri and without_credentials(uri),
    }


def page_of(run: RemoteRun | None, uri: str | None) -> str | None:
    """The address of a run's page; None without a server."""
    if run is None or uri is None or not is_server(uri):
        return None
    return f"{without_credentials(uri)}/#/experiments/{run.experiment_id}/runs/{run.run_id}"


def get_active_run(api: MlflowApi, run_id: str, state_dir: Path) -> RemoteRun:
    """The run that is kept as ours.

    Raises:
        PermanentError: It is not there, or somebody has deleted it. To go on in a new run would leave out all that was
            delivered before, so that is the user's to say.
    """
    remedy = f"to send everything to a new one, remove the directory {state_dir}"
    try:
        run = api.get_run(run_id)
    except RefusalError as refusal:
        if refusal.code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise PermanentError(
            f"MLflow has no run {run_id}, which this one was delivered to. Set tracking_uri to its place, or, {remedy}"
        ) from refusal
    if run.is_deleted:
        raise PermanentError(
            f"the MLflow run {run_id} was deleted. Restore it (mlflow runs restore --run-id {run_id}), or, {remedy}"
        )
    return run


def _experiment_id(api: MlflowApi, experiment: str | None, project: str) -> str:
    name = experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME")
    if name is None and (known := os.environ.get("MLFLOW_EXPERIMENT_ID")):
        return known
    name = TITLES.escape(name or project)
    found = api.find_experiment(name)
    if found is not None:
        return found
    try:
        return api.create_experiment(name)
    except RefusalError as refusal:
        if refusal.code != "RESOURCE_ALREADY_EXISTS":
            raise
        raise RetryableError(f"another process has just made the experiment {name!r}") from refusal


def _create(api: MlflowApi, facts: RunFacts, experiment_id: str) -> RemoteRun:
    tags = {RUN_UUID_TAG: facts.run_uuid, "tracelet.run_id": facts.run_id, "mlflow.source.type": "LOCAL"}
    name = TITLES.escape(facts.run_name)
    if name != facts.run_name:
        tags["tracelet.run_name"] = facts.run_name
    if facts.run_program:
        tags["mlflow.source.name"] = Path(facts.run_program).name
    try:
        tags["mlflow.user"] = getpass.getuser()
    except (OSError, KeyError) as error:  # A container's user may have no name.
        logger.debug("the user's name is not known: %s", error)
    tags = {key: cut(storable(value), MAX_TAG_CHARS) for key, value in tags.items() if value}
    return api.create_run(experiment_id, name, round(facts.run_created_s * 1000), tags)


def read_series(api: MlflowApi, run_id: str, name: str) -> list[StoredPoint]:
    """The points of a metric that MLflow has, from all pages of its history."""
    points: list[StoredPoint] = []
    page: str | None = None
    while True:
        found, page = api.history(run_id, KEYS.escape(name), page)
        for _, value, timestamp_ms, step in found:
            true_value = math.copysign(math.inf, value) if abs(value) == MAX_FLOAT else value
            points.append(StoredPoint(step, true_value, timestamp_ms / 1000))
        if page is None:
            return points
