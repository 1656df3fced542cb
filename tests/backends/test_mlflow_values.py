"""What becomes of names and values in MLflow, read back by MLflow's own client."""

# ruff: noqa: F811  The fixtures are imported.

from __future__ import annotations

import contextlib
import math
import sys

import pytest

from tests.backends.mlflow_support import (  # noqa: F401 - imported fixtures
    QUIET,
    TIME_S,
    Remote,
    database,
    make_remote,
    param,
    remote,
    scalar,
    tag,
)
from tracelet.backends.mlflow_backend import MLflowBackend
from tracelet.core.changes import ChangeKind, StoredPoint
from tracelet.core.records import DEFINE_PREFIX, DESCRIPTION_NAME, GIT_COMMIT_NAME, MetricData, MetricType
from tracelet.delivery.retry import Verdict, judge
from tracelet.errors import PartialDeliveryError, PermanentError

pytestmark = QUIET


def plan(record: MetricData) -> list[tuple[ChangeKind, str | None]]:
    return [(change.kind, change.becomes) for change in MLflowBackend().plan(record)]


def custom(name: str, value: object) -> MetricData:
    return MetricData(name, value, MetricType.CUSTOM, None, TIME_S)


def test_long_parameter_is_cut_and_kept_whole_as_an_artifact(remote: Remote):
    text = "größer " * 1000
    record = param("model/config", text)
    remote.deliver(record)
    stored = remote.run.data.params["model/config"]
    (path,) = remote.artifacts()
    assert len(stored) == 6000
    assert text.startswith(stored.partition("…")[0])
    assert "cut from 7000 characters" in stored
    assert text == remote.read(path).decode()
    assert plan(record) == [(ChangeKind.CUT, f"its beginning; all of it in the artifact {path}")]


def test_parameter_that_changes_after_its_first_6000_characters_is_a_drift(remote: Remote):
    remote.deliver(param("a", "x" * 7000 + "1"))
    remote.deliver(param("a", "x" * 7000 + "2"))
    assert "tracelet.param_drift.a" in remote.run.data.tags
    assert len(remote.artifacts()) == 2


def test_names_that_look_alike_are_kept_apart_and_the_true_one_stands_in_a_tag(remote: Remote):
    long = "x" * 400
    names = ["a b", "a%b", "a_x0025_b", "a/./b", "a/b", "/a", long, long[:-1] + "y", "größe", "tab\there"]
    remote.deliver(*(scalar(name, float(index)) for index, name in enumerate(names)))
    run = remote.run
    marked = {value for key, value in run.data.tags.items() if key.startswith("tracelet.name.")}
    assert marked == {"a%b", "a_x0025_b", "a/./b", "/a", long, long[:-1] + "y", "tab\there"}
    assert sorted(run.data.metrics.values()) == [float(index) for index in range(len(names))]
    assert {"a b": 0.0, "a_x0025_b": 1.0, "a/b": 4.0, "größe": 8.0}.items() <= run.data.metrics.items()
    assert max(map(len, run.data.metrics)) == 250


def test_plan_names_the_key_that_is_stored(remote: Remote):
    record = scalar("loss%", 1.0)
    ((kind, key),) = plan(record)
    remote.deliver(record)
    assert (ChangeKind.RENAMED, [key]) == (kind, list(remote.run.data.metrics))


def test_infinity_is_marked_and_read_back_as_infinity(remote: Remote):
    records = [scalar("a", value, step) for step, value in enumerate([math.inf, -math.inf, math.nan, 1.5])]
    backend = remote.start()
    backend.handle_batch(records)
    read = backend.read_back("a")
    assert sys.float_info.max == remote.points("a")[0][1]
    assert "tracelet.infinite.a" in remote.run.data.tags
    assert read is not None
    assert sorted(map(repr, read)) == sorted(repr(StoredPoint(r.iteration, r.value, TIME_S)) for r in records)
    assert [plan(record) for record in records[2:]] == [[], []]


def test_record_without_a_step_is_at_step_0_and_the_plan_says_so(remote: Remote):
    remote.deliver(scalar("a", 1.0, None))
    assert remote.points("a") == [(0, 1.0)]
    assert plan(scalar("a", 1.0, None)) == [(ChangeKind.CHANGED, "step 0")]


def test_read_back_turns_all_pages_and_knows_no_other_series(remote: Remote):
    backend = remote.start()
    for first in range(0, 6000, 1000):
        backend.handle_batch([scalar("a", float(step), step, TIME_S + step) for step in range(first, first + 1000)])
    assert backend.read_back("a") == [StoredPoint(step, float(step), TIME_S + step) for step in range(6000)]
    assert backend.read_back("b") == []
    assert MLflowBackend().read_back("a") is None


def test_batch_that_comes_twice_in_part_is_stored_once(remote: Remote):
    records = [scalar("a", math.nan if step == 3 else float(step), step, TIME_S + step) for step in range(8)]
    remote.deliver(*records[:5], param("p", 1), tag("t", "1"))
    remote.deliver(param("p", 1), tag("t", "1"), *records)
    assert [step for step, _ in remote.points("a")] == list(range(8))
    assert [key for key in remote.run.data.tags if "drift" in key] == []


def test_changed_parameter_keeps_its_first_value_and_drifts_in_a_tag(remote: Remote):
    remote.deliver(param("lr", 0.1), param("lr", 0.2))
    assert remote.run.data.tags["tracelet.param_drift.lr"] == "0.2"
    remote.deliver(param("lr", 0.2), param("lr%", 1))
    remote.deliver(param("lr", 0.3), param("lr%", 2), param("new", 1))
    data = remote.run.data
    assert {"lr": "0.1", "lr_x0025_": "1", "new": "1"} == data.params
    drifts = {key: value for key, value in data.tags.items() if "drift" in key}
    assert {"tracelet.param_drift.lr": "0.3", "tracelet.param_drift.lr_x0025_": "2"} == drifts
    remote.deliver(param("lr", 0.1))  # The tag has the newest value, also where that is the first one again.
    assert remote.run.data.tags["tracelet.param_drift.lr"] == "0.1"


def test_parameter_that_another_process_set_meanwhile_drifts_too(remote: Remote):
    backend = remote.start()
    remote.client.log_param(remote.run.info.run_id, "lr", "0.1")
    remote.client.log_param(remote.run.info.run_id, "same", "1")
    backend.handle_batch([scalar("a", 1.0), param("lr", 0.2), param("same", 1), param("own", 2)])
    data = remote.run.data
    assert ({"lr": "0.1", "same": "1", "own": "2"}, {"a": 1.0}) == (data.params, data.metrics)
    assert data.tags["tracelet.param_drift.lr"] == "0.2"


def test_more_of_everything_than_one_request_takes(remote: Remote):
    records = [make(f"{index}", str(index)) for index in range(250) for make in (param, tag)]
    records += [scalar(f"m%{index}", float(index)) for index in range(500)]
    remote.deliver(*records)
    data = remote.run.data
    assert {str(index): str(index) for index in range(250)} == data.params
    assert data.params.items() <= data.tags.items()
    assert len(data.metrics) == 500
    assert len([key for key in data.tags if key.startswith("tracelet.name.")]) == 500


def test_bad_record_in_the_middle_is_found_by_halving_and_the_others_arrive(remote: Remote):
    backend = remote.start()
    bad = scalar("a", 13.0, 13, -1.0)  # MLflow takes no time before 1970.
    records = [scalar("a", float(step), step) if step != 13 else bad for step in range(40)]
    rejected, batches = [], [records]
    while batches:
        batch = batches.pop()
        with contextlib.suppress(PartialDeliveryError):
            backend.handle_batch(batch)
            continue
        with pytest.raises(PartialDeliveryError) as caught:
            backend.handle_batch(batch)
        reason = caught.value.__cause__
        assert reason is not None
        assert judge(reason) is Verdict.REJECT
        half = len(batch) // 2
        if half:
            batches += [batch[half:], batch[:half]]
        else:
            rejected.append((batch[0], str(reason)))
    ((found, reason),) = rejected
    assert found is bad
    assert "timestamp" in reason
    assert [step for step, _ in remote.points("a")] == [step for step in range(40) if step != 13]


def test_failure_after_some_requests_tells_how_many_records_arrived(remote: Remote):
    backend = remote.start()
    params = [param(f"p{index}", index) for index in range(99)]
    with pytest.raises(PartialDeliveryError) as caught:
        backend.handle_batch([*params, param("last", 1), scalar("a", 1.0, 0, -1.0)])
    assert caught.value.delivered == 99
    assert len(remote.run.data.params) == 99


def test_values_of_tags_are_kept_empty_ones_too_and_long_ones_are_cut(remote: Remote):
    remote.deliver(tag("team", "vision"), tag("word", ""), tag("long", "x" * 9000), tag("a%b", "1"), tag("team", "nlp"))
    tags = remote.run.data.tags
    assert ("nlp", "", "1", 8000) == (tags["team"], tags["word"], tags["a_x0025_b"], len(tags["long"]))
    assert plan(tag("long", "x" * 9000)) == [(ChangeKind.CUT, "its beginning")]


def test_a_tag_of_the_user_can_not_replace_one_of_ours(remote: Remote):
    remote.deliver(tag("tracelet.run_uuid", "stolen"))
    assert remote.run.data.tags["_x0074_racelet.run_uuid"] == "stolen"


def test_text_that_no_database_takes_is_escaped(remote: Remote):
    remote.deliver(param("a", "nul\0"), param("b", "half \ud800"), tag("c", "nul\0"), param("d", 1))
    data = remote.run.data
    assert {"a": r"nul\x00", "b": r"half \ud800", "d": "1"} == data.params
    assert data.tags["c"] == r"nul\x00"
    assert [kind for kind, _ in plan(param("a", "nul\0"))] == [ChangeKind.CHANGED]


def test_facts_about_the_run_stand_where_the_pages_of_mlflow_show_them(remote: Remote):
    remote.deliver(
        custom(DESCRIPTION_NAME, "A *first* try"),
        custom(GIT_COMMIT_NAME, "0" * 40),
        custom(DEFINE_PREFIX + "val/loss", {"step": "epoch"}),
        custom("somebody/else", [1]),
    )
    run = remote.run
    expected = {
        "mlflow.note.content": "A *first* try",
        "mlflow.source.git.commit": "0" * 40,
        "mlflow.runName": "digits",
        "tracelet.step.val/loss": "epoch",
        "tracelet.run_id": "run1",
    }
    assert expected.items() <= run.data.tags.items()
    assert "train.py" == run.data.tags["mlflow.source.name"]
    assert run.data.tags.keys() >= {"mlflow.user", "mlflow.source.type"}
    assert remote.client.get_experiment(run.info.experiment_id).name == "vision"
    assert plan(custom("somebody/else", [1])) == [(ChangeKind.DROPPED, None)]


def test_run_was_deleted_while_records_came_is_not_their_fault(remote: Remote):
    backend = remote.start()
    remote.client.delete_run(remote.run.info.run_id)
    with pytest.raises(PartialDeliveryError) as caught:
        backend.handle_batch([scalar("a", 1.0)])
    assert isinstance(caught.value.__cause__, PermanentError)
    assert "mlflow runs restore" in str(caught.value.__cause__)
