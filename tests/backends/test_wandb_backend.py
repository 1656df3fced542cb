"""What is special about Weights & Biases: files, `wandb sync`, resuming, crashes of its parts, keys, what it shows."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.backends import wandb_files
from tests.backends.wandb_service import KEY, WandbService, core_of, kill_core
from tracelet import Experiment
from tracelet.backends._wandb.log import TransactionLog
from tracelet.backends.wandb_backend import WandbBackend
from tracelet.core.changes import ChangeKind
from tracelet.core.records import (
    DEFINE_PREFIX,
    DESCRIPTION_NAME,
    GIT_COMMIT_NAME,
    STATUS_NAME,
    TAG_PREFIX,
    MetricData,
    MetricType,
)
from tracelet.errors import PartialDeliveryError, PermanentError, RejectedError, RetryableError

TIME_S = 1_750_000_000.125


@pytest.fixture(autouse=True)
def own_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture
def service() -> Iterator[WandbService]:
    with WandbService() as service:
        yield service


@pytest.fixture
def online(service: WandbService) -> dict[str, Any]:
    return {"base_url": service.url, "api_key": KEY, "timeout_s": 5, "finish_timeout_s": 20}


@pytest.fixture
def facts(tmp_path: Path) -> dict[str, Any]:
    state_dir = tmp_path / "state"
    state_dir.mkdir()
    identity = {"run_name": "digits", "run_id": "run1", "run_uuid": uuid.uuid4().hex, "run_project": "vision"}
    return {**identity, "run_created_s": TIME_S, "run_dir": tmp_path, "state_dir": state_dir}


@pytest.fixture
def begin(facts: dict[str, Any]) -> Iterator[Callable[..., WandbBackend]]:
    """Starts a backend of the same run."""
    made = []

    def start(**settings: Any) -> WandbBackend:
        made.append(WandbBackend())
        made[-1].initialize({**facts, **settings})
        made[-1].start()
        return made[-1]

    yield start
    for backend in made:
        if backend._process is not None:
            backend._process.kill()


@pytest.fixture
def stored(tmp_path: Path) -> Callable[[], wandb_files.Stored]:
    return lambda: wandb_files.read(wandb_files.files_of(tmp_path))


def scalars(*values: float, name: str = "loss", first_step: int = 0) -> list[MetricData]:
    return [
        MetricData(name, value, MetricType.SCALAR, first_step + index, TIME_S + first_step + index)
        for index, value in enumerate(values)
    ]


def custom(name: str, value: Any, **metadata: Any) -> MetricData:
    return MetricData(name, value, MetricType.CUSTOM, None, TIME_S, None, metadata or None)


def run_sync(service: WandbService, folder: Path) -> None:
    """The command that users type."""
    environment = {**os.environ, "WANDB_BASE_URL": service.url, "WANDB_API_KEY": KEY}
    command = [sys.executable, "-m", "wandb", "sync", str(folder)]
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# -- rows --------------------------------------------------------------------------------------------------------------


def test_values_of_one_step_and_time_share_a_row_and_no_value_hides_another(begin, stored):
    backend = begin()
    backend.handle_batch(
        [
            MetricData("a", 1.0, MetricType.SCALAR, 0, TIME_S),
            MetricData("b", 2.0, MetricType.SCALAR, 0, TIME_S),
            MetricData("a", 3.0, MetricType.SCALAR, 0, TIME_S),  # The same series again.
            MetricData("b", 4.0, MetricType.SCALAR, 1, TIME_S),  # Another step.
            MetricData("a", 5.0, MetricType.SCALAR, 1, TIME_S + 0.002),  # Another time.
            MetricData("c", 6.0, MetricType.SCALAR, None, TIME_S + 0.002),  # No step.
        ]
    )
    backend.stop()
    own = ("_step", "_runtime")
    rows = [{key: value for key, value in row.items() if key not in own} for row in stored().rows]
    assert rows == [
        {"_timestamp": TIME_S, "tracelet/step": 0, "a": 1, "b": 2},
        {"_timestamp": TIME_S, "tracelet/step": 0, "a": 3},
        {"_timestamp": TIME_S, "tracelet/step": 1, "b": 4},
        {"_timestamp": TIME_S + 0.002, "tracelet/step": 1, "a": 5},
        {"_timestamp": TIME_S + 0.002, "c": 6},
    ]


def test_a_series_with_its_own_x_axis_has_it_in_its_rows_also_after_a_restart(begin, stored):
    backend = begin()
    backend.handle_batch([custom(DEFINE_PREFIX + "loss", {"step": "epoch"})])
    backend.stop()
    backend = begin()
    backend.handle_batch([*scalars(7.0, name="epoch"), *scalars(0.5, first_step=1)])
    backend.stop()
    found = stored()
    assert "tracelet/axis/epoch" == found.definitions["loss"].step_metric
    assert [(7, None, None), (None, 0.5, 7)] == [
        (row.get("epoch"), row.get("loss"), row.get("tracelet/axis/epoch")) for row in found.rows
    ]


def test_every_series_has_the_step_as_its_x_axis(begin, stored):
    begin().stop()
    assert "tracelet/step" == stored().definitions["*"].step_metric


def test_records_are_in_the_file_when_the_call_returns(begin, stored):
    backend = begin()
    core = core_of(backend)
    delivery = threading.Thread(target=backend.handle_batch, args=[scalars(0.5, 0.25)])
    os.kill(core, signal.SIGSTOP)
    delivery.start()
    delivery.join(1.0)
    assert delivery.is_alive()
    os.kill(core, signal.SIGCONT)
    delivery.join()
    assert [0.5, 0.25] == [row["loss"] for row in stored().rows]


def test_reserved_and_changed_names_are_told_in_the_configuration(begin, stored):
    names = ["_step", "_timestamp", "tracelet/step", "tracelet/name/a", "y" * 400, 'quo"te', "x" * 130 + "日" * 100]
    backend = begin()
    backend.handle_batch([MetricData(name, 1.0, MetricType.SCALAR, 0, TIME_S) for name in names])
    backend.stop()
    assert sorted(names) == sorted(point[0] for point in wandb_files.points(stored()))
    for name in names:
        (change,) = backend.plan(MetricData(name, 1.0, MetricType.SCALAR, 0))
        assert change.kind is ChangeKind.RENAMED
        assert name == stored().config[f"tracelet/original/{change.becomes}"]


# -- parameters, tags, facts -------------------------------------------------------------------------------------------


def test_long_parameter_is_whole_and_a_later_value_replaces_an_earlier(begin, stored):
    backend = begin()
    backend.handle_batch([MetricData("text", "x" * 7_000, MetricType.PARAMETER), *scalars(1.0)])
    backend.handle_batch([MetricData("lr", value, MetricType.PARAMETER) for value in (0.1, 0.2)])
    backend.stop()
    assert ("x" * 7_000, 0.2) == (stored().config["text"], stored().config["lr"])


def test_parameter_that_is_no_number_of_json_is_a_text_as_planned(begin, stored):
    record = MetricData("limits", {"low": float("-inf"), "high": [float("nan"), 1.5]}, MetricType.PARAMETER)
    backend = begin()
    backend.handle_batch([record])
    backend.stop()
    assert {"low": "-inf", "high": ["nan", 1.5]} == stored().config["limits"]
    assert [ChangeKind.CHANGED] == [change.kind for change in backend.plan(record)]


def test_tags_description_and_commit_are_where_wandb_shows_them(begin, stored, facts):
    backend = begin(group="night", job_type="train", notes="before")
    tags = {"baseline": "", "team": "vision", "w" * 65: ""}
    backend.handle_batch([custom(TAG_PREFIX + key, value) for key, value in tags.items()])
    backend.handle_batch([custom(DESCRIPTION_NAME, "what it is about"), custom(GIT_COMMIT_NAME, "0" * 40)])
    backend.stop()
    found, run = stored(), stored().runs[-1]
    assert (["baseline"], "what it is about", "night", "train") == (
        list(run.tags),
        run.notes,
        run.run_group,
        run.job_type,
    )
    assert ("digits", "vision", facts["run_uuid"]) == (run.display_name, run.project, run.run_id)
    assert ("vision", "", "0" * 40) == (
        found.config["tracelet/tag/team"], found.config["tracelet/tag/" + "w" * 65], found.config[GIT_COMMIT_NAME]
    )  # fmt: skip
    assert [[], [], [ChangeKind.CHANGED]] == [
        [change.kind for change in backend.plan(custom(TAG_PREFIX + key, value))] for key, value in
        {"baseline": "", "finished": "", "team": "vision"}.items()
    ]  # fmt: skip


@pytest.mark.parametrize(("status", "code"), [("finished", 0), ("failed", 1), ("killed", 255)])
def test_status_is_the_exit_code_and_its_word_is_in_the_summary(begin, service, online, facts, status, code):
    backend = begin(**online)
    backend.handle_batch([*scalars(1.0), custom(STATUS_NAME, status, error="Traceback: no")])
    backend.stop()
    run = service.runs[facts["run_uuid"]]
    assert ([code], status) == (run.exits, run.summary[STATUS_NAME])
    assert "Traceback: no" == run.summary["tracelet/error"]


@pytest.mark.parametrize("last", [[], [custom(STATUS_NAME, "failed"), *scalars(2.0, first_step=1)]])
def test_a_run_that_goes_on_elsewhere_is_not_marked_as_ended(begin, service, online, facts, last):
    backend = begin(**online)
    backend.handle_batch([*scalars(1.0), *last])
    backend.stop()
    run = service.runs[facts["run_uuid"]]
    assert (1.0, []) == (run.rows[0]["loss"], run.exits)


# -- media and artifacts -----------------------------------------------------------------------------------------------


def test_media_and_artifacts_arrive_with_their_files(begin, service, online, facts, tmp_path):
    from PIL import Image

    picture, model, sound = tmp_path / "p.png", tmp_path / "model", tmp_path / "s.wav"
    Image.new("RGB", (4, 3)).save(picture)
    model.mkdir()
    (model / "weights.bin").write_bytes(b"weights")
    sound.write_bytes(b"RIFF....WAVE")
    backend = begin(**online)
    backend.handle_batch(
        [
            MetricData("a/picture", str(picture), MetricType.IMAGE, 1, TIME_S, None, {"caption": "a cat"}),
            MetricData("sound", str(sound), MetricType.AUDIO, 1, TIME_S),
            MetricData("text", "a < b", MetricType.TEXT, 1, TIME_S),
            MetricData("table", {"columns": ["a", "b"], "rows": [[1, "x"], [None, 2]]}, MetricType.TABLE, 1, TIME_S),
            MetricData("counts", {"edges": [0.0, 1.0, 2.0], "counts": [3.0, 4.0]}, MetricType.HISTOGRAM, 1, TIME_S),
            MetricData("my model/é", str(model), MetricType.ARTIFACT, 5, TIME_S, None, {"type": "model"}),
            custom(STATUS_NAME, "finished"),
        ]
    )
    backend.stop()
    (row,) = service.runs[facts["run_uuid"]].rows
    assert ("a cat", 4, 3) == (row["a/picture"]["caption"], row["a/picture"]["width"], row["a/picture"]["height"])
    assert picture.read_bytes() == service.uploads[row["a/picture"]["path"]]
    assert sound.read_bytes() == service.uploads[row["sound"]["path"]]
    assert b"<pre>a &lt; b</pre>" == service.uploads[row["text"]["path"]]
    table = json.loads(service.uploads[row["table"]["path"]])
    assert (["a", "b"], [[1, "x"], [None, 2]]) == (table["columns"], table["data"])
    assert ([0, 1, 2], [3, 4]) == (row["counts"]["bins"], row["counts"]["values"])
    assert b"weights" in service.uploads.values()
    assert [("my_x0020_model_x002F__x00E9_", "model")] == [
        (made["artifactCollectionName"], made["artifactTypeName"])
        for made in service.artifacts
        if made["artifactTypeName"] != "run_table"
    ]


def test_a_picture_that_wandb_cannot_show_is_an_artifact_as_planned(begin, stored, tmp_path):
    drawing = tmp_path / "d.svg"
    drawing.write_text("<svg/>")
    record = MetricData("drawing", str(drawing), MetricType.IMAGE, 1, TIME_S)
    backend = begin()
    assert [ChangeKind.CHANGED] == [change.kind for change in backend.plan(record)]
    backend.handle_batch([record])
    backend.stop()
    (artifact,) = stored().artifacts
    assert ("drawing", "image", ["d.svg"]) == (
        artifact.name, artifact.type, [entry.path for entry in artifact.manifest.contents]
    )  # fmt: skip


def test_a_file_that_is_gone_or_broken_is_rejected_and_the_records_before_it_are_stored(begin, stored, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    backend = begin()
    for path, why in ((tmp_path / "broken.png", "can't take the image"), (tmp_path / "gone.png", "not in the run")):
        with pytest.raises(PartialDeliveryError) as caught:
            backend.handle_batch(
                [*scalars(1.0), MetricData("p", str(path), MetricType.IMAGE, 0, TIME_S), *scalars(2.0)]
            )
        assert 1 == caught.value.delivered
        assert isinstance(caught.value.__cause__, RejectedError)
        assert why in str(caught.value.__cause__)
    assert [1.0, 1.0] == [row["loss"] for row in stored().rows]


def test_histogram_of_too_many_bins_keeps_its_sum_and_range(begin, stored):
    value = {"edges": [float(edge) for edge in range(1301)], "counts": [1.0] * 1300, "nan": 2, "inf": 0}
    record = MetricData("counts", value, MetricType.HISTOGRAM, 0, TIME_S)
    backend = begin()
    backend.handle_batch([record])
    backend.stop()
    (row,) = stored().rows
    assert (1300, 0, 1300) == (sum(row["counts"]["values"]), row["counts"]["bins"][0], row["counts"]["bins"][-1])
    assert {ChangeKind.CHANGED, ChangeKind.CUT} == {change.kind for change in backend.plan(record)}


# -- offline, then `wandb sync` ----------------------------------------------------------------------------------------


def test_wandb_sync_brings_all_files_of_a_resumed_run_into_one_run(begin, service, facts, tmp_path):
    for first_step, status in ((0, "failed"), (2, "finished")):
        backend = begin()
        backend.handle_batch([custom(TAG_PREFIX + f"from {first_step}", "")])
        backend.handle_batch([MetricData("lr", 0.1 + first_step, MetricType.PARAMETER)])
        backend.handle_batch([*scalars(float("nan"), 2.5, first_step=first_step), custom(STATUS_NAME, status)])
        backend.stop()
    for file in wandb_files.files_of(tmp_path):
        run_sync(service, file.parent)
    assert [facts["run_uuid"]] == list(service.runs)
    run = service.runs[facts["run_uuid"]]
    assert [0, 1, 2, 3] == [row["_step"] for row in run.rows] == [row["tracelet/step"] for row in run.rows]
    assert ["nan", "2.5", "nan", "2.5"] == [str(row["loss"]) for row in run.rows]
    assert ([1, 0], ["from 0", "from 2"], 2.1) == (run.exits, run.tags, run.config["lr"])


def test_read_back_gives_the_points_of_all_files_and_opens_none(begin, facts, tmp_path):
    for first_step in (0, 2):
        backend = begin()
        backend.handle_batch(scalars(1.0, float("inf"), first_step=first_step))
        backend.stop()
    later = WandbBackend()
    later.initialize(facts)
    expected = [(step, value, TIME_S + step) for step, value in enumerate((1.0, float("inf")) * 2)]
    assert expected == later.read_back("loss")
    assert 2 == len(wandb_files.files_of(tmp_path)) == len(backend.get_status()["files"])
    assert (None, "offline") == (backend.get_url(), backend.get_status()["mode"])


def test_read_back_of_an_ended_run_asks_the_service_and_leaves_the_run_ended(begin, service, online, facts):
    backend = begin(**online)
    backend.handle_batch([*scalars(1.0, float("nan")), custom(STATUS_NAME, "finished")])
    backend.stop()
    later = WandbBackend()
    later.initialize({**facts, **online})
    first, second = later.read_back("loss")
    assert (0, 1.0, TIME_S) == first
    assert (1, "nan", TIME_S + 1) == (second.step, str(second.value), second.time_s)
    assert [] == later.read_back("of no such series")
    assert ([0], 1) == (service.runs[facts["run_uuid"]].exits, service.operations["RunResumeStatus"])
    assert f"{service.url}/team/vision/runs/{facts['run_uuid']}" == backend.get_url()


# -- crashes -----------------------------------------------------------------------------------------------------------


def test_wandb_core_that_is_killed_amid_a_run_costs_no_record(tmp_path):
    backend = WandbBackend()
    with Experiment("digits", backend=backend) as experiment:
        for step in range(3_000):
            experiment.log_metric("loss", float(step), step)
            if step in (1_000, 2_000):
                experiment.flush()
                kill_core(backend)
    points = wandb_files.points(wandb_files.read(wandb_files.files_of(tmp_path)))
    kept = sorted({(step, value) for name, step, value, _ in points if name == "loss"})
    assert [(step, float(step)) for step in range(3_000)] == kept


def test_rows_that_a_killed_wandb_core_did_not_bring_to_the_service_are_sent_at_the_next_start(
    begin, service, online, facts
):
    backend = begin(**online)
    backend.handle_batch(scalars(*map(float, range(10))))
    backend.stop()
    service.loses_rows = 503
    backend = begin(**online)
    backend.handle_batch([*scalars(*map(float, range(10, 20)), first_step=10)])
    kill_core(backend)
    backend._process.kill()
    service.loses_rows = None
    backend = begin(**online)
    backend.handle_batch([*scalars(20.0, first_step=20), custom(STATUS_NAME, "finished")])
    backend.stop()
    rows = service.runs[facts["run_uuid"]].rows
    assert [float(step) for step in range(21)] == [row["loss"] for row in rows]
    assert list(range(21)) == [row["_step"] for row in rows]
    assert [TIME_S + step for step in range(21)] == [row["_timestamp"] for row in rows]


def test_a_process_of_the_sdk_that_is_killed_is_started_again(begin, stored):
    backend = begin()
    backend.handle_batch(scalars(1.0))
    os.kill(backend._process.pid, signal.SIGKILL)
    with pytest.raises(RetryableError):
        backend.handle_batch(scalars(2.0, first_step=1))
    backend.handle_batch(scalars(2.0, first_step=1))
    backend.stop()
    assert [1.0, 2.0] == [row["loss"] for row in stored().rows]


def test_a_wandb_core_of_the_users_own_is_left_to_him(begin, stored, monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_SERVICE", f"1-unix-{tmp_path / 'socket-of-another-core'}")
    begin().handle_batch(scalars(1.0))
    assert [1.0] == [row["loss"] for row in stored().rows]


# -- keys and modes ----------------------------------------------------------------------------------------------------


def test_without_a_key_a_run_is_offline(begin):
    assert "offline" == begin().get_status()["mode"]


def test_with_a_key_that_wandb_finds_a_run_is_online(begin, service, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", service.url)
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    status = begin().get_status()
    assert ("online", "theirs", "team") == (status["mode"], status["project"], status["entity"])


def test_wandb_mode_and_dir_are_obeyed(begin, service, monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "there"))
    status = begin().get_status()
    assert "offline" == status["mode"]
    assert [str(file) for file in wandb_files.files_of(tmp_path / "there")] == status["files"]


@pytest.mark.parametrize(("mode", "says"), [("disabled", "WANDB_MODE to online or offline"), ("online", "wandb login")])
def test_a_mode_in_which_nothing_can_be_delivered_ends_the_delivery(begin, monkeypatch, mode, says):
    monkeypatch.setenv("WANDB_MODE", mode)
    with pytest.raises(PermanentError, match=says):
        begin()


def test_a_key_that_is_refused_ends_the_delivery_and_a_service_that_is_away_does_not(begin, service, online):
    service.refuse = 401
    with pytest.raises(PermanentError, match="wandb login"):
        begin(**online)
    service.refuse = 503
    with pytest.raises(RetryableError, match="can't be reached"):
        begin(**{**online, "timeout_s": 2})


def test_the_key_is_in_no_file(begin, service, online, tmp_path):
    backend = begin(**online)
    backend.handle_batch([*scalars(1.0), custom(STATUS_NAME, "finished")])
    command = Path(f"/proc/{backend._process.pid}/cmdline").read_bytes()
    environment = Path(f"/proc/{core_of(backend)}/environ").read_bytes()
    backend.stop()
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert any(file.suffix == ".wandb" for file in files)
    assert not any(KEY.encode() in text for text in (command, environment, *(file.read_bytes() for file in files)))
    assert KEY not in repr(WandbBackend.__dict__) + repr(backend.get_status())


def test_a_wrong_setting_names_the_remedy_and_no_value():
    with pytest.raises(ValueError, match="api_keys: there is no such setting") as caught:
        WandbBackend.validate_config({"api_keys": "secret"})
    assert "secret" not in str(caught.value)


def test_a_file_that_is_still_written_is_read_on_where_it_ended(begin, stored, tmp_path):
    backend = begin()
    backend.handle_batch(scalars(*map(float, range(2_000))))
    backend.stop()
    (file,) = wandb_files.files_of(tmp_path)
    data, growing = file.read_bytes(), tmp_path / "growing.wandb"
    growing.write_bytes(b"")
    log, kinds = TransactionLog(growing), []
    for end in [0, 3, 7, 9, *range(1_000, len(data), 7_919), len(data)]:
        growing.write_bytes(data[:end])
        kinds += [record.WhichOneof("record_type") for record in log.read()]
    assert len(list(wandb_files.messages(file))) == len(kinds)
    assert 2_000 == kinds.count("history")


def test_a_record_that_is_only_half_written_is_read_when_it_is_whole(begin, tmp_path):
    begin().stop()
    (file,) = wandb_files.files_of(tmp_path)
    data, count = file.read_bytes(), len(list(wandb_files.messages(file)))
    torn = tmp_path / "torn.wandb"
    torn.write_bytes(data[:-3] + b"\x00\x00\x00")
    log = TransactionLog(torn)
    assert count - 1 == len(list(log.read()))
    torn.write_bytes(data)
    assert 1 == len(list(log.read()))
