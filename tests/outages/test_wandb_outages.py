"""The SDK's own process and its wandb-core are killed, and the service is away, while a training goes on.

The SDK tells no repetition: a batch that was on its way when something died is there twice, and nothing else is.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backends import wandb_files
from tests.backends.wandb_service import KEY, WandbService
from tests.outages.conftest import Start
from tests.outages.support import BOTH, Training, assert_undisturbed
from tests.outages.training import SERIES, TAGS, TEXT, WEIGHTS, Costs
from tracelet import load_run
from tracelet.backends.wandb_backend import WandbBackend

KILLS = 2


@pytest.fixture(autouse=True)
def own_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def service() -> Iterator[WandbService]:
    with WandbService() as service:
        yield service


def online(service: WandbService) -> dict[str, object]:
    return {"wandb__base_url": service.url, "wandb__api_key": KEY, "wandb__timeout_s": 10}


def children(pid: int) -> list[int]:
    return [int(child) for file in Path(f"/proc/{pid}/task").glob("*/children") for child in file.read_text().split()]


def processes(training: Training) -> tuple[int, int]:
    """The SDK's process of a training, and the wandb-core of that."""
    pid = training.report.pid
    assert pid is not None
    (sdk,) = (
        child for child in children(pid) if "tracelet.backends._wandb" in Path(f"/proc/{child}/cmdline").read_text()
    )
    (core,) = children(sdk)
    return sdk, core


def assert_complete(training: Training, costs: Costs, stored: wandb_files.Stored, outages: int) -> None:
    run = load_run(training.run_dir)
    found = wandb_files.points(stored)
    for name in SERIES:
        series = run.series(name)
        expected = list(zip(series.steps.tolist(), series.values.tolist(), series.times_s.tolist(), strict=True))
        points = [(step, value, round(time_s, 3)) for series, step, value, time_s in found if series == name]
        assert list(range(costs.steps)) == series.steps.tolist()
        assert [(step, value) for step, value, _ in expected] == list(dict.fromkeys(point[:2] for point in points))
        assert max(abs(time_s - expected[step][2]) for step, _, time_s in points) < 0.001
    twice = sum(count - 1 for count in Counter(point[:3] for point in found).values())
    assert twice <= outages * WandbBackend.max_batch
    expected_config = {"lr": 1e-3, "model/layers": 4, "model/name": "digits"}
    tags = {f"tracelet/tag/{key}": value for key, value in TAGS.items()}
    config = expected_config | tags
    assert config == {key: value for key, value in stored.config.items() if key in config}
    assert "finished" == stored.summary["tracelet/status"]
    assert not (training.backend_dir / "rejected.jsonl").exists()


@pytest.mark.parametrize("delivery", BOTH)
def test_killed_core_and_killed_sdk_cost_nothing_offline(start: Start, delivery: str, tmp_path: Path):
    training = start("wandb", wandb__mode="offline", delivery=delivery)
    for victim in range(KILLS):
        training.wait_for_more(500)
        os.kill(processes(training)[victim], signal.SIGKILL)
        training.wait_for_trouble()
    training.wait_for_more(500)
    costs = training.finish()
    assert_undisturbed(costs)
    stored = wandb_files.read(wandb_files.files_of(tmp_path))
    assert_complete(training, costs, stored, KILLS)
    assert "weights.bin" in [artifact.name for artifact in stored.artifacts]
    assert [0] == [end.exit_code for end in stored.exits if not end.not_complete]


@pytest.mark.parametrize("delivery", BOTH)
def test_killed_core_and_killed_sdk_cost_nothing_online(start: Start, service: WandbService, delivery: str):
    training = start("wandb", delivery=delivery, **online(service))
    for victim in range(KILLS):
        training.wait_for_more(500)
        os.kill(processes(training)[victim], signal.SIGKILL)
        training.wait_for_trouble()
    training.wait_for_more(500)
    costs = training.finish()
    assert_undisturbed(costs)
    served = service.runs[load_run(training.run_dir).uuid]
    assert_complete(training, costs, wandb_files.Stored(served.rows, served.config, served.summary), KILLS)
    assert 0 == served.exits[-1]
    (sample,) = {row["sample"]["path"] for row in served.rows if "sample" in row}
    assert TEXT in service.uploads[sample].decode()
    assert WEIGHTS == service.uploads["artifact/weights.bin"]


def test_service_that_is_away_at_the_start_and_again_in_mid_run(start: Start, service: WandbService):
    service.refuse = 503
    training = start("wandb", **online(service))
    training.wait_for_trouble()
    service.refuse = None
    training.wait_for_more(500)
    service.refuse = 503
    training.wait_for_more(500)  # The SDK's file takes them.
    service.refuse = None
    costs = training.finish()
    assert_undisturbed(costs)
    served = service.runs[load_run(training.run_dir).uuid]
    assert_complete(training, costs, wandb_files.Stored(served.rows, served.config, served.summary), 0)
