"""Rows on their way into W&B's history: in the order of the calls, whatever they hold and whatever SDK it is."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.backends import wandb_files
from tracelet import Experiment
from tracelet.backends._wandb.history import History
from tracelet.backends.wandb_backend import WandbBackend


@pytest.fixture(autouse=True)
def own_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def test_numbers_and_media_come_in_the_order_in_which_they_were_logged(tmp_path: Path):
    with Experiment("digits", backend=WandbBackend()) as experiment:
        for step, value in enumerate([1.0, "one", float("nan"), "two", float("-inf")]):
            experiment.log_metric("number" if isinstance(value, float) else "text", value, step)
    rows = wandb_files.read(wandb_files.files_of(tmp_path)).rows
    assert [0, 1, 2, 3, 4] == [row["tracelet/step"] for row in rows]
    assert ["1.0", "nan", "-inf"] == [str(float(row["number"])) for row in rows if "number" in row]


def test_rows_go_by_the_public_call_where_the_sdk_has_another_inside():
    calls: list[str] = []
    history = History(SimpleNamespace(log=lambda row: calls.append(f"log {row}")))
    history.log({"loss": 1.0})
    history.send()
    assert ["log {'loss': 1.0}"] == calls
