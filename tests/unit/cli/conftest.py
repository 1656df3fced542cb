"""Runs with fixed times, and the command line to look at them with."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tracelet.cli import make_app
from tracelet.core.records import DEFINE_PREFIX, STATUS_NAME, TAG_PREFIX, MetricType
from tracelet.journal.directory import RunDirectory, RunIdentity
from tracelet.journal.writer import JournalWriter
from tracelet.utils.names import safe_directory_name

CREATED_S = 1_790_000_000  # 2026-09-21 14:13:20 UTC

MakeRun = Callable[..., Path]
Tracelet = Callable[..., Result]


@pytest.fixture(autouse=True)
def fixed_surroundings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """80 columns, UTC, no colours."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def tracelet() -> Tracelet:
    """Runs a command, checks its exit code, and that what it prints as JSON is strict."""

    def run(*arguments: str, code: int = 0) -> Result:
        result = CliRunner().invoke(make_app(), list(arguments), prog_name="tracelet")
        assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
        if "--json" in arguments and result.stdout:
            strict_json(result.stdout)
        return result

    return run


def _refuse(constant: str) -> float:
    raise AssertionError(f"{constant} is no JSON")


def strict_json(text: str) -> Any:
    return json.loads(text, parse_constant=_refuse)


@pytest.fixture
def read_json(tracelet: Tracelet) -> Callable[..., Any]:
    """Runs a command with `--json`, and gives what it printed."""
    return lambda *arguments, code=0: strict_json(tracelet(*arguments, "--json", code=code).stdout)


@pytest.fixture
def make_run(tmp_path: Path) -> Iterator[MakeRun]:
    """Makes a run in `tracelet_runs`, and gives its directory."""
    writers: list[JournalWriter] = []

    def make(
        run_id: str = "run1",
        name: str = "digits",
        *,
        project: str = "default",
        created_s: float = CREATED_S,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        series: Mapping[str, Sequence[float] | Mapping[int, float]] | None = None,
        system: Mapping[str, Sequence[float]] | None = None,
        axes: Mapping[str, str] | None = None,
        texts: Mapping[str, str] | None = None,
        status: str | None = "finished",
        error: str | None = None,
        duration_s: float = 65.0,
        closed: bool = True,
    ) -> Path:
        path = tmp_path / "tracelet_runs" / safe_directory_name(project) / safe_directory_name(run_id)
        identity = RunIdentity(f"{len(writers):032x}", run_id, name, project, int(created_s * 1e9))
        writer = JournalWriter(RunDirectory(path, identity))
        writers.append(writer)
        writer.open()
        record = writer.write_record
        for key, value in (params or {}).items():
            record(key, value, MetricType.PARAMETER)
        for key, value in (tags or {}).items():
            record(TAG_PREFIX + key, value, MetricType.CUSTOM)
        for key, value in (axes or {}).items():
            record(DEFINE_PREFIX + key, {"step": value}, MetricType.CUSTOM)
        for kind, group in ((MetricType.SCALAR, series or {}), (MetricType.SYSTEM, system or {})):
            for key, points in group.items():
                defined = writer.define(key if kind is MetricType.SCALAR else (key, kind, "test"))
                assert defined is not None
                pairs = points.items() if isinstance(points, Mapping) else enumerate(points)
                for second, (step, value) in enumerate(pairs):
                    writer.append(defined.key, step, value, int((created_s + second) * 1e9))
        for key, text in (texts or {}).items():
            record(key, text, MetricType.TEXT, step=3)
        if status is not None:
            details = {"duration_s": duration_s} | ({} if error is None else {"error": error})
            record(STATUS_NAME, status, MetricType.CUSTOM, metadata=details)
        if closed:
            writer.close()
        return path

    yield make
    for writer in writers:
        writer.close()


@pytest.fixture
def demo(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runs of docs/cli.md, three hours after the first was started."""
    monkeypatch.setattr(time, "time", lambda: CREATED_S + 3 * 3600.0)

    def learning(rate: float, steps: int) -> dict[str, Any]:
        loss = [2.3 * math.exp(-rate * step) + 0.1 + 0.05 * math.sin(step) for step in range(steps)]
        every = range(9, steps, 10)
        return {
            "train/loss": loss,
            "val/loss": {step: 2.3 * math.exp(-rate * step) + 0.15 for step in every},
            "val/acc": {step: 1 - 0.9 * math.exp(-rate * step) - 0.02 for step in every},
            "epoch": {step: float(step // 10) for step in every},
        }

    def params(rate: float, size: int) -> dict[str, Any]:
        return {"lr": rate, "batch_size": 32, "optimizer/name": "adam", "hidden": size}

    team, common = {"team": "vision"}, {"project": "digits"}
    make_run("k3v9x2ab", "mlp-small", params=params(0.01, 64), series=learning(0.02, 100), tags=team, **common)
    make_run(
        "p7dqm4we", "mlp-large", created_s=CREATED_S + 3600, params=params(0.003, 512), series=learning(0.04, 100),
        tags=team | {"baseline": ""}, texts={"notes": "wider, and a smaller rate"}, duration_s=1431, **common,
    )  # fmt: skip
    make_run(
        "t5hz8rcu", "cnn", created_s=CREATED_S + 2.9 * 3600, params=params(0.1, 64), duration_s=12.4,
        series={"train/loss": [2.3, 1.9, 4.8, 77.0, math.inf, math.nan, math.nan]}, status="failed",
        error="Traceback (most recent call last):\n  …\nRuntimeError: the loss is NaN", **common,
    )  # fmt: skip
