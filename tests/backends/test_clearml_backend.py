"""What is special about ClearML, against a server on loopback: statuses, resuming, errors, media and numbers."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import uuid
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.backends.clearml_service import ClearMLService
from tracelet import Experiment
from tracelet.backends import clearml_backend
from tracelet.backends._clearml import api
from tracelet.backends.clearml_backend import ClearMLBackend
from tracelet.core.changes import ChangeKind
from tracelet.core.records import (
    DESCRIPTION_NAME,
    GIT_COMMIT_NAME,
    STATUS_NAME,
    TAG_PREFIX,
    MetricData,
    MetricType,
)
from tracelet.delivery.retry import Verdict, judge
from tracelet.errors import PermanentError, RejectedError, SettingsError

TIME_S = 1_750_000_000.125
Run = Callable[..., ClearMLBackend]


def record(
    name: str, value: Any, kind: MetricType = MetricType.SCALAR, step: int | None = 0, **metadata: Any
) -> MetricData:
    return MetricData(name, value, kind, step, TIME_S, None, metadata or None)


def custom(name: str, value: Any, **metadata: Any) -> MetricData:
    return record(name, value, MetricType.CUSTOM, None, **metadata)


@pytest.fixture
def service() -> Iterator[ClearMLService]:
    with ClearMLService() as service:
        yield service


@pytest.fixture
def config(service: ClearMLService, tmp_path: Path) -> dict[str, Any]:
    state_dir = tmp_path / "run" / "delivery" / "clearml"
    state_dir.mkdir(parents=True)
    facts = {"run_name": "digits", "run_id": "r1", "run_uuid": uuid.uuid4().hex, "run_project": "vision"}
    return {**facts, "run_created_s": TIME_S, "run_dir": tmp_path / "run", "state_dir": state_dir, **service.settings}


@pytest.fixture
def run(config: dict[str, Any]) -> Iterator[Run]:
    made = []

    def start(*batches: list[MetricData], **settings: Any) -> ClearMLBackend:
        backend = ClearMLBackend()
        made.append(backend)
        backend.initialize({**config, **settings})
        backend.start()
        for batch in batches:
            backend.handle_batch(batch)
        return backend

    yield start
    for backend in made:
        backend.stop()


# -- numbers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "tag"), [(math.nan, "NaN"), (math.inf, "infinite"), (-math.inf, "infinite"), (-1e39, "too large")]
)
def test_a_number_that_clearml_lacks_is_no_point_but_a_console_line_and_a_tag(
    run: Run, service: ClearMLService, value: float, tag: str
):
    backend = run([record("train/loss", 0.5, step=6), record("train/loss", value, step=7)])
    assert [(6, 0.5)] == [(event["iter"], event["value"]) for event in service.events.values()]
    assert [("WARNING", f"train/loss is {value} at step 7", 1_750_000_000_125)] == [
        (line["level"], line["msg"], line["timestamp"]) for line in service.logs
    ]
    assert [tag] == service.only_task()["tags"]
    (change,) = backend.plan(record("train/loss", value, step=7))
    assert change.kind is ChangeKind.DROPPED
    assert f"train/loss is {value} at step 7" in str(change.becomes)


def test_train_and_validation_of_one_metric_are_one_plot(run: Run, service: ClearMLService):
    run([record("train/loss", 1.0), record("val/loss", 2.0), record("lr", 3.0)])
    curves = [(event["metric"], event["variant"]) for event in service.events.values()]
    assert [("loss", "train"), ("loss", "val"), ("lr", "lr")] == curves


def test_names_that_the_server_would_take_for_one_are_told_apart(run: Run, service: ClearMLService):
    run([record("b-c/a", 1.0), record("c/a-b", 2.0)])
    assert [1.0, 2.0] == [event["value"] for event in service.events.values()]
    assert {"a_x002D_b | c": "c/a-b"} == {
        name: param["value"] for name, param in service.only_task()["hyperparams"]["Tracelet names"].items()
    }


def test_the_true_name_is_sent_once(run: Run, service: ClearMLService):
    run(*[[record("a-b", 1.0, step=step)] for step in range(3)])
    assert 1 == service.calls.count("tasks.edit_hyper_params")


def test_the_true_names_of_a_run_with_too_many_are_kept_up_to_a_limit(
    run: Run, service: ClearMLService, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(clearml_backend, "_MAX_NAMES", 2)
    run(*[[record(f"a-{number}", 1.0)] for number in range(5)])
    assert 2 == len(service.only_task()["hyperparams"]["Tracelet names"])
    assert 5 == len(service.events)


def test_a_batch_that_is_too_large_for_one_request_goes_in_pieces(
    run: Run, service: ClearMLService, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(api, "_MAX_BODY_BYTES", 1000)
    run([record("a", float(step), step=step) for step in range(20)])
    assert list(range(20)) == [event["iter"] for event in service.events.values()]
    assert 2 < service.calls.count("events.add_batch") < 20


# -- the task ----------------------------------------------------------------------------------------------------------


def test_a_new_task_says_what_the_run_is(run: Run, service: ClearMLService, config: dict[str, Any]):
    facts = [custom(DESCRIPTION_NAME, "a try"), custom(GIT_COMMIT_NAME, "a" * 40), custom(TAG_PREFIX + "baseline", "")]
    backend = run([*facts, custom(TAG_PREFIX + "team", "vision")], task_type="testing")
    task = service.only_task()
    assert ("digits", "testing", "in_progress", "a try") == (
        task["name"],
        task["type"],
        task["status"],
        task["comment"],
    )
    assert service.projects == {"vision": task["project"]}
    assert {"version_num": "a" * 40} == task["script"]
    assert ["baseline"] == task["tags"]
    properties = {name: param["value"] for name, param in task["hyperparams"]["properties"].items()}
    assert {"tracelet:run": config["run_uuid"], "team": "vision"} == properties
    assert f"{service.url}/projects/{task['project']}/experiments/{task['id']}/output/log" == backend.get_url()


@pytest.mark.parametrize(("status", "shown"), [("finished", "completed"), ("failed", "failed"), ("killed", "stopped")])
def test_the_end_of_the_run_is_the_end_of_the_task(run: Run, service: ClearMLService, status: str, shown: str):
    run([record("a", 1.0)], [custom(STATUS_NAME, status, error="Traceback\nValueError: no\n")]).stop()
    task = service.only_task()
    assert (shown, status, "ValueError: no") == (task["status"], task["status_reason"], task["status_message"])


def test_a_status_with_records_after_it_was_that_of_an_earlier_attempt(run: Run, service: ClearMLService):
    backend = run([custom(STATUS_NAME, "failed"), record("a", 1.0)])
    assert "tasks.failed" not in service.calls
    backend.handle_batch([custom(STATUS_NAME, "killed")])
    assert "stopped" == service.only_task()["status"]
    backend.handle_batch([record("a", 2.0, step=1)])
    backend.stop()
    assert "in_progress" == service.only_task()["status"]


def test_a_status_that_finds_the_server_away_comes_again(run: Run, service: ClearMLService):
    backend = run()
    with service.refusing("tasks.completed", 503), pytest.raises(Exception, match="503") as caught:
        backend.handle_batch([custom(STATUS_NAME, "finished")])
    assert judge(caught.value) is Verdict.RETRY
    backend.handle_batch([custom(STATUS_NAME, "finished")])
    assert "completed" == service.only_task()["status"]


def test_a_run_that_is_started_again_goes_on_with_its_task(run: Run, service: ClearMLService):
    run([record("a", 1.0), custom(TAG_PREFIX + "first", ""), custom(STATUS_NAME, "killed")]).stop()
    service.only_task()["tags"].append("by hand")
    run([record("a", 2.0, step=1), custom(TAG_PREFIX + "second", "")])
    assert "in_progress" == service.only_task()["status"]
    assert ["first", "by hand", "second"] == service.only_task()["tags"]
    assert [0, 1] == [event["iter"] for event in service.events.values()]


def test_a_task_whose_id_was_never_kept_is_found_by_the_run(run: Run, service: ClearMLService, config: dict[str, Any]):
    run([record("a", 1.0)]).stop()
    (config["state_dir"] / "state.json").unlink()
    run([record("a", 2.0, step=1)])
    assert {event["task"] for event in service.events.values()} == {service.only_task()["id"]}


def test_a_deleted_task_is_not_made_anew(run: Run, service: ClearMLService):
    backend = run([record("a", 1.0)])
    service.tasks.clear()
    for again in (lambda: backend.handle_batch([record("a", 1.0, step=1)]), run):
        with pytest.raises(PermanentError, match=r"deleted|is gone"):
            again()
    assert {} == service.tasks


def test_a_published_task_is_left_alone(run: Run, service: ClearMLService):
    run([record("a", 1.0)]).stop()
    service.only_task()["status"] = "published"
    with pytest.raises(PermanentError, match="is published"):
        run()
    assert "published" == service.only_task()["status"]


def test_a_task_that_the_server_stopped_for_its_silence_takes_parameters_again(run: Run, service: ClearMLService):
    backend = run([record("a", 1.0)])
    service.only_task()["status"] = "stopped"
    backend.handle_batch([record("lr", 0.1, MetricType.PARAMETER)])
    task = service.only_task()
    assert ("in_progress", "0.1") == (task["status"], task["hyperparams"]["General"]["lr"]["value"])


def test_a_task_that_was_silent_for_long_is_shown_as_running(
    run: Run, service: ClearMLService, monkeypatch: pytest.MonkeyPatch
):
    backend = run([record("a", 1.0)])
    service.only_task()["status"] = "stopped"
    backend.handle_batch([record("a", 1.0, step=1)])
    assert "stopped" == service.only_task()["status"]
    monkeypatch.setattr(clearml_backend, "_SILENCE_S", 0.0)
    backend.handle_batch([record("a", 1.0, step=2)])
    assert "in_progress" == service.only_task()["status"]


def test_names_that_are_too_short_for_clearml_are_made_longer(run: Run, service: ClearMLService):
    run([record("a", 1.0)], run_name="x", run_project="ml")
    assert (["ml (Tracelet)"], "x (Tracelet)") == (list(service.projects), service.only_task()["name"])


# -- parameters --------------------------------------------------------------------------------------------------------


def test_a_nested_parameter_stands_in_a_section_and_a_long_one_is_whole(run: Run, service: ClearMLService):
    params = {"optimizer/lr": 0.1, "long": "x" * 7000, "a__b/c": True, "properties/x": None, "General/long": [1]}
    run([record(name, value, MetricType.PARAMETER, None) for name, value in params.items()])
    sections = {
        section: {name: (param["value"], param["type"]) for name, param in params.items()}
        for section, params in service.only_task()["hyperparams"].items()
    }
    assert {"lr": ("0.1", "float")} == sections["optimizer"]
    assert ("x" * 7000, "str") == sections["General"]["long"]
    assert ("True", "bool") == sections["General"]["a__b/c"]
    assert ("", "NoneType") == sections["General"]["properties/x"]
    assert ("[1]", "list") == sections["General"]["General/long"]
    assert {"tracelet:run"} == sections["properties"].keys()


def test_no_tag_of_a_user_takes_the_place_of_the_run(run: Run, service: ClearMLService, config: dict[str, Any]):
    run([custom(TAG_PREFIX + "tracelet:run", "mine")])
    properties = {name: param["value"] for name, param in service.only_task()["hyperparams"]["properties"].items()}
    assert {"tracelet:run": config["run_uuid"], "tracelet_x003A_run": "mine"} == properties


# -- media and artifacts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "suffix"), [("IMAGE", ".png"), ("AUDIO", ".wav"), ("VIDEO", ".gif"), ("FIGURE", ".png")]
)
def test_media_are_debug_samples_with_their_files(
    run: Run, service: ClearMLService, tmp_path: Path, kind: str, suffix: str
):
    file = tmp_path / f"0001{suffix}"
    file.write_bytes(b"\x89content")
    batch = [record("samples/cat", str(file), MetricType[kind], 3)]
    run(batch, batch)  # A batch that comes twice is there once.
    (event,) = service.stored("training_debug_image")
    assert ("cat", "samples", 3) == (event["metric"], event["variant"], event["iter"])
    assert {event["url"]: b"\x89content"} == service.files
    assert event["url"].endswith(suffix)
    assert event["url"] == f"{service.url}/{event['key']}"


def test_two_images_of_one_step_and_time_are_two(run: Run, service: ClearMLService, tmp_path: Path):
    for name in ("1.png", "2.png"):
        (tmp_path / name).write_bytes(name.encode())
    run([record("cat", str(tmp_path / name), MetricType.IMAGE) for name in ("1.png", "2.png")])
    assert {b"1.png", b"2.png"} == {service.files[event["url"]] for event in service.stored("training_debug_image")}


def test_a_histogram_is_a_plot_that_also_tells_what_is_in_no_bin(run: Run, service: ClearMLService):
    value = {"edges": [0.0, 0.5, 1.5], "counts": [3.0, 4.0], "nan": 2, "inf": 0}
    run([record("weights", value, MetricType.HISTOGRAM, 5)])
    (event,) = service.stored("plot")
    plot = json.loads(event["plot_str"])
    assert ("weights", 5) == (event["metric"], event["iter"])
    assert ([0.25, 1.0], [3.0, 4.0], [0.5, 1.0]) == tuple(plot["data"][0][key] for key in ("x", "y", "width"))
    assert "not shown: 2 NaN" in plot["layout"]["title"]


def test_a_table_is_a_plot_of_valid_json(run: Run, service: ClearMLService):
    value = {"columns": ["a", "b"], "rows": [[1, math.nan], [2, None]], "rows_total": 5}
    run([record("results", value, MetricType.TABLE)])
    plot = json.loads(service.stored("plot")[0]["plot_str"], parse_constant=pytest.fail)
    assert [[1, 2], ["nan", None]] == plot["data"][0]["cells"]["values"]
    assert ["a", "b"] == plot["data"][0]["header"]["values"]
    assert "results (2 of 5 rows)" == plot["layout"]["title"]


def test_a_figure_of_plotly_is_drawn_by_clearml(run: Run, service: ClearMLService, tmp_path: Path):
    file = tmp_path / "0001.plotly.json"
    file.write_text('{"data": []}')
    run([record("roc", str(file), MetricType.FIGURE, 2)])
    assert ['{"data": []}'] == [event["plot_str"] for event in service.stored("plot")]
    assert {} == service.files


def test_an_artifact_has_its_bytes_hash_size_and_type(run: Run, service: ClearMLService, tmp_path: Path):
    file = tmp_path / "model.bin"
    content = bytes(range(256)) * 20_000  # 5 MB: more than one read.
    file.write_bytes(content)
    run([record("best/model", str(file), MetricType.ARTIFACT, None, type="model")])
    (artifact,) = service.only_task()["execution"]["artifacts"]
    assert ("best/model", "model", "output") == (artifact["key"], artifact["type"], artifact["mode"])
    assert (len(content), hashlib.sha256(content).hexdigest()) == (artifact["content_size"], artifact["hash"])
    assert content == service.files[artifact["uri"]]
    assert 1_750_000_000 == artifact["timestamp"]


def test_a_directory_is_a_zip(run: Run, service: ClearMLService, config: dict[str, Any], tmp_path: Path):
    (tmp_path / "data" / "inner").mkdir(parents=True)
    (tmp_path / "data" / "inner" / "a.txt").write_text("one")
    run([record("data", str(tmp_path / "data"), MetricType.ARTIFACT, None)])
    (artifact,) = service.only_task()["execution"]["artifacts"]
    with zipfile.ZipFile(io.BytesIO(service.files[artifact["uri"]])) as archive:
        assert ["inner/a.txt"] == archive.namelist()
        assert b"one" == archive.read("inner/a.txt")
    assert ("archive", True) == (artifact["type"], "inner/a.txt - 3 bytes" in artifact["type_data"]["preview"])
    assert ["state.json"] == [path.name for path in config["state_dir"].iterdir()]


def test_a_tensor_of_each_step_is_an_artifact_of_its_own(run: Run, service: ClearMLService, tmp_path: Path):
    (tmp_path / "t.npy").write_bytes(b"1")
    run([record("grads", str(tmp_path / "t.npy"), MetricType.TENSOR, step) for step in (1, 2)])
    keys = [artifact["key"] for artifact in service.only_task()["execution"]["artifacts"]]
    assert ["grads: step 1", "grads: step 2"] == keys


@pytest.mark.parametrize("kind", [MetricType.ARTIFACT, MetricType.IMAGE])
def test_a_file_that_is_gone_is_the_records_fault(run: Run, kind: MetricType, tmp_path: Path):
    with pytest.raises(RejectedError, match=r"gone\.png is gone"):
        run([record("a", str(tmp_path / "gone.png"), kind)])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Of ClearML's own parser, when its storage is first used.
def test_files_go_where_output_uri_says(run: Run, service: ClearMLService, tmp_path: Path):
    (tmp_path / "model.bin").write_bytes(b"model")
    batch = [record("model", str(tmp_path / "model.bin"), MetricType.ARTIFACT), record("note", "text", MetricType.TEXT)]
    run(batch, output_uri=(tmp_path / "storage").as_uri())
    uris = [service.only_task()["execution"]["artifacts"][0]["uri"], service.stored("training_debug_image")[0]["url"]]
    assert [b"model", b"text"] == [Path(uri.removeprefix("file://")).read_bytes() for uri in uris]
    assert {} == service.files


# -- errors ------------------------------------------------------------------------------------------------------------


def test_a_wrong_key_ends_the_delivery(run: Run, service: ClearMLService):
    with pytest.raises(PermanentError, match=r"401.*Check the access key") as caught:
        run(secret_key="wrong")
    assert "wrong" not in str(caught.value)


def test_a_server_that_is_away_is_waited_for(run: Run, service: ClearMLService):
    with service.away(), pytest.raises(OSError, match=r"127\.0\.0\.1") as caught:
        run()
    assert judge(caught.value) is Verdict.RETRY
    run([record("a", 1.0)])
    assert 1 == len(service.events)


@pytest.mark.parametrize(
    ("code", "verdict"), [(500, "RETRY"), (503, "RETRY"), (429, "RETRY"), (400, "REJECT"), (403, "GIVE_UP")]
)
def test_an_error_of_the_server_means_what_it_says(run: Run, service: ClearMLService, code: int, verdict: str):
    backend = run()
    with service.refusing("events.add_batch", code), pytest.raises(Exception, match=str(code)) as caught:
        backend.handle_batch([record("a", 1.0)])
    assert judge(caught.value) is Verdict[verdict]


def test_events_that_the_server_leaves_out_are_refused(
    run: Run, service: ClearMLService, monkeypatch: pytest.MonkeyPatch
):
    backend = run()
    monkeypatch.setattr(service, "_add_events", lambda events: {"added": 1, "errors": 1, "errors_info": {"odd": 1}})
    with pytest.raises(RejectedError, match=r"1 events: \{'odd': 1\}"):
        backend.handle_batch([record("a", 1.0), record("b", 1.0)])


def test_a_login_that_has_run_out_is_renewed(run: Run, service: ClearMLService, tmp_path: Path):
    (tmp_path / "a.png").write_bytes(b"image")
    backend = run([record("a", 1.0)])
    service.tokens.clear()
    backend.handle_batch([record("a", 1.0, step=1)])
    service.tokens.clear()
    backend.handle_batch([record("cat", str(tmp_path / "a.png"), MetricType.IMAGE)])
    assert (3, [b"image"]) == (len(service.events), list(service.files.values()))


def test_an_address_that_is_none_is_the_users_to_mend(run: Run):
    with pytest.raises(PermanentError, match="address of the ClearML server is wrong"):
        run(api_host="api.example.org")


def test_settings_are_checked_without_a_word_of_the_key():
    with pytest.raises(SettingsError, match="there is no such setting") as caught:
        ClearMLBackend.validate_config({"secret_key": "hush", "projekt": "x"})
    assert "hush" not in str(caught.value)


def test_an_experiment_is_delivered_to_its_end(service: ClearMLService):
    backend = ClearMLBackend()
    experiment = Experiment("digits", project="vision")
    experiment.register_plugin(backend, service.settings)
    with contextlib.suppress(ZeroDivisionError), experiment:
        experiment.log_params({"optimizer": {"lr": 0.1}})
        experiment.log_metric("train/loss", 0.5, 3)
        raise ZeroDivisionError("no")
    task = service.only_task()
    assert ("failed", "ZeroDivisionError: no") == (task["status"], task["status_message"])
    assert "0.1" == task["hyperparams"]["optimizer"]["lr"]["value"]
    assert [("loss", "train", 3, 0.5)] == [
        (event["metric"], event["variant"], event["iter"], event["value"])
        for event in service.events.values()
        if event["metric"] == "loss"
    ]
