from __future__ import annotations

import importlib

import pytest
from typer.testing import CliRunner

from benchmarks.__main__ import Benchmark, app
from benchmarks.measuring import Row, Target, compare, in_new_process, scaled, scratch_experiment, show
from benchmarks.trackers import check
from tests.backends.mlflow_server import mlflow_on_sqlite  # noqa: F401  a fixture

# They import whole frameworks, some in a process for each of their cases: half a minute and more.
_HEAVY = (
    Benchmark.MANY_RUNS,
    Benchmark.LIGHTNING,
    Benchmark.JAX,
    Benchmark.TORCH,
    Benchmark.TRACKERS,
    Benchmark.HUGGING_FACE,
    Benchmark.KERAS,
)


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("importing", ["import tracelet", "none", "the first Experiment"]),
        ("log_metric", ["mmap.write, bare", "explicit step", "numpy.float32", "log_metrics of 10", "add_scalar"]),
        ("latency", ["map, tight", "os.write, tight", "bare store, tight", "map, step", "os.write, step"]),
        ("disk", ["points, stopped", "points, running"]),
        ("reading", ["of one series", "one of 10 series", "read_csv", "EventAccumulator"]),
        ("many_processes", ["log_metric", "csv.writer and flush"]),
        ("importing_runs", ["tracelet import", "EventAccumulator", "peak memory"]),
        ("memory", ["private, over", "mapped files"]),
        ("wandb_delivery", ["10 rows"]),
        ("artifacts", ["checkpoint of 8 MiB", "files of 4 KiB", "copytree", "hashed in the call"]),
        ("ui", ["table of runs", "first chart", "zoom", "memory", "live, 1,000 records/s", "newest point"]),
        ("collectors", ["what all collectors compute", "start(), all collectors", "system: a later one"]),
    ],
)
def test_each_benchmark_runs_and_prints_its_rows(name, rows, capfd):
    importlib.import_module(f"benchmarks.{name}").main(scale=0.0001)
    printed = capfd.readouterr().out
    assert [] == [row for row in rows if row not in printed]


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("mlflow_delivery", ["log_batch, bare", "as it comes", "gathered for 1 s"]),
        ("hosting", ["step, first seconds", "step, then", "start()", "first record", "stop()", "peak memory"]),
    ],
)
def test_each_benchmark_that_needs_a_server_runs_and_prints_its_rows(name, rows, mlflow_on_sqlite, capfd):  # noqa: F811 - the imported fixture
    importlib.import_module(f"benchmarks.{name}").measure(mlflow_on_sqlite, scale=0.0001)
    printed = capfd.readouterr().out
    assert [] == [row for row in rows if row not in printed]


def test_the_figures_of_a_delivery_that_was_not_complete_are_refused():
    check(10, 10)
    with pytest.raises(RuntimeError, match="9 points in place of 10"):
        check(9, 10)


def test_the_command_runs_the_benchmarks_that_it_names_at_the_scale_that_it_is_given(monkeypatch):
    ran = []
    for name in Benchmark:
        if name not in _HEAVY:
            monkeypatch.setattr(f"benchmarks.{name}.main", lambda scale, name=name: ran.append((name, scale)))
    result = CliRunner().invoke(app, ["memory", "disk", "--scale", "0.5"], catch_exceptions=False)
    assert 0 == result.exit_code
    assert [("memory", 0.5), ("disk", 0.5)] == ran


def test_the_command_refuses_a_benchmark_that_does_not_exist():
    assert 2 == CliRunner().invoke(app, ["speed"]).exit_code


def test_a_table_says_of_each_target_whether_it_is_met(capsys):
    rows = [
        Row("small", "1", target=Target(1.0, 1.2, "µs")),
        Row("large", "2", target=Target(2.0, 1.2, "µs")),
        Row("slow", "4", target=Target(4.0, 5, "times", at_least=True)),
    ]
    show("Title", rows)
    lines = capsys.readouterr().out.splitlines()
    verdicts = {line.split()[0]: line.split()[-1] for line in lines if line.strip()}
    assert {"small": "met", "large": "MISSED", "slow": "MISSED"}.items() <= verdicts.items()


def test_cases_take_turns():
    calls = []
    compare({"a": lambda count: calls.append(("a", count)), "b": lambda count: calls.append(("b", count))}, 7, 2)
    assert [("a", 7), ("b", 7)] * 3 == calls


def test_a_scratch_run_leaves_nothing_behind():
    with scratch_experiment() as experiment:
        experiment.log_metric("loss", 0.5)
        assert experiment.run_dir.exists()
    assert not experiment.run_dir.exists()


def test_a_function_runs_in_a_new_process():
    import os

    assert os.getpid() != in_new_process(os.getpid)


def test_a_scaled_size_is_never_nothing():
    assert [1, 5, 20] == [scaled(10, 0.0), scaled(10, 0.5), scaled(10, 0.5, least=20)]
