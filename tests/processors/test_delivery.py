"""Processors on the way to backends: by settings and in code, in threads and in the delivery process, and anew."""

from __future__ import annotations

import functools
import json
import logging
import math
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.delivery.support import WAIT_S, Delivery, Processor
from tests.processors.support import steps
from tests.unit.core.support import killed_run, stand_in
from tracelet import Experiment, MetricData, MetricType, TraceletSettings, load_run
from tracelet.core.alerts import ALERT_TAG, Alert
from tracelet.core.planning import plan_run
from tracelet.core.plugins import ProcessorPlugin
from tracelet.core.records import TAG_PREFIX, is_status
from tracelet.core.sync import sync_run
from tracelet.core.verify import SeriesCheck, verify_run
from tracelet.errors import ExperimentStateError, PluginContractError, PluginNotFoundError, SettingsError
from tracelet.processors.aggregate_processor import AggregateProcessor
from tracelet.processors.smooth_processor import SmoothProcessor
from tracelet.processors.thin_processor import ThinProcessor
from tracelet.processors.watch_processor import WatchProcessor
from tracelet.testing import MemoryBackend


@pytest.fixture
def backend() -> MemoryBackend:
    return MemoryBackend()


@pytest.fixture
def delivery(tmp_path: Path) -> Iterator[Delivery]:
    with Delivery(tmp_path) as made:
        yield made


THIN = {"name": "thin", "every": 10, "extremes": False}


def settings(**more: Any) -> TraceletSettings:
    return TraceletSettings(**{"delivery": "thread", "collectors": [], **more})


def scalars(records: Iterable[MetricData], name: str = "loss") -> list[MetricData]:
    return [record for record in records if record.name == name]


def logged(experiment: Experiment, values: Sequence[float], start: int = 0) -> None:
    for step, value in enumerate(values, start):
        experiment.log_metric("loss", value, step)


# -- where they are said -----------------------------------------------------------------------------------------------


def test_each_backend_has_the_processors_of_its_settings_and_the_journal_has_everything():
    first, second = MemoryBackend("first"), MemoryBackend("second")
    chosen = settings(processors={"first": [THIN], "*": [{"name": "rename", "pattern": "^loss", "replacement": "l"}]})
    with Experiment("e", backend=[first, second], settings=chosen) as experiment:
        logged(experiment, [1.0] * 25)
    assert [0, 10, 20, 24] == steps(scalars(first.records, "l"))
    assert list(range(25)) == steps(scalars(second.records, "l"))
    assert 25 == len(load_run(experiment.run_dir).series("loss"))
    assert all(is_status(backend.records[-1]) for backend in (first, second))


def test_one_that_is_registered_can_be_for_one_backend_alone():
    first, second = MemoryBackend("first"), MemoryBackend("second")
    experiment = Experiment("e", backend=[first, second], settings=settings())
    experiment.register_plugin(ThinProcessor(), {"every": 10}, backends=["second"])
    with experiment:
        logged(experiment, [1.0] * 25)
    assert [25, 4] == [len(scalars(backend.records)) for backend in (first, second)]
    with pytest.raises(ExperimentStateError):
        experiment.register_plugin(ThinProcessor())


@pytest.mark.parametrize(
    ("step", "error", "why"),
    [
        ({"name": "thinn", "every": 2}, PluginNotFoundError, "did you mean 'thin'"),
        ({"name": "thin", "evry": 2}, SettingsError, "evry"),
        ({"name": "jsonl"}, PluginContractError, "is a backend, and no processor"),
    ],
)
def test_a_wrong_one_is_told_at_the_start(step: dict[str, Any], error: type[Exception], why: str):
    experiment = Experiment("e", backend=MemoryBackend(), settings=settings(processors={"memory": [step]}))
    with pytest.raises(error, match=why):
        experiment.start()


def test_settings_of_the_plugin_are_the_defaults_of_each_of_them():
    backend = MemoryBackend()
    chosen = settings(plugins={"thin": {"every": 5, "extremes": False}}, processors={"memory": [{"name": "thin"}]})
    with Experiment("e", backend=backend, settings=chosen) as experiment:
        logged(experiment, [1.0] * 11)
    assert [0, 5, 10] == steps(scalars(backend.records))


# -- in the delivery process -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def delivered(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]], list[Alert], str]:
    """A run that its delivery process has brought to a file, and what became of an anomaly in it."""
    folder = tmp_path_factory.mktemp("process")
    watch = {"name": "watch", "before": 5, "after": 5, "hold_s": 1e6}
    chosen = TraceletSettings(
        dir=folder, delivery="process", collectors=[],
        processors={"jsonl": [watch, {"name": "thin", "every": 50}]},
    )  # fmt: skip
    alerts: list[Alert] = []
    heard = threading.Event()

    def on_alert(alert: Alert) -> None:
        alerts.append(alert)
        heard.set()
        raise RuntimeError("a fault of the user's")

    experiment = Experiment("e", backend="jsonl", settings=chosen)
    experiment.on_alert(on_alert)
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]  # a test's ear
    logging.getLogger("tracelet").addHandler(handler)
    try:
        with experiment:
            logged(experiment, [math.nan if step == 77 else 1.0 for step in range(150)])
            assert experiment.flush(WAIT_S)
            assert heard.wait(WAIT_S)
            logged(experiment, [1.0] * 50, start=150)
    finally:
        logging.getLogger("tracelet").removeHandler(handler)
    file = experiment.run_dir / "delivery" / "jsonl" / "records.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return experiment.run_dir, lines, alerts, "\n".join(messages)


def test_the_delivery_process_has_the_processors_of_the_settings(delivered):
    _, lines, _, _ = delivered
    found = [line["step"] for line in lines if line["name"] == "loss"]
    assert [0, 50, *range(72, 83), 100, 150, 199] == found


def test_an_alert_of_the_delivery_process_reaches_the_training(delivered):
    path, lines, alerts, messages = delivered
    (alert,) = alerts
    assert ("nan", "loss", 77) == (alert.kind, alert.series, alert.step)
    assert "loss is nan at step 77" in messages
    assert "on_alert() was given failed" in messages
    assert {ALERT_TAG: "loss is nan at step 77"} == load_run(path).tags
    assert "loss is nan at step 77" in [line["value"] for line in lines if line["name"] == TAG_PREFIX + ALERT_TAG]


def test_a_sync_a_month_later_brings_the_same(delivered, monkeypatch: pytest.MonkeyPatch):
    path, lines, _, _ = delivered
    backend = MemoryBackend()
    stand_in(backend, monkeypatch)
    watch = {"name": "watch", "before": 5, "after": 5, "hold_s": 1e6}
    sync_run(path, ["memory"], settings(processors={"memory": [watch, {"name": "thin", "every": 50}]}))
    assert [line["step"] for line in lines if line["name"] == "loss"] == steps(scalars(backend.records))


# -- a delivery that begins anew ---------------------------------------------------------------------------------------

VALUES = [math.nan if step in (33, 34) else math.sin(step) for step in range(60)]
WATCH = (WatchProcessor, {"before": 4, "after": 3, "warm_up": 10})
CHAINS: dict[str, list[tuple[type[ProcessorPlugin], dict[str, Any]]]] = {
    "thin": [(ThinProcessor, {"every": 7})],
    "aggregate": [(AggregateProcessor, {"every": 10, "functions": ["mean", "max"]})],
    "smooth": [(SmoothProcessor, {"window": 5})],
    "watch, aggregate": [WATCH, (AggregateProcessor, {"every": 10})],
}


def configured(kind: type[ProcessorPlugin], config: dict[str, Any]) -> ProcessorPlugin:
    made = kind()
    initialize = made.initialize
    made.initialize = lambda facts: initialize({**facts, **config})  # type: ignore[method-assign]  # for one test
    return made


def log(delivery: Delivery, first: int, last: int) -> None:
    for name in ("loss", "acc"):
        key = delivery.writer.define(name)
        assert key is not None
        for step in range(first, last):
            delivery.writer.append(key.key, step, VALUES[step], (step + 1) * 10**9)


def deliver(delivery: Delivery, backend: MemoryBackend, chain: str, *, is_end: bool = False) -> None:
    worker = delivery.worker(backend, [configured(*step) for step in CHAINS[chain]])
    end = MetricData("tracelet/status", "finished", MetricType.CUSTOM)
    worker.start()
    worker.request_stop(WAIT_S, (lambda: end) if is_end else None)
    assert worker.join(WAIT_S)


def facts(records: Iterable[MetricData]) -> list[str]:
    return [repr((record.name, record.iteration, record.value, record.metadata)) for record in records]


@pytest.fixture(scope="module")
def at_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[str]]:
    """What comes of a run that is delivered without a break."""

    def find(chain: str) -> list[str]:
        backend = MemoryBackend()
        with Delivery(tmp_path_factory.mktemp("once")) as delivery:
            log(delivery, 0, 60)
            deliver(delivery, backend, chain, is_end=True)
        return facts(backend.records)

    return functools.cache(find)


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("cut", [0, 1, 13, 35])
def test_a_window_that_was_open_at_a_restart_comes_out_the_same(
    delivery: Delivery, backend: MemoryBackend, chain: str, cut: int, at_once: Callable[[str], list[str]]
):
    log(delivery, 0, cut)
    deliver(delivery, backend, chain)
    log(delivery, cut, 60)
    deliver(delivery, backend, chain, is_end=True)
    assert sorted(at_once(chain)) == sorted(facts(backend.records))
    assert is_status(backend.records[-1])
    for name in ("loss", "acc"):
        mine = [steps(scalars(backend.records, found)) for found in (name, f"{name}/max")]
        assert [sorted(found) for found in mine] == mine


def test_records_that_a_processor_saw_and_the_backend_did_not_get_are_counted_once(
    delivery: Delivery, backend: MemoryBackend, at_once: Callable[[str], list[str]]
):
    log(delivery, 0, 25)
    deliver(delivery, backend, "aggregate")
    log(delivery, 25, 48)
    backend.fail(ConnectionError("away"))
    deliver(delivery, backend, "aggregate")
    backend.recover()
    log(delivery, 48, 60)
    deliver(delivery, backend, "aggregate", is_end=True)
    assert sorted(at_once("aggregate")) == sorted(facts(backend.records))


def test_what_was_said_before_a_restart_is_not_said_again(delivery: Delivery, backend: MemoryBackend):
    log(delivery, 0, 40)
    deliver(delivery, backend, "watch, aggregate")
    assert ["nan"] == [record.value["kind"] for record in delivery.emitted]
    deliver(delivery, backend, "watch, aggregate", is_end=True)
    assert 1 == len(delivery.emitted)


def test_the_end_of_each_attempt_brings_what_is_held_back(monkeypatch: pytest.MonkeyPatch):
    backend, later = MemoryBackend(), MemoryBackend()
    for attempt in range(2):
        chosen = settings(processors={"memory": [{"name": "aggregate", "every": 10}]})
        with Experiment("e", backend=MemoryBackend() if attempt else backend, run_id="r", settings=chosen) as one:
            logged(one, [float(attempt)] * 15, start=15 * attempt)
    stand_in(later, monkeypatch)
    shutil.rmtree(one.run_dir / "delivery")
    sync_run(one.run_dir, ["memory"], chosen)
    assert [(9, 0.0), (14, 0.0)] == [(r.iteration, r.value) for r in scalars(backend.records)]
    assert [(9, 0.0), (14, 0.0), (19, 1.0), (29, 1.0)] == [(r.iteration, r.value) for r in scalars(later.records)]


def test_the_end_of_a_killed_run_brings_it_too(monkeypatch: pytest.MonkeyPatch):
    backend = MemoryBackend()
    stand_in(backend, monkeypatch)
    sync_run(killed_run(), ["memory"], settings(processors={"memory": [{"name": "aggregate", "every": 10}]}))
    assert ["loss", "tracelet/status"] == [r.name for r in backend.records if r.name != "tracelet/git_commit"]


class Swallows(Processor):
    """Lets nothing through, not even the end."""

    def __init__(self) -> None:
        super().__init__(lambda metric: None)


def test_no_processor_keeps_the_end_from_a_backend(delivery: Delivery, backend: MemoryBackend):
    log(delivery, 0, 3)
    worker = delivery.worker(backend, [Swallows()])
    worker.start()
    worker.request_stop(WAIT_S, lambda: MetricData("tracelet/status", "failed", MetricType.CUSTOM))
    assert worker.join(WAIT_S)
    assert ["failed"] == [record.value for record in backend.records]


# -- plan and verify ---------------------------------------------------------------------------------------------------


def test_verify_takes_what_was_left_out_for_no_gap(monkeypatch: pytest.MonkeyPatch):
    backend = MemoryBackend()
    stand_in(backend, monkeypatch)
    chosen = settings(processors={"memory": [{"name": "rename", "pattern": "loss", "replacement": "l"}, THIN]})
    with Experiment("e", settings=chosen) as experiment:
        logged(experiment, [float(step) for step in range(95)])
    (check,) = verify_run(experiment.run_dir, "memory", chosen)
    assert SeriesCheck("l", 11, 11, 0, 0) == check
    del backend.records[3]
    (check,) = verify_run(experiment.run_dir, "memory", chosen)
    assert (1, 1) == (check.missing, check.repaired)


def test_plan_says_what_the_processors_do(monkeypatch: pytest.MonkeyPatch):
    stand_in(MemoryBackend(), monkeypatch)
    steps_ = [
        {"name": "drop", "match": "debug/*"},
        {"name": "scale", "match": "loss", "factor": 2},
        {"name": "rename", "pattern": "^acc$", "replacement": "accuracy"},
        {"name": "aggregate", "every": 10, "match": "grad", "functions": ["mean", "max"]},
        {**THIN, "match": "loss"},
    ]
    with Experiment("e", config={"lr": 0.1}, settings=settings()) as experiment:
        for step in range(20):
            experiment.log_metrics({"loss": 1.0, "acc": 1.0, "grad": 1.0, "debug/x": 1.0}, step)
    planned = plan_run(experiment.run_dir, "memory", settings(processors={"memory": steps_}))
    told = {(change.kind.value, change.why.split("'")[1]): (change.records, change.names) for change in planned}
    assert {
        ("dropped", "drop"): (20, {"debug/x": None}),
        ("changed", "scale"): (20, {"loss": None}),
        ("renamed", "rename"): (20, {"acc": "accuracy"}),
        ("dropped", "aggregate"): (18, {"grad": "2 of 20: grad/max, grad/mean"}),
        ("dropped", "thin"): (17, {"loss": "3 of 20"}),
    } == told


def test_alerts_reach_the_user_in_threads_once_for_all_backends(caplog: pytest.LogCaptureFixture):
    watch = {"*": [{"name": "watch", "before": 2}]}
    backends = [MemoryBackend("first"), MemoryBackend("second")]
    heard: list[Alert] = []
    experiment = Experiment("e", backend=backends, settings=settings(processors=watch))
    experiment.on_alert(heard.append)
    with experiment:
        logged(experiment, [1.0, math.inf, 1.0])
    assert [("inf", 1)] == [(alert.kind, alert.step) for alert in heard]
    assert ["loss is inf at step 1"] == [m for m in caplog.messages if "loss is" in m]
    for backend in backends:
        tags = [record.value for record in backend.records if record.name == TAG_PREFIX + ALERT_TAG]
        assert {"loss is inf at step 1"} == set(tags)
