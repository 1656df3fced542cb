"""Whatever is logged, where and from wherever: the stated behaviour, read back from the disk; nothing else is lost."""

from __future__ import annotations

import datetime
import decimal
import fractions
import gc
import logging
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tracelet
from tracelet import Experiment, MetricType, Run, TraceletSettings
from tracelet.journal import writer

TENSOR = torch.arange(6.0).reshape(2, 3)


@pytest.fixture
def experiment() -> Iterator[Experiment]:
    # The journal looks after its files often, so that no test has to wait for it.
    experiment = Experiment("e", run_id="r", settings=TraceletSettings(sync_interval_s=0.02)).start()
    yield experiment
    experiment.stop()


def read(experiment: Experiment) -> Run:
    run = tracelet.load_run(experiment.run_dir)
    assert (0, 0) == (run.lost, run.damage.records + run.damage.lines)
    return run


def points(run: Run, name: str) -> list[tuple[int, float]]:
    series = run.series(name)
    return list(zip(series.steps.tolist(), series.values.tolist(), strict=True))


def wait_until(is_so: Callable[[], bool]) -> None:
    """For what another thread or process does, and tells nobody; the timeout of the test ends it."""
    while not is_so():
        threading.Event().wait(0.005)


# -- values ------------------------------------------------------------------------------------------------------------


class Broken:
    def __repr__(self) -> str:
        raise ZeroDivisionError

    def __float__(self) -> float:
        raise ZeroDivisionError


NUMBERS: dict[str, tuple[Any, float]] = {
    "nan": (math.nan, math.nan),
    "inf": (math.inf, math.inf),
    "-inf": (-math.inf, -math.inf),
    "-0.0": (-0.0, -0.0),
    "subnormal": (5e-324, 5e-324),
    "int": (3, 3.0),
    "2**53": (2**53, 2.0**53),
    "true": (True, 1.0),
    "false": (False, 0.0),
    "decimal": (decimal.Decimal("1.5"), 1.5),
    "fraction": (fractions.Fraction(1, 4), 0.25),
    "numpy float64": (np.float64(1.5), 1.5),
    "numpy float16": (np.float16(1.5), 1.5),
    "numpy int8": (np.int8(-3), -3.0),
    "numpy uint64": (np.uint64(2**53), 2.0**53),
    "numpy bool": (np.True_, 1.0),
    "numpy 0-d": (np.array(1.5), 1.5),
    "numpy size 1": (np.array([[1.5]]), 1.5),
    "numpy nan": (np.float32("nan"), math.nan),
    "torch 0-d": (torch.tensor(1.5), 1.5),
    "torch size 1": (torch.tensor([1.5]), 1.5),
    "torch bfloat16": (torch.tensor(1.5, dtype=torch.bfloat16), 1.5),
    "torch float16": (torch.tensor(1.5, dtype=torch.float16), 1.5),
    "torch int": (torch.tensor(3), 3.0),
    "torch bool": (torch.tensor(True), 1.0),
    "torch requires_grad": (torch.tensor(1.5, requires_grad=True) * 1, 1.5),
}
STAND_INS: dict[str, tuple[Any, float, str]] = {
    "2**53 + 1": (2**53 + 1, 2.0**53, str(2**53 + 1)),
    "10**400": (10**400, math.inf, str(10**400)),
    "-10**400": (-(10**400), -math.inf, str(-(10**400))),
    "10**5000": (10**5000, math.inf, hex(10**5000)),
    "None": (None, math.nan, "None"),
}
TEXTS: dict[str, tuple[Any, str]] = {
    "text": ("text", "text"),
    "number as text": ("1.5", "1.5"),
    "complex": (1 + 2j, "(1+2j)"),
    "bytes": (b"1.5", "b'1.5'"),
    "set": (set(), "set()"),
    "date": (datetime.date(2024, 5, 1), "2024-05-01"),
    "numpy date": (np.datetime64("2024-05-01"), "2024-05-01"),
    "texts": (["a", "b"], "['a', 'b']"),
    "broken": (Broken(), "<Broken whose text failed: ZeroDivisionError>"),
    "control characters": ("a\0b\x1b[31m\n", "a\0b\x1b[31m\n"),
    "lone surrogate": ("\ud800", "\ud800"),
}
ARRAYS: dict[str, tuple[Any, list[Any]]] = {
    "list": ([1, 2], [1, 2]),
    "numpy": (np.arange(3.0), [0, 1, 2]),
    "numpy empty": (np.array([]), []),
    "torch": (TENSOR, TENSOR.tolist()),
    "torch bfloat16": (TENSOR.to(torch.bfloat16), TENSOR.tolist()),
    "torch float16": (TENSOR.to(torch.float16), TENSOR.tolist()),
    "torch requires_grad": (TENSOR.clone().requires_grad_() * 1, TENSOR.tolist()),
}


def test_every_value_has_its_stated_form(experiment: Experiment, caplog: pytest.LogCaptureFixture):
    given = {
        kind: {name: values[0] for name, values in table.items()}
        for kind, table in {"n": NUMBERS, "s": STAND_INS, "t": TEXTS, "a": ARRAYS}.items()
    }
    with caplog.at_level(logging.WARNING):
        for kind, values in given.items():
            for name, value in values.items():
                experiment.log_metric(f"{kind}/{name}", value, 1)
        experiment.log_metrics(given, 2)
        experiment.log_metrics(given, 3)
    run = read(experiment)
    for name, (_, number) in NUMBERS.items():
        assert [(step, pytest.approx(number, abs=0, nan_ok=True)) for step in (1, 2, 3)] == points(run, f"n/{name}"), (
            name
        )
    assert math.copysign(1, run.series("n/-0.0").values[0]) == -1
    scalars = run.records(MetricType.SCALAR)
    for name, (_, number, exact) in STAND_INS.items():
        assert [(step, pytest.approx(number, nan_ok=True)) for step in (1, 2, 3)] == points(run, f"s/{name}"), name
        assert [{"exact": exact}] * 3 == [record.metadata for record in scalars if record.name == f"s/{name}"]
    for name, (_, text) in TEXTS.items():
        assert [(step, text) for step in (1, 2, 3)] == run.texts(f"t/{name}"), name
    tensors = run.records(MetricType.TENSOR)
    for name, (_, elements) in ARRAYS.items():
        kept = [(record.iteration, np.load(record.value).tolist()) for record in tensors if record.name == f"a/{name}"]
        assert [(step, elements) for step in (1, 2, 3)] == kept, name
    expected = {f"{kind}/{name}" for kind, values in given.items() for name in values}
    assert expected == set(run.names(*MetricType)) - {"tracelet/status"}
    warned = [record.getMessage() for record in caplog.records]
    silent = {"text", "number as text", "control characters", "lone surrogate"}
    assert len(STAND_INS) + len(TEXTS) - len(silent) + len(ARRAYS) == len(warned)


def test_nested_and_cyclic_values(experiment: Experiment):
    cyclic: dict[str, Any] = {"number": 1}
    cyclic |= {"self": cyclic, "list": [cyclic]}
    deep: Any = 1.0
    for _ in range(2000):
        deep = {"x": deep}
    experiment.log_metrics({"cyclic": cyclic, "deep": deep, "last": 1.0}, 1)
    experiment.log_metric("cyclic text", cyclic, 1)
    experiment.log_params({"cyclic": cyclic, "deep": deep, "function": print, "tensor": TENSOR})
    run = read(experiment)
    assert [(1, 1.0)] == points(run, "cyclic/number") == points(run, "last")
    assert [(1, "<cycle>")] == run.texts("cyclic/self")
    assert (1, "<cycle>") == (run.params["cyclic/number"], run.params["cyclic/self"])
    assert run.names(MetricType.TEXT, MetricType.TENSOR) == [
        name for name in run.names(MetricType.TEXT, MetricType.TENSOR) if name.startswith(("cyclic", "deep/x/"))
    ]


# -- names -------------------------------------------------------------------------------------------------------------

NAMES = [
    "", " ", ".", "..", "../../x", "/etc/hosts", "a//b", "a/", "a\\b", "a\nb", "\0", "a\0b", "\x1b[31mred", "\x7f",
    "ünïcödé 🚀", "\u202eabc", "e\u0301", "\xe9", "\ud800", "<script>alert(1)</script>", "%", "key#1", "a",
    "a/b", "a/b/c", "A", "None", "x" * 1000, "y" * 10_000, "tracelet/status", "tracelet/tag/x", '"', "{}", "run.json",
    "CON",
]  # fmt: skip


def test_every_name_is_kept_as_it_is_and_none_meets_another(experiment: Experiment, tmp_path: Path):
    Path("file").write_text("content")
    for number, name in enumerate(NAMES):
        experiment.log_metric(name, float(number), number)
        experiment.log_metrics({name: number + 0.5}, number)
        experiment.log_text(name, f"text {number}", number)
        experiment.log_param(name, number)
        experiment.log_artifact("file", name=name)
        experiment.log_image(name, np.full((1, 1), number, np.uint8), number)
        experiment.set_tags({name: number})
    run = read(experiment)
    assert sorted(NAMES) == run.names() == run.names(MetricType.TEXT) == run.names(MetricType.ARTIFACT)
    assert {name: number for number, name in enumerate(NAMES)} == run.params
    assert {name: str(number) for number, name in enumerate(NAMES)} == run.tags
    for number, name in enumerate(NAMES):
        assert [(number, float(number)), (number, number + 0.5)] == points(run, name)
        assert [(number, f"text {number}")] == run.texts(name)
    files = [Path(record.value) for record in run.records(MetricType.ARTIFACT, MetricType.IMAGE)]
    assert 2 * len(NAMES) == len(set(files))
    for file in files:
        assert file.is_file()
        assert file.resolve().is_relative_to(experiment.run_dir)
    assert "running" == run.status.value  # A metric may be called as the status is.
    assert {"file", "tracelet_runs"} == set(os.listdir(tmp_path))


# -- steps -------------------------------------------------------------------------------------------------------------

STEPS: list[tuple[Any, int | None, str | None]] = [
    (5, 5, None),
    (3, 3, None),
    (3, 3, None),
    (-1, -1, None),
    (2**63 - 1, 2**63 - 1, None),
    (-(2**63), -(2**63), None),
    (2**63, 2**63 - 1, str(2**63)),
    (-(10**30), -(2**63), str(-(10**30))),
    (1.5, 1, "1.5"),
    (2.0, 2, None),
    (True, 1, None),
    (np.int64(4), 4, None),
    (np.uint8(4), 4, None),
    (np.float32(4.0), 4, None),
    (torch.tensor(4), 4, None),
    (math.nan, None, "nan"),
    (math.inf, None, "inf"),
    ("7", None, "7"),
    ([1], None, "[1]"),
    (np.arange(2), None, "[0 1]"),
    (torch.empty((), dtype=torch.int64, device="meta"), None, "tensor(..., device='meta', size=(), dtype=torch.int64)"),
]


def test_every_step_is_kept_or_stands_in_the_metadata_in_the_order_of_the_calls(experiment: Experiment):
    for step, _, _ in STEPS:
        experiment.log_metric("fast", 1.0, step)
        experiment.log_metric("slow", 1, step)
        experiment.log_metrics({"a": 1.0, "b": 2.0}, step)
        experiment.log_text("text", "x", step)
    run = read(experiment)
    own = iter(range(len(STEPS)))
    expected = [kept if kept is not None else next(own) for _, kept, _ in STEPS]
    changed = [{"iteration": text} for _, _, text in STEPS if text is not None]
    for name in ("fast", "slow", "a", "b"):
        assert expected == run.series(name).steps.tolist()
        assert changed == [record.metadata for record in run.records(MetricType.SCALAR) if record.name == name]
    assert [kept for _, kept, _ in STEPS] == [step for step, _ in run.texts("text")]


def test_a_clock_that_jumps_changes_neither_the_order_nor_the_duration(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
):
    for number, hours in enumerate((0, -1, 1, 0, -2)):
        monkeypatch.setattr(writer, "_time_ns", lambda hours=hours: time.time_ns() + hours * 3_600_000_000_000)
        log_everything(experiment, "main", number)
    experiment.stop()
    run = read(experiment)
    assert_everything(run, "main", 5)
    assert 0 < run.duration_s < 3600


# -- from where --------------------------------------------------------------------------------------------------------


def log_everything(experiment: Experiment, prefix: str, number: int) -> None:
    experiment.log_metric(f"{prefix}/known", float(number), number)
    experiment.log_metric(f"{prefix}/new {number}", float(number), number)
    experiment.log_metrics({f"{prefix}/a": float(number), f"{prefix}/b": number}, number)
    experiment.log_text(f"{prefix}/text", str(number), number)


def assert_everything(run: Run, prefix: str, count: int, arrange: Callable[[Any], Any] = list) -> None:
    expected = [(number, float(number)) for number in range(count)]
    for name in ("known", "a", "b"):
        assert expected == arrange(points(run, f"{prefix}/{name}"))
    for number in range(count):
        assert [(number, float(number))] == points(run, f"{prefix}/new {number}")
    assert [(number, str(number)) for number in range(count)] == arrange(run.texts(f"{prefix}/text"))


def test_a_signal_handler_may_log_in_the_middle_of_a_call(experiment: Experiment):
    handled = logged = 0

    def handle(*_: Any) -> None:
        nonlocal handled
        number, handled = handled, handled + 1  # Another signal may come in the middle of this one.
        log_everything(experiment, "handler", number)

    before = signal.signal(signal.SIGALRM, handle)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        while handled < 200:
            log_everything(experiment, "main", logged)
            logged += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    run = read(experiment)
    assert_everything(run, "handler", handled, sorted)
    assert_everything(run, "main", logged)


class LogsWhenItGoes:
    count = 0

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.me = self  # So that only the garbage collector ends it: in the middle of any allocation.

    def __del__(self) -> None:
        number, LogsWhenItGoes.count = LogsWhenItGoes.count, LogsWhenItGoes.count + 1
        log_everything(self.experiment, "del", number)


def test_del_may_log_in_the_middle_of_a_call(experiment: Experiment):
    LogsWhenItGoes.count = 0
    thresholds = gc.get_threshold()
    gc.collect()
    gc.set_threshold(5)
    try:
        for number in range(100):
            LogsWhenItGoes(experiment)
            log_everything(experiment, "main", number)
    finally:
        gc.set_threshold(*thresholds)
        gc.collect()
    run = read(experiment)
    assert 100 == LogsWhenItGoes.count
    assert_everything(run, "main", 100)
    assert_everything(run, "del", 100, sorted)


def test_forked_children_may_log_while_other_threads_do(experiment: Experiment):
    stop = threading.Event()
    counts = [0, 0]

    def log(thread: int) -> None:
        while not stop.is_set():
            if counts[thread] < 200:
                log_everything(experiment, f"thread {thread}", counts[thread])
                counts[thread] += 1
            experiment.log_metric("busy", 1.0)

    threads = [threading.Thread(target=log, args=(thread,)) for thread in range(2)]
    for thread in threads:
        thread.start()
    for child in range(20):
        pid = os.fork()
        if pid == 0:
            log_everything(experiment, f"child {child}", 0)
            os._exit(0)
        assert 0 == os.waitpid(pid, 0)[1]
    stop.set()
    for thread in threads:
        thread.join()
    run = read(experiment)
    for number, count in enumerate(counts):
        assert_everything(run, f"thread {number}", count)
    for child in range(20):
        assert_everything(run, f"child {child}", 1)


# -- where to ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["/proc/no/runs", "/sys/runs", "file/runs", "dangling/runs"])
def test_a_place_that_takes_nothing_stops_no_training(place: str, caplog: pytest.LogCaptureFixture):
    Path("file").write_text("x")
    Path("dangling").symlink_to("/proc/no")
    with caplog.at_level(logging.WARNING):
        experiment = Experiment("e", config={"lr": 1}, dir=place).start()
        for number in range(100):
            log_everything(experiment, "main", number)
        experiment.log_image("image", np.zeros((2, 2)))
        experiment.log_artifact(__file__)
        experiment.stop()
    assert 100 * 5 <= experiment.status()["lost"]
    said = [record.getMessage() for record in caplog.records if "cannot be written" in record.getMessage()]
    assert 1 == len(said)
    assert str(experiment.status()["lost"]) in caplog.records[-1].getMessage()
    assert {"file", "dangling"} == set(os.listdir())


def test_a_missing_directory_is_made_for_its_owner_alone():
    with Experiment("e", dir="a/b/c") as experiment:
        experiment.log_metric("x", 1.0)
    for path in (experiment.run_dir, experiment.run_dir.parent):
        assert 0o700 == path.stat().st_mode & 0o777
    assert {0o600} == {path.stat().st_mode & 0o777 for path in experiment.run_dir.iterdir() if path.is_file()}


def test_a_run_directory_that_vanishes_is_made_again_and_what_comes_is_kept(experiment: Experiment):
    log_everything(experiment, "before", 0)
    # Under another name first: the journal makes new files there while the tree is taken apart.
    shutil.rmtree(experiment.run_dir.rename(experiment.run_dir.with_name("removed")))
    count = 0

    def is_back() -> bool:
        nonlocal count
        log_everything(experiment, "meanwhile", count)
        count += 1
        return (experiment.run_dir / "run.json").exists() and bool(list(experiment.run_dir.glob("*.log")))

    wait_until(is_back)
    for number in range(10):
        log_everything(experiment, "after", number)
    experiment.stop()
    run = read(experiment)
    assert_everything(run, "after", 10)
    assert ("r", "finished") == (run.id, run.status.value)


FULL = """
import logging, resource, sys, time, tracelet
logging.basicConfig(format="LOG %(message)s", stream=sys.stdout)
experiment = tracelet.Experiment("e", run_id="r", settings=tracelet.TraceletSettings(sync_interval_s=0.02)).start()
def log(prefix):
    for step in range(3000):
        experiment.log_metric(prefix + "/a", float(step), step)
        if step % 10 == 0:
            experiment.log_text(prefix + "/text", "x" * 100, step)
log("before")
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, resource.RLIM_INFINITY))  # As on a full disk, nothing grows any more.
log("full")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
while True:
    time.sleep(0.02)
    if any('"kind":"gap"' in path.read_text() for path in experiment.run_dir.glob("*.log")):
        break
log("after")
experiment.stop()
print("LOST", experiment.status()["lost"])
"""


def test_a_full_disk_loses_nothing_that_fits_into_memory_and_is_written_again_when_there_is_room(tmp_path: Path):
    done = subprocess.run([sys.executable, "-c", FULL], capture_output=True, text=True, check=True, timeout=60)
    assert "" == done.stderr
    assert 1 == done.stdout.count("cannot be written")
    assert 1 == done.stdout.count("is written again")
    run = tracelet.load_run("r")
    lost = int(done.stdout.rpartition("LOST ")[2])
    assert lost == run.lost
    kept = sum(len(run.series(f"{part}/a")) + len(run.texts(f"{part}/text")) for part in ("before", "full", "after"))
    assert 3 * (3000 + 300) == kept + lost
    for part in ("before", "after"):
        assert list(range(3000)) == run.series(f"{part}/a").steps.tolist()
        assert 300 == len(run.texts(f"{part}/text"))
    steps = run.series("full/a").steps.tolist()
    assert sorted(steps) == steps


# -- what is there already ---------------------------------------------------------------------------------------------


DAMAGES: dict[str, Callable[[Path, Path, Path], object]] = {
    "cut log": lambda run, log, segment: os.truncate(log, log.stat().st_size - 10),
    "empty log": lambda run, log, segment: os.truncate(log, 0),
    "foreign log": lambda run, log, segment: log.write_bytes(b"\xff\n\0{}" * 1000),
    "missing log": lambda run, log, segment: log.unlink(),
    "cut segment": lambda run, log, segment: os.truncate(segment, 4096 + 33),
    "cut header": lambda run, log, segment: os.truncate(segment, 100),
    "empty segment": lambda run, log, segment: os.truncate(segment, 0),
    "foreign segment": lambda run, log, segment: segment.write_bytes(b"\xff" * 8192),
    "missing segment": lambda run, log, segment: segment.unlink(),
    "a directory as segment": lambda run, log, segment: (run / f"{log.stem}-000001.seg").mkdir(),
    "foreign files": lambda run, log, segment: [(run / name).write_text("x") for name in ("a.log", "b.seg", ".log")],
    "a half-made file": lambda run, log, segment: (run / f"{'2' * 32}.tmp").write_bytes(b""),
    "files as directories": lambda run, log, segment: [(run / name).write_text("") for name in ("media", "delivery")],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_run_can_be_read_and_resumed(damage: Callable[[Path, Path, Path], object], tmp_path: Path):
    with Experiment("e", run_id="r") as first:
        log_everything(first, "first", 0)
    damage(first.run_dir, next(first.run_dir.glob("*.log")), next(first.run_dir.glob("*.seg")))
    tracelet.load_run("r").names()
    with Experiment("e", run_id="r", backend="jsonl", resume="must") as second:
        log_everything(second, "second", 0)
        second.log_image("image", np.zeros((2, 2)))
    run = tracelet.load_run("r")
    assert_everything(run, "second", 1)
    assert "finished" == run.status.value
    assert "image" in run.names(MetricType.IMAGE, MetricType.TEXT)
    assert 0 == run.lost
