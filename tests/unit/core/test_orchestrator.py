"""Routing, collectors and framework plug-ins. Delivery has its own tests, in `tests/delivery`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from tracelet import Experiment, RoutingRule, load_run
from tracelet.core.plugins import CollectorPlugin, FrameworkPlugin, PluginMetadata, PluginType
from tracelet.core.records import PLUGIN_ERRORS_NAME, STATUS_NAME, MetricData, MetricType
from tracelet.errors import MissingDependencyError, SettingsError, UsageError
from tracelet.settings import TraceletSettings
from tracelet.testing import MemoryBackend

WAIT_S = 60.0


def said(caplog: pytest.LogCaptureFixture, text: str) -> int:
    return sum(text in record.getMessage() for record in caplog.records)


# -- routing -----------------------------------------------------------------------------------------------------------

LOGGED = {"train/loss", "train/acc", "val/loss", "lr", "note", "cpu"}


def routed(*rules: RoutingRule) -> tuple[set[str], set[str]]:
    """What the backends `first` and `second` get of what is logged."""
    first, second = MemoryBackend("first"), MemoryBackend("second")
    experiment = Experiment("test", backend=[first, second])
    for rule in rules:
        experiment.add_routing_rule(rule)
    with experiment:
        for name in ("train/loss", "train/acc", "val/loss"):
            experiment.log_metric(name, 0.5, 0)
        experiment.log_param("lr", 0.1)
        experiment.log_text("note", "text")
        experiment.emit_metric(MetricData("cpu", 1.0, MetricType.SYSTEM, source="system"))
    assert set(load_run(experiment.run_dir).names()) == {"train/loss", "train/acc", "val/loss", "cpu"}
    for backend in (first, second):  # Whatever the rules say, a tracker learns how the run ended.
        assert STATUS_NAME == backend.records[-1].name
    names = ({record.name for record in backend.records[:-1]} for backend in (first, second))
    return next(names), next(names)


def to_first(**fields: Any) -> RoutingRule:
    return RoutingRule(sinks=("first",), **fields)


def only(name: str) -> Callable[[MetricData], bool]:
    return lambda metric: metric.name == name


def fails(metric: MetricData) -> bool:
    raise ValueError(metric.name)


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([], LOGGED),
        ([to_first(pattern="train/*")], {"train/loss", "train/acc"}),
        ([to_first(pattern="*/loss")], {"train/loss", "val/loss"}),
        ([to_first(pattern="TRAIN/*")], set()),
        ([to_first(types=frozenset({MetricType.PARAMETER, MetricType.TEXT}))], {"lr", "note"}),
        ([to_first(source="system")], {"cpu"}),
        ([to_first(source="")], LOGGED - {"cpu"}),
        ([to_first(filter=only("val/loss"))], {"val/loss"}),
        ([to_first(pattern="train/*", filter=only("val/loss"))], set()),
        ([to_first(pattern="train/*"), to_first(pattern="lr")], {"train/loss", "train/acc", "lr"}),
        ([to_first(pattern="*/acc", exclude=True)], LOGGED - {"train/acc"}),
        ([to_first(pattern="train/*"), to_first(pattern="*/acc", exclude=True)], {"train/loss"}),
        ([to_first(pattern="*/acc", exclude=True), to_first(pattern="train/*")], {"train/loss"}),
        ([to_first(filter=fails)], LOGGED),
        ([to_first(filter=fails, exclude=True)], LOGGED),
    ],
)
def test_rules_choose_what_one_backend_gets_and_leave_the_other_alone(rules: list[RoutingRule], expected: set[str]):
    assert (expected, LOGGED) == routed(*rules)


def test_rule_for_two_backends_holds_for_both():
    rule = RoutingRule(sinks=("first", "second"), pattern="lr")
    assert ({"lr"}, {"lr"}) == routed(rule)


def test_filter_that_fails_is_said_once(caplog: pytest.LogCaptureFixture):
    routed(to_first(filter=fails))
    assert 1 == said(caplog, "a routing rule's filter failed")


def test_rule_for_a_backend_that_is_not_there_is_an_error_at_the_start():
    experiment = Experiment("test", backend=MemoryBackend("first"))
    experiment.add_routing_rule(RoutingRule(sinks=("frist",)))
    with pytest.raises(UsageError, match="names frist, which is no backend of this experiment; it has first"):
        experiment.start()
    assert not experiment.run_dir.exists()


# -- what raises at the start ------------------------------------------------------------------------------------------


def test_missing_package_is_an_error_at_the_start():
    backend = MemoryBackend()
    backend.get_metadata = lambda: PluginMetadata("acme", "1", PluginType.BACKEND, dependencies=["no-such-sdk"])
    with pytest.raises(MissingDependencyError, match="pip install 'no-such-sdk'"):
        Experiment("test", backend=backend).start()
    assert 0 == backend.count("initialize")


@pytest.mark.parametrize("error", [SettingsError("the url is no url"), ValueError("the url is no url")])
def test_wrong_configuration_is_an_error_at_the_start(error: Exception):
    def validate(config):
        raise error

    backend = MemoryBackend()
    backend.validate_config = validate
    with pytest.raises(SettingsError, match="the url is no url"):
        Experiment("test", backend=backend).start()


def test_settings_of_a_plugin_reach_it_however_it_was_given(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TRACELET_PLUGINS__MEMORY__URL", "http://127.0.0.1")
    by_argument, by_hand = MemoryBackend(), MemoryBackend()
    with Experiment("test", backend=by_argument, run_id="r1") as experiment:
        pass
    second = Experiment("test", project="p")
    second._plugin_manager.register_plugin(by_hand)
    with second:
        pass
    for backend in (by_argument, by_hand):
        assert "http://127.0.0.1" == backend.config["url"]
    expected = {"run_name": "test", "run_id": "r1", "run_project": "default", "run_dir": experiment.run_dir}
    assert expected == {key: by_argument.config[key] for key in expected}


def test_directory_of_a_backend_is_there_when_it_starts():
    backend, go_on = MemoryBackend(), threading.Event()
    backend.stall(go_on, at="start")
    with Experiment("test", backend=backend):
        assert backend.wait_until(lambda: backend.count("start") == 1, WAIT_S)
        assert backend.config["state_dir"].is_dir()
        go_on.set()


# -- collectors --------------------------------------------------------------------------------------------------------


class Counter(CollectorPlugin):
    """Gives 0, 1, 2, …; fails, hangs or gives something else where it is told to."""

    def __init__(self) -> None:
        self.readings: list[Any] = []
        self.threads: set[str] = set()
        self.calls: list[str] = []
        self.read = threading.Condition()
        self.config: dict[str, Any] = {}
        self.error: Exception | None = None
        self.hang: threading.Event | None = None

    @classmethod
    def get_metadata(cls):
        return PluginMetadata("counter", "1", PluginType.COLLECTOR)

    def initialize(self, config):
        self.calls.append("initialize")
        self.config = config

    def start(self):
        self.calls.append("start")

    def stop(self):
        self.calls.append("stop")

    def get_status(self):
        return {}

    def collect(self):
        with self.read:
            self.threads.add(threading.current_thread().name)
            self.readings.append(len(self.readings))
            self.read.notify_all()
        if self.hang is not None:
            self.hang.wait(WAIT_S)
        if self.error is not None:
            raise self.error
        return [MetricData("count", float(self.readings[-1]), MetricType.SYSTEM, source="counter")]

    def wait_for(self, count: int) -> bool:
        with self.read:
            return self.read.wait_for(lambda: len(self.readings) >= count, WAIT_S)


def collecting(collector: Counter, interval_s: Any = 0.001) -> Experiment:
    experiment = Experiment("test", settings=TraceletSettings.load(stop_timeout_s=1.0))
    experiment.register_plugin(collector, {"interval": interval_s})
    return experiment


def test_collector_is_read_at_its_interval_on_its_own_thread():
    collector = Counter()
    with collecting(collector) as experiment:
        assert collector.wait_for(5)
    series = load_run(experiment.run_dir).series("count")
    assert list(range(len(series))) == series.steps.tolist() == series.values.tolist()
    assert len(series) >= 4  # The last reading may have come after the end.
    assert {"tracelet-counter"} == collector.threads
    assert ["initialize", "start", "stop"] == collector.calls


def test_collector_gets_the_interval_of_the_settings():
    collector = Counter()
    experiment = Experiment("test", settings=TraceletSettings.load(collect_interval_s=1234.0))
    experiment.register_plugin(collector)
    with experiment:
        assert collector.wait_for(1)
    assert 1234.0 == collector.config["interval"]
    assert [0] == collector.readings


@pytest.mark.parametrize("interval", ["often", None, 0, -1.0, float("nan"), float("inf")])
def test_interval_that_is_none_is_an_error_at_the_start(interval: Any):
    with pytest.raises(SettingsError, match="the interval of the collector 'counter' is no number of seconds"):
        collecting(Counter(), interval).start()


def test_no_record_comes_after_stop_and_no_thread_is_left():
    collector, before = Counter(), set(threading.enumerate())
    experiment = collecting(collector).start()
    assert collector.wait_for(3)
    experiment.stop()
    assert set() == set(threading.enumerate()) - before
    assert "stop" == collector.calls[-1]


def test_collector_that_fails_is_counted_each_time_and_said_on_the_change(caplog: pytest.LogCaptureFixture):
    collector = Counter()
    collector.error = OSError("no such device")
    with collecting(collector) as experiment:
        assert collector.wait_for(3)
        collector.error = None
        assert collector.wait_for(len(collector.readings) + 3)  # Two of them have come to their end.
        assert experiment.status()["errors"]["counter"] >= 2
    assert (1, 1) == (said(caplog, "the collector 'counter' fails"), said(caplog, "'counter' works again"))
    run = load_run(experiment.run_dir)
    assert set(run.series(PLUGIN_ERRORS_NAME).values) == {1.0}
    assert len(run.series("count")) >= 2


@pytest.mark.parametrize("method", ["initialize", "start"])
def test_collector_that_cannot_start_is_reported_and_the_run_goes_on(caplog: pytest.LogCaptureFixture, method: str):
    collector = Counter()
    started = threading.Event()

    def fail(*arguments):
        started.set()
        raise OSError("no such device")

    setattr(collector, method, fail)
    with collecting(collector) as experiment:
        assert started.wait(WAIT_S)
        experiment.log_metric("loss", 0.5, 0)
    assert [] == collector.readings
    assert 1 == said(caplog, "the collector 'counter' can't start")
    assert "failed" == experiment.status()["plugins"]["counter"]["state"]
    assert (method == "start") == ("stop" in collector.calls)  # What it has opened is closed.


def test_collector_that_hangs_is_left_behind_and_records_nothing_more(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("tracelet.core.orchestrator._COLLECTOR_STOP_S", 0.01)
    collector = Counter()
    collector.hang = threading.Event()
    experiment = collecting(collector).start()
    assert collector.wait_for(1)
    experiment.stop()
    assert 1 == said(caplog, "the collector 'counter' does not end; it is left behind")
    collector.hang.set()
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "tracelet-counter"]
    thread.join(WAIT_S)
    assert [] == load_run(experiment.run_dir).names()
    assert "finished" == load_run(experiment.run_dir).status.value


# -- framework plug-ins ------------------------------------------------------------------------------------------------


class Framework(FrameworkPlugin):
    """Emits one record when it starts."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.fails_at: str | None = None

    @classmethod
    def get_metadata(cls):
        return PluginMetadata("framework", "1", PluginType.FRAMEWORK)

    def set_experiment(self, experiment):
        super().set_experiment(experiment)
        self.call("set_experiment")

    def initialize(self, config):
        self.call("initialize")

    def start(self):
        self.emit_metric(MetricData("started", 1.0, MetricType.SCALAR, 0, source=self.get_source_id()))
        self.call("start")

    def stop(self):
        self.call("stop")

    def get_status(self):
        return {}

    def call(self, method: str) -> None:
        self.calls.append(method)
        if method == self.fails_at:
            raise RuntimeError(f"{method} fails")


def test_framework_plugin_knows_its_experiment_before_it_starts_and_is_a_source():
    framework = Framework()
    experiment = Experiment("test")
    experiment.register_plugin(framework)
    with experiment:
        assert ["framework"] == experiment.status()["sources"]
    assert ["set_experiment", "initialize", "start", "stop"] == framework.calls
    assert [1.0] == load_run(experiment.run_dir).series("started").values.tolist()


@pytest.mark.parametrize(
    ("fails_at", "calls"),
    [
        ("set_experiment", ["set_experiment"]),
        ("initialize", ["set_experiment", "initialize"]),
        ("start", ["set_experiment", "initialize", "start", "stop"]),
        ("stop", ["set_experiment", "initialize", "start"]),
    ],
)
def test_framework_plugin_that_fails_is_reported_and_the_run_goes_on(
    caplog: pytest.LogCaptureFixture, fails_at: str, calls: list[str]
):
    framework = Framework()
    framework.fails_at = fails_at
    experiment = Experiment("test")
    experiment.register_plugin(framework)
    with experiment:
        experiment.log_metric("loss", 0.5, 0)
        assert calls == framework.calls  # What could not start is stopped at once.
    assert ("stop" in framework.calls) == ("initialize" in calls and fails_at != "initialize")
    assert 1 == said(caplog, f"{fails_at} fails")
    assert {"framework": 1} == experiment.status()["errors"]
    assert [0.5] == load_run(experiment.run_dir).series("loss").values.tolist()
