"""What every backend must do. Inherit, give two fixtures, and pytest runs it all.

    class TestAcmeBackend(BackendContract):
        @pytest.fixture
        def backend(self):
            return AcmeBackend()

        @pytest.fixture
        def stored(self, backend):
            return lambda: [(point.name, point.step, point.value) for point in backend.client.points()]

Run by pytest, and each call of the backend on one thread that is not the test's. Two words among the `capabilities` of
the metadata are promises that are tested: `timestamps` (the record's own time is kept, to the millisecond) and
`idempotent` (a batch that comes twice is stored once). A third, `one_value_a_step`, is an admission: a later value of a
series takes the place of an earlier one of the same step.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from tracelet.core.changes import Change, ChangeKind
from tracelet.core.plugins import BackendPlugin, ManagedPlugin, PluginState, PluginType
from tracelet.core.records import DEFINE_PREFIX, STATUS_NAME, TAG_PREFIX, MetricData, MetricType
from tracelet.delivery.retry import Verdict, judge
from tracelet.errors import PartialDeliveryError, RejectedError
from tracelet.testing.plugin_contract import OnWorker, PluginContract

TIME_S = 1_750_000_000.125

Stored = Callable[[], Sequence[tuple[Any, ...]]]

ODD_NAMES = [
    "größe/日本",
    "two words",
    "a/b/c",
    "a//b",
    "/a",
    "../a",
    "a%b#c@d",
    'quo"te\\s',
    "tab\tline\n",
    "x" * 400,
    "-",
    "",
]


def scalar(name: str, value: float, step: int | None, time_s: float = TIME_S) -> MetricData:
    """A record of a metric."""
    return MetricData(name, value, MetricType.SCALAR, step, time_s, "contract")


class BackendContract(PluginContract):
    """Give the fixtures `backend` and `stored`; the others where they say more about your backend."""

    kind = PluginType.BACKEND

    @pytest.fixture
    def backend(self) -> BackendPlugin:
        """A new backend of which nothing has been called."""
        pytest.fail("give the fixture `backend`")

    @pytest.fixture
    def stored(self) -> Stored:
        """Gives what the tracker holds when the backend has stopped.

        A function without arguments: a list of `(name, step, value)`, or of `(name, step, value, Unix time in s)` for a
        backend with the capability `timestamps`; of each series in the order in which the tracker shows it. A name that
        the backend has to change comes back as it was.
        """
        pytest.fail("give the fixture `stored`")

    @pytest.fixture
    def outage(self) -> Callable[[], AbstractContextManager[Any]] | None:
        """Gives a context manager in which the tracker can't be reached. None where a test can't bring that about."""
        return None

    @pytest.fixture
    def restarted(self, backend: BackendPlugin) -> BackendPlugin:
        """A backend as it is when the run is started again in a new process; it gets the same configuration."""
        return type(backend)()

    @pytest.fixture
    def stored_params(self) -> Callable[[], dict[str, Any]] | None:
        """Gives the parameters that the tracker holds. None: the suite only sees that they are taken."""
        return None

    @pytest.fixture
    def stored_texts(self) -> Callable[[], dict[str, str]] | None:
        """The same for texts."""
        return None

    @pytest.fixture
    def stored_tags(self) -> Callable[[], dict[str, str]] | None:
        """The same for tags."""
        return None

    def param_as_stored(self, value: Any) -> Any:
        """What a parameter becomes in the tracker: `str(value)`, say, where it has texts only."""
        return value

    @pytest.fixture
    def plugin(self, backend: BackendPlugin) -> BackendPlugin:
        """The backend."""
        return backend

    @pytest.fixture
    def send(self, started: BackendPlugin, on_worker: OnWorker) -> Callable[[Sequence[MetricData]], None]:
        """Hands a batch to the running backend."""
        return lambda records: on_worker(lambda: started.handle_batch(records))

    @pytest.fixture
    def ended(self, send: Any, started: BackendPlugin, on_worker: OnWorker, stored: Stored) -> Stored:
        """Flushes and stops the backend, and gives what is stored."""

        def look() -> Sequence[tuple[Any, ...]]:
            on_worker(started.flush)
            on_worker(started.stop)
            return stored()

        return look

    def test_configuration_is_accepted(self, backend: BackendPlugin, config: dict[str, Any]) -> None:
        """By the check that comes before the training."""
        backend.validate_config(config)

    def test_url_is_a_text_or_none_in_every_state(self, backend: BackendPlugin, started: BackendPlugin) -> None:
        """Also before there is anything to see."""
        assert isinstance(type(backend).get_url(backend), str | None)

    def test_scalars_keep_name_step_value_and_order(self, send: Any, ended: Stored) -> None:
        """Over several batches."""
        records = [scalar("train/loss", 1 / (step + 1), step) for step in range(700)]
        send(records[:512])
        send(records[512:])
        assert first_three(ended()) == [("train/loss", step, 1 / (step + 1)) for step in range(700)]

    def test_one_record_is_taken_alone(self, started: BackendPlugin, on_worker: OnWorker, ended: Stored) -> None:
        """By `handle_metric`."""
        on_worker(lambda: started.handle_metric(scalar("a", 1.0, 7)))
        assert first_three(ended()) == [("a", 7, 1.0)]

    def test_empty_batch_is_taken(self, send: Any, ended: Stored) -> None:
        """All of it may have been filtered away."""
        send([])
        assert list(ended()) == []

    def test_system_metrics_are_stored_as_metrics(self, send: Any, ended: Stored) -> None:
        """What collectors record."""
        send([MetricData("system/cpu_percent", 12.5, MetricType.SYSTEM, 3, TIME_S, "system")])
        assert first_three(ended()) == [("system/cpu_percent", 3, 12.5)]

    def test_step_zero_is_a_step(self, send: Any, ended: Stored) -> None:
        """`iteration or …` is the classic mistake."""
        send([scalar("a", 1.0, 0)])
        assert first_three(ended()) == [("a", 0, 1.0)]

    def test_negative_and_unordered_steps_are_kept(self, send: Any, ended: Stored) -> None:
        """A resumed run logs a step again, an evaluation comes late."""
        steps = [5, 3, 4, -1, 2**40, 0]
        send([scalar("a", float(step), step) for step in steps])
        assert sorted(first_three(ended())) == [("a", step, float(step)) for step in sorted(steps)]

    def test_same_step_twice_is_kept_twice(self, backend: BackendPlugin, send: Any, ended: Stored) -> None:
        """Two values of one step at different times are two points, but for a tracker that has one a step."""
        send([scalar("a", 1.0, 3, TIME_S), scalar("a", 2.0, 3, TIME_S + 1)])
        if "one_value_a_step" in backend.get_metadata().capabilities:
            assert first_three(ended()) == [("a", 3, 2.0)]
            return
        assert sorted(first_three(ended())) == [("a", 3, 1.0), ("a", 3, 2.0)]

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e308, 5e-324, -0.0, 0.1 + 0.2])
    def test_value_is_stored_exactly_or_as_the_plan_says(
        self, backend: BackendPlugin, send: Any, ended: Stored, value: float
    ) -> None:
        """A NaN that becomes 0 is worse than one that is missing."""
        record = scalar("a", value, 0)
        planned = {change.kind for change in backend.plan(record)}
        try:
            send([record])
        except RejectedError:
            return
        kept = [row[2] for row in first_three(ended())]
        if ChangeKind.DROPPED in planned:
            assert kept == []
        else:
            (found,) = kept
            is_exact = found == value or (math.isnan(found) and math.isnan(value))
            assert is_exact != (ChangeKind.CHANGED in planned)

    @pytest.mark.parametrize("kind", list(MetricType))
    def test_plan_answers_for_every_type_without_a_connection(
        self, backend: BackendPlugin, tmp_path: Path, kind: MetricType
    ) -> None:
        """`tracelet plan` asks before the training."""
        value = 1.0 if kind is MetricType.SCALAR else example_value(kind, tmp_path)
        for name in ODD_NAMES:
            for change in backend.plan(MetricData(name, value, kind, 1, TIME_S)):
                assert type(change) is Change
                assert change.why

    def test_names_are_kept_apart_or_rejected(self, send: Any, ended: Stored) -> None:
        """Whatever is in them: the backend escapes what its tracker can't have, and never so that two become one."""
        expected = []
        for value, name in enumerate([*ODD_NAMES, "two_words", "two%20words", "TWO WORDS", "a", "x" * 399 + "y"]):
            try:
                send([scalar(name, float(value), 0)])
            except RejectedError:
                continue
            expected.append((name, 0, float(value)))
        assert sorted(first_three(ended())) == sorted(expected)

    def test_parameter_of_each_type_is_taken(
        self, send: Any, ended: Stored, stored_params: Callable[[], dict[str, Any]] | None
    ) -> None:
        """And its value kept."""
        params = {
            "text": "adam",
            "int": 3,
            "float": 0.1,
            "bool": True,
            "none": None,
            "list": [1, "a"],
            "dict": {"a": [1]},
        }
        params |= {"long": "x" * 10_000, "empty": "", "big": 2**62}
        send([MetricData(name, value, MetricType.PARAMETER, None, TIME_S) for name, value in params.items()])
        ended()
        if stored_params is not None:
            assert stored_params() == {name: self.param_as_stored(value) for name, value in params.items()}

    def test_parameter_that_is_logged_again_is_no_error(self, send: Any, ended: Stored) -> None:
        """A resumed run logs its parameters again, and one may have changed."""
        for value in (0.1, 0.1, 0.2):
            send([MetricData("lr", value, MetricType.PARAMETER, None, TIME_S)])
        send([scalar("a", 1.0, 0)])
        assert first_three(ended()) == [("a", 0, 1.0)]

    def test_text_is_taken(self, send: Any, ended: Stored, stored_texts: Callable[[], dict[str, str]] | None) -> None:
        """And kept."""
        send([MetricData("note", "größer\n2nd line", MetricType.TEXT, 1, TIME_S)])
        ended()
        if stored_texts is not None:
            assert stored_texts() == {"note": "größer\n2nd line"}

    def test_tags_and_status_are_taken(
        self, send: Any, ended: Stored, stored_tags: Callable[[], dict[str, str]] | None
    ) -> None:
        """They come as records of the type CUSTOM."""
        custom = {TAG_PREFIX + "team": "vision", DEFINE_PREFIX + "loss": {"step": "epoch"}, STATUS_NAME: "failed"}
        send([MetricData(name, value, MetricType.CUSTOM, None, TIME_S) for name, value in custom.items()])
        ended()
        if stored_tags is not None:
            assert stored_tags()["team"] == "vision"

    @pytest.mark.parametrize("kind", [kind for kind in MetricType if kind is not MetricType.SCALAR])
    def test_every_type_is_stored_or_ignored(self, send: Any, ended: Stored, tmp_path: Path, kind: MetricType) -> None:
        """What the tracker has no place for is no error, and holds up nothing."""
        send([MetricData("odd", example_value(kind, tmp_path), kind, 1, TIME_S, None, {"key": "value"})])
        send([scalar("a", 1.0, 0)])
        assert ("a", 0, 1.0) in first_three(ended())

    def test_artifact_and_metrics_are_taken_at_once(
        self, started: BackendPlugin, on_worker: OnWorker, ended: Stored, tmp_path: Path
    ) -> None:
        """An artifact comes beside all else where the backend asks for that; the run's end comes after both."""
        value = example_value(MetricType.ARTIFACT, tmp_path)
        artifact = MetricData("model", value, MetricType.ARTIFACT, None, TIME_S, None, {"type": "dataset"})
        with ThreadPoolExecutor(1, "artifacts") as lane:
            hand_over = lane.submit if started.uploads_aside else on_worker
            uploads = [hand_over(lambda: started.handle_artifact(artifact)) for _ in range(5)]
            for step in range(20):
                on_worker(functools.partial(started.handle_batch, [scalar("a", float(step), step)]))
            for upload in uploads:
                assert upload is None or upload.result() is None
        on_worker(lambda: started.handle_batch([MetricData(STATUS_NAME, "finished", MetricType.CUSTOM, None, TIME_S)]))
        assert first_three(ended()) == [("a", step, float(step)) for step in range(20)]

    def test_unknown_custom_record_is_ignored(self, send: Any, ended: Stored) -> None:
        """Somebody else's, or that of a later Tracelet."""
        send([MetricData("tracelet/of a later time", {"a": [None]}, MetricType.CUSTOM), scalar("a", 1.0, 0)])
        assert first_three(ended()) == [("a", 0, 1.0)]

    def test_timestamp_is_kept(self, backend: BackendPlugin, send: Any, ended: Stored) -> None:
        """Where the backend says so. A record may arrive hours after it was made."""
        if "timestamps" in backend.get_metadata().capabilities:
            send([scalar("a", 1.0, 0, TIME_S)])
            assert [row[3] for row in ended()] == [pytest.approx(TIME_S, abs=1e-3)]

    def test_batch_that_comes_twice_loses_nothing(self, backend: BackendPlugin, send: Any, ended: Stored) -> None:
        """After a kill the last batch is sent again; a backend that is `idempotent` shows it once."""
        batch = [scalar("a", 1.0, 0), scalar("a", 2.0, 1)]
        send(batch)
        send(batch)
        found = first_three(ended())
        assert set(found) == {("a", 0, 1.0), ("a", 1, 2.0)}
        if "idempotent" in backend.get_metadata().capabilities:
            assert len(found) == 2

    def test_a_run_that_is_started_again_goes_on_in_the_same_place(
        self,
        send: Any,
        ended: Stored,
        restarted: BackendPlugin,
        full_config: dict[str, Any],
        on_worker: OnWorker,
        stored: Stored,
    ) -> None:
        """Also after it had ended: not in a second run of the tracker."""
        end = MetricData(STATUS_NAME, "finished", MetricType.CUSTOM, None, TIME_S + 1)
        send([scalar("a", 1.0, 0), end])
        ended()
        on_worker(lambda: restarted.initialize(full_config))
        on_worker(restarted.start)
        on_worker(lambda: restarted.handle_batch([scalar("a", 2.0, 1, TIME_S + 2), end]))
        on_worker(restarted.stop)
        assert first_three(stored()) == [("a", 0, 1.0), ("a", 1, 2.0)]

    def test_outage_is_no_fault_of_the_records(
        self, started: BackendPlugin, send: Any, ended: Stored, outage: Callable[[], AbstractContextManager[Any]] | None
    ) -> None:
        """They would be thrown away as bad ones. After it the same batch goes through."""
        batch = [scalar("a", 1.0, 0), scalar("a", 2.0, 1)]
        if outage is not None:
            with outage(), pytest.raises(Exception) as caught:  # noqa: PT011  the next line looks at it
                send(batch)
            error = caught.value
            assert judge((isinstance(error, PartialDeliveryError) and error.__cause__) or error) is Verdict.RETRY
        send(batch)
        assert set(first_three(ended())) == {("a", 0, 1.0), ("a", 1, 2.0)}

    def test_backend_that_was_away_at_the_start_comes_up_later(
        self,
        backend: BackendPlugin,
        full_config: dict[str, Any],
        on_worker: OnWorker,
        stored: Stored,
        outage: Callable[[], AbstractContextManager[Any]] | None,
    ) -> None:
        """`initialize`, and then `start`, are called again until they work."""
        managed = ManagedPlugin(backend, {})

        def connect() -> None:
            if managed.state is PluginState.REGISTERED:
                managed.initialize(full_config)
            managed.start()

        if outage is not None:
            with outage(), contextlib.suppress(Exception):
                on_worker(connect)
        on_worker(connect)
        on_worker(lambda: backend.handle_batch([scalar("a", 1.0, 0)]))
        on_worker(managed.stop)
        assert first_three(stored()) == [("a", 0, 1.0)]


def first_three(rows: Sequence[tuple[Any, ...]]) -> list[tuple[str, int | None, float]]:
    """Name, step and value of what is stored."""
    return [(row[0], row[1], row[2]) for row in rows]


def example_value(kind: MetricType, folder: Path) -> Any:
    """A value as a delivered record of this type has it."""
    values: dict[MetricType, Any] = {
        MetricType.SYSTEM: 1.5,
        MetricType.PARAMETER: 0.1,
        MetricType.TEXT: "text",
        MetricType.CUSTOM: {"a": 1},
        MetricType.HISTOGRAM: {"edges": [0.0, 0.5, 1.0], "counts": [3.0, 4.0]},
        MetricType.TABLE: {"columns": ["a", "b"], "rows": [[1, "x"], [2, None]]},
    }
    if kind in values:
        return values[kind]
    file = folder / f"{kind.value}.bin"
    file.write_bytes(b"\x00\x01")
    return str(file)
