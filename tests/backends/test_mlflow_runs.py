"""One run of ours is one run of MLflow's: found, resumed, ended, deleted; and the user's own MLflow is left alone."""

# ruff: noqa: F811  The fixtures are imported.

from __future__ import annotations

import os
import shutil
from pathlib import Path

import mlflow
import pytest

from tests.backends.mlflow_support import (  # noqa: F401 - imported fixtures
    QUIET,
    TIME_MS,
    TIME_S,
    Remote,
    database,
    end,
    make_remote,
    param,
    remote,
    scalar,
)
from tracelet.backends.mlflow_backend import MLflowBackend
from tracelet.core.records import MetricData, MetricType
from tracelet.delivery.state import RemoteState
from tracelet.errors import PermanentError, SettingsError

pytestmark = QUIET


def started(config: dict[str, object]) -> MLflowBackend:
    backend = MLflowBackend()
    backend.initialize(config)
    backend.start()
    return backend


@pytest.mark.parametrize(("status", "shown"), [("finished", "FINISHED"), ("failed", "FAILED"), ("killed", "KILLED")])
def test_a_run_is_shown_as_it_ended_and_when(remote: Remote, status: str, shown: str):
    backend = remote.start()
    assert ("RUNNING", TIME_MS) == (remote.run.info.status, remote.run.info.start_time)
    backend.handle_batch([scalar("a", 1.0), end(status, error="Traceback: boom" if status == "failed" else None)])
    backend.stop()
    assert (shown, TIME_MS + 60_000) == (remote.run.info.status, remote.run.info.end_time)
    assert remote.run.data.tags.get("tracelet.error") == ("Traceback: boom" if status == "failed" else None)


def test_a_run_that_stops_without_an_end_stays_running(remote: Remote):
    remote.deliver(scalar("a", 1.0))
    assert remote.run.info.status == "RUNNING"


def test_the_end_of_an_earlier_attempt_is_not_the_end(remote: Remote):
    backend = remote.start()
    backend.handle_batch([end("failed"), scalar("a", 1.0)])
    assert remote.run.info.status == "RUNNING"
    backend.handle_batch([end("failed")])
    assert remote.run.info.status == "FAILED"
    backend.handle_batch([scalar("a", 1.0, 1)])
    assert remote.run.info.status == "RUNNING"
    backend.handle_batch([end("finished", TIME_S + 90)])
    assert ("FINISHED", TIME_MS + 90_000) == (remote.run.info.status, remote.run.info.end_time)


def test_a_run_that_is_resumed_is_shown_as_running(remote: Remote):
    remote.deliver(end("killed"))
    backend = remote.start()
    assert remote.run.info.status == "RUNNING"
    backend.handle_batch([scalar("a", 1.0)])
    backend.stop()
    assert remote.run.info.status == "RUNNING"


def test_to_send_nothing_more_leaves_the_end_as_it_was(remote: Remote):
    remote.deliver(end("killed"))
    remote.deliver()
    assert ("KILLED", TIME_MS + 60_000) == (remote.run.info.status, remote.run.info.end_time)


def test_a_run_is_found_again_after_its_state_was_lost(remote: Remote):
    remote.deliver(scalar("a", 1.0, 0), param("lr", 0.1))
    shutil.rmtree(remote.config["state_dir"])
    remote.deliver(scalar("a", 2.0, 1), param("lr", 0.2))
    assert remote.points("a") == [(0, 1.0), (1, 2.0)]  # `remote.run` also sees to it that there is one run.
    assert remote.run.data.tags["tracelet.param_drift.lr"] == "0.2"


def test_two_runs_of_one_name_are_two(remote: Remote):
    remote.deliver(scalar("a", 1.0))
    first = remote.run.info.run_id
    remote.config |= {"run_uuid": "f" * 32, "state_dir": Path("elsewhere")}
    remote.deliver(scalar("a", 1.0))
    assert remote.run.info.run_id != first


def test_a_deleted_run_says_how_to_mend_it_and_goes_on_when_it_is_restored(remote: Remote):
    remote.deliver(scalar("a", 1.0))
    run_id = remote.run.info.run_id
    remote.client.delete_run(run_id)
    with pytest.raises(PermanentError, match=f"was deleted. Restore it .mlflow runs restore --run-id {run_id}"):
        remote.start()
    remote.client.restore_run(run_id)
    remote.deliver(scalar("a", 2.0, 1))
    assert remote.points("a") == [(0, 1.0), (1, 2.0)]


def test_a_run_that_is_in_another_database_is_not_begun_anew(remote: Remote, tmp_path: Path):
    remote.deliver(scalar("a", 1.0))
    with pytest.raises(PermanentError, match=r"has no run .* Set tracking_uri to its place, or, to send everything"):
        remote.start(tracking_uri=f"sqlite:///{tmp_path / 'other.db'}")


def test_experiment_that_was_deleted_is_said(remote: Remote):
    remote.config["experiment"] = "to be deleted"
    remote.client.delete_experiment(remote.client.create_experiment("to be deleted"))
    with pytest.raises(PermanentError, match="must be in the 'active' state"):
        remote.start()


def test_names_that_are_too_long_for_the_database_or_empty_are_no_obstacle(remote: Remote):
    remote.config |= {"run_name": "n" * 400, "run_project": "p\0" * 300}
    remote.deliver(scalar("a", 1.0))
    run = remote.run
    assert (250, "n" * 400) == (len(run.info.run_name), run.data.tags["tracelet.run_name"])
    assert len(remote.client.get_experiment(run.info.experiment_id).name) == 250


# -- where to, and the user's own MLflow -------------------------------------------------------------------------------


@pytest.fixture
def config(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Without any setting."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    return {name: value for name, value in remote.config.items() if name not in ("tracking_uri", "timeout_s")}


def test_without_settings_the_working_directory_has_the_database_that_mlflow_ui_shows(
    config: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    backend = started(config)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")  # A training may do so.
    (tmp_path / "note.txt").write_text("note")
    backend.handle_batch([MetricData("note.txt", str(tmp_path / "note.txt"), MetricType.ARTIFACT, None, TIME_S)])
    backend.stop()
    restarted = started(config)  # As `tracelet sync`, a month later and somewhere else.
    restarted.stop()
    monkeypatch.chdir(tmp_path)
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    run_id = str(restarted.get_status()["run_id"])
    assert backend.get_status()["run_id"] == run_id
    assert [file.path for file in client.list_artifacts(run_id)] == ["note.txt"]
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} >= {"mlflow.db", "mlruns"}


def test_environment_variables_of_mlflow_count_and_settings_win(
    config: dict[str, object], database: str, monkeypatch: pytest.MonkeyPatch
):
    client = mlflow.MlflowClient(database)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    for environment, settings, expected in [
        ({"MLFLOW_EXPERIMENT_NAME": "by name"}, {}, "by name"),
        ({"MLFLOW_EXPERIMENT_ID": client.create_experiment("by id")}, {}, "by id"),
        ({"MLFLOW_EXPERIMENT_NAME": "by name"}, {"experiment": "by setting"}, "by setting"),
    ]:
        shutil.rmtree(str(config["state_dir"]), ignore_errors=True)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            backend = started(config | settings | {"run_uuid": os.urandom(16).hex()})
        backend.stop()
        assert client.get_experiment(str(backend.get_status()["experiment_id"])).name == expected


def test_the_users_own_mlflow_is_left_alone(remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    theirs = f"sqlite:///{tmp_path / 'theirs.db'}"
    monkeypatch.setattr("mlflow.tracking._tracking_service.utils._tracking_uri", None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", theirs)
    with mlflow.start_run() as run:
        mlflow.log_metric("theirs", 1.0)
        remote.deliver(scalar("ours", 1.0), param("lr", 0.1), end("finished"))
        active = mlflow.active_run()
        assert active is not None
        assert active.info.run_id == run.info.run_id
        assert mlflow.get_tracking_uri() == theirs
        mlflow.log_metric("theirs", 2.0, 1)
    found = mlflow.MlflowClient(theirs).get_run(run.info.run_id)
    assert ({"theirs": 2.0}, {}) == (found.data.metrics, found.data.params)
    assert remote.run.data.metrics == {"ours": 1.0}


def test_credentials_are_neither_shown_nor_kept(remote: Remote):
    backend = MLflowBackend()
    address = "http://me:secret@127.0.0.1:9/mlflow"
    backend.initialize(remote.config | {"tracking_uri": address, "timeout_s": 5.0})
    assert backend.get_status()["tracking_uri"] == "http://127.0.0.1:9/mlflow"
    assert RemoteState(remote.config["state_dir"])["tracking_uri"] is None
    with pytest.raises(Exception, match=r"127\.0\.0\.1") as caught:
        backend.start()
    assert "secret" not in str(caught.value)


def test_wrong_settings_are_said_before_the_training():
    with pytest.raises(
        SettingsError, match="uri: there is no such setting; there are tracking_uri, experiment, timeout_s"
    ):
        MLflowBackend.validate_config({"uri": "x"})
    with pytest.raises(SettingsError, match="timeout_s: Input should be greater than 0"):
        MLflowBackend.validate_config({"timeout_s": 0})


@pytest.mark.parametrize("uri", ["nonsense://x", "file:///tmp/mlruns"])
def test_address_that_mlflow_can_not_use_ends_delivery(remote: Remote, uri: str):
    with pytest.raises(PermanentError, match="MLflow can't use"):
        remote.start(tracking_uri=uri)
